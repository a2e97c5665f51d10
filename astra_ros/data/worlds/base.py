"""What every world has in common: episodes of 10 s at 10 Hz, two styles of acting, and the same episode for a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from astra_ros.data.episode import Episode
from astra_ros.data.schema import ActionSchema
from astra_ros.types import NANOSECONDS, ByteArray

Style = Literal["abrupt", "smooth"]
STYLES: tuple[Style, ...] = ("abrupt", "smooth")

FRAME_HZ = 10
FRAME_S = 1 / FRAME_HZ
NUM_FRAMES = 100
SIZE_PX = 128


@dataclass(frozen=True)
class World:
    """One kind of episode.

    simulate: seed and style to the pictures and the recorded rows of one episode; the same arguments, the same bytes.
    activity: what is done in the episode of a seed, a few words.
    """

    name: str
    schema: ActionSchema
    simulate: Callable[[int, Style], Recording]
    activity: Callable[[int], str]

    def episode(self, seed: int, style: Style) -> Episode:
        """The episode of a seed. Raises ValueError for a seed below 0."""
        if seed < 0:
            raise ValueError(f"seed: expected 0 or more, found {seed}")
        recording = self.simulate(seed, style)
        stamps = np.arange(len(recording.pixels), dtype=np.int64) * (NANOSECONDS // FRAME_HZ)
        measured = np.asarray(recording.rows, np.float32)
        commanded = np.asarray(recording.commanded or recording.rows, np.float32)
        return Episode(episode_name(seed), stamps, np.stack(recording.pixels), measured, commanded)

    def task(self, seed: int, style: Style) -> str:
        """What the data set says about an episode: evaluation selects a style by the end of it."""
        return f"{self.activity(seed)}/{style}"


@dataclass(frozen=True)
class Recording:
    """pixels: one (h, w, 3) uint8 picture per frame; rows: one row per frame in the recorded form of `Episode`, as measured.

    commanded: likewise, where it is another thing than what was measured.
    """

    pixels: list[ByteArray]
    rows: list[np.ndarray]
    commanded: list[np.ndarray] | None = None


def episode_name(seed: int) -> str:
    """The seed is in the name, so that an interrupted run knows which episodes are there."""
    return f"episode_{seed:06d}"


def style_of(seed: int) -> Style:
    """Half of the seeds each: even ones act abruptly, odd ones smoothly."""
    return STYLES[seed % 2]
