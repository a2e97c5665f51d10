"""A plan of any length, rolled out chunk after chunk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from astra_ros.backends.base import Past
from astra_ros.backends.manifest import Manifest
from astra_ros.backends.rollout import Rollout
from astra_ros.types import FloatArray


def roll_out(
    rollout: Rollout,
    past: Past,
    plan: FloatArray,
    manifest: Manifest,
    seed: int,
    num_steps: int = 0,
) -> Iterator[FloatArray]:
    """Latents (b, t, c, h, w) of one chunk after the other; plan (b, horizon, a).

    All candidates are given the same noise, so that what differs between them comes from their actions. Chunks are
    whole: the last one holds still beyond the plan's end. num_steps: as for Rollout.sample.
    Each chunk is a copy, and the next one follows from it, so the backend may serve other calls in between.
    """
    generator, previous = np.random.default_rng(seed), None
    rollout.begin(past)
    for actions in _chunks(plan, manifest.chunk_len):
        if previous is not None:
            rollout.append(*previous)
        latents = rollout.sample(_noise(generator, len(plan), manifest), actions, num_steps).copy()
        yield latents
        previous = latents, actions


def _noise(generator: np.random.Generator, batch: int, manifest: Manifest) -> FloatArray:
    shape = manifest.latents
    size = (1, manifest.chunk_len, shape.channels, shape.height, shape.width)
    return np.broadcast_to(generator.standard_normal(size, np.float32), (batch, *size[1:]))


def _chunks(plan: FloatArray, length: int) -> list[FloatArray]:
    """(b, horizon, a) in pieces of `length`; the last one repeats the plan's last row."""
    padding = np.repeat(plan[:, -1:], -plan.shape[1] % length, axis=1)
    padded = np.concatenate([plan, padding], axis=1)
    return np.split(padded, padded.shape[1] // length, axis=1)
