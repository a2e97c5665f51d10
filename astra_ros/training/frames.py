"""The pictures a codec learns from: a bounded sample of every dataset's frames, kept in a file for the next start."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from astra_ros.training.mix import TrainingSet
from astra_ros.training.progress import EpisodeCount
from astra_ros.types import ByteArray

FRAMES_PER_EPISODE = 32  # more of one episode look alike, and reading its video costs the same


@dataclass(frozen=True)
class FramePool:
    """frames (n, h, w, 3) uint8; backgrounds (m, h, w, 3) uint8: mean of an episode; episode (n,): which of the m."""

    frames: ByteArray
    backgrounds: ByteArray
    episode: np.ndarray

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[ByteArray, ByteArray]:
        """(b, h, w, 3) frames and the background of each."""
        chosen = rng.integers(len(self.frames), size=batch)
        return self.frames[chosen], self.backgrounds[self.episode[chosen]]

    def save(self, file: Path) -> None:
        """Keep it for the next start."""
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        save_file(
            {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}, partial
        )
        os.replace(partial, file)

    @classmethod
    def load(cls, file: Path) -> FramePool:
        return cls(**load_file(file))


def gather_frames(sets: Sequence[TrainingSet], size: tuple[int, int], count: int, seed: int) -> FramePool:
    """About `count` frames, of every dataset in the proportion of its weight."""
    rng, total = np.random.default_rng(seed), sum(one.weight for one in sets)
    episodes: list[ByteArray] = []
    for one in sets:
        episodes += _sample(one, size, math.ceil(count * one.weight / total), rng)
    if not episodes:
        raise ValueError("data.sets: expected at least one readable episode, found none")
    backgrounds = [np.rint(frames.mean(axis=0)).astype(np.uint8) for frames in episodes]
    owner = np.repeat(np.arange(len(episodes)), [len(frames) for frames in episodes])
    return FramePool(np.concatenate(episodes), np.stack(backgrounds), owner)


def _sample(one: TrainingSet, size: tuple[int, int], count: int, rng: np.random.Generator) -> list[ByteArray]:
    """Frames of as many episodes, in random order, as the count takes; of each at least FRAMES_PER_EPISODE."""
    wanted = min(len(one.names), math.ceil(count / FRAMES_PER_EPISODE))
    names = [one.names[i] for i in rng.permutation(len(one.names))[:wanted]]
    progress = EpisodeCount(f"{one.dataset.name}: pictures for the codec", len(names))
    sampled = []
    for episode in one.dataset.stream(names, size, progress.skip):
        length = len(episode.pixels)
        chosen = rng.choice(length, min(length, math.ceil(count / wanted)), replace=False)
        sampled.append(episode.pixels[np.sort(chosen)])
        progress.good()
    progress.end()
    return sampled
