"""How far a future is from what a planner wants to see at its end.

A distance is made once per question, from the goal, and then measures many futures. `codec` compares latents, so no frame
is decoded for a score; `perceptual` compares features of pictures. Others come by entry point, group `astra_ros.goal_distance`: a function like `codec_distance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from astra_ros.backends.base import Backend
from astra_ros.types import ByteArray, FloatArray

GROUP = "astra_ros.goal_distance"

# Latents (n, t, c, h, w) of n futures → (n, t), smaller is better.
GoalDistance = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Goal:
    """latents: (c, h, w). pixels: (h, w, 3) uint8, the picture they are of; None for a goal that came as latents."""

    latents: FloatArray
    pixels: ByteArray | None = None


MakeGoalDistance = Callable[[Backend, Goal], GoalDistance]


def codec_distance(_backend: Backend, goal: Goal) -> GoalDistance:
    """Mean squared difference of latents."""

    def measure(futures: FloatArray) -> FloatArray:
        return np.square(futures - goal.latents).mean(axis=(2, 3, 4))

    return measure


def perceptual_distance(encode: Callable[[ByteArray], FloatArray]) -> MakeGoalDistance:
    """Squared distance of what `encode` makes of pictures (h, w, 3), in the last frame only: each costs a decoding."""

    def make(backend: Backend, goal: Goal) -> GoalDistance:
        wanted = encode(backend.decode(goal.latents[None])[0] if goal.pixels is None else goal.pixels)

        def measure(futures: FloatArray) -> FloatArray:
            found = np.full(futures.shape[:2], np.nan, np.float32)
            for future, latents in enumerate(futures[:, -1]):
                found[future, -1] = np.square(encode(backend.decode(latents[None])[0]) - wanted).sum()
            return found

        return measure

    return make


_OWN: dict[str, MakeGoalDistance] = {"codec": codec_distance}
PERCEPTUAL = "perceptual"


def find_goal_distance(
    name: str, encoder: str = "", size: tuple[int, int] | None = None, num_threads: int = 2
) -> MakeGoalDistance:
    """By its name. encoder: file of export/perceptual.py, for `perceptual`; size: height and width that it must take.

    num_threads: CPU threads of the encoder.

    Raises ValueError for an unknown one, and whatever a plug-in raises when it is imported.
    """
    if name == PERCEPTUAL:
        return perceptual_distance(_open(encoder, size, num_threads))
    if name in _OWN:
        return _OWN[name]
    plugins = {found.name: found for found in entry_points(group=GROUP)}
    if name not in plugins:
        raise ValueError(
            f"goal_distance: expected one of {', '.join(sorted({PERCEPTUAL, *_OWN, *plugins}))}, found {name!r}; install the package"
            f" that has it (entry point of the group {GROUP})"
        )
    make: MakeGoalDistance = plugins[name].load()
    return make


def _open(encoder: str, size: tuple[int, int] | None, num_threads: int) -> Callable[[ByteArray], FloatArray]:
    if not encoder:
        raise ValueError(
            "goal_encoder: expected the file of a perceptual encoder with goal_distance perceptual, found none; make it:"
            " python -m export.perceptual BUNDLE --out FILE"
        )
    from astra_ros.backends.picture_encoder import PictureEncoder

    opened = PictureEncoder(Path(encoder), num_threads)
    if size is not None and opened.size != size:
        raise ValueError(
            f"goal_encoder: expected one for pictures of {size[0]} x {size[1]}, found {opened.size[0]} x {opened.size[1]};"
            " make it for this bundle: python -m export.perceptual BUNDLE --out FILE"
        )
    return opened


def measured(distance: GoalDistance, futures: FloatArray) -> FloatArray:
    """(n, t) distances, whoever wrote the function. Raises ValueError for another shape, and where it fails."""
    try:
        found = np.asarray(distance(futures), np.float32)
    except Exception as error:
        raise ValueError(
            f"goal distance: expected numbers, found {type(error).__name__}: {' '.join(str(error).split())[:300]}; mend the plug-in"
        ) from error
    if found.shape != futures.shape[:2]:
        raise ValueError(
            f"goal distance: expected (futures, frames) = {futures.shape[:2]} numbers, found {found.shape};"
            " mend the plug-in"
        )
    return found
