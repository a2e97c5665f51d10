"""One chunk of a rollout, in three ways of keeping the history."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

from astra_ros.backends.base import Backend
from astra_ros.backends.manifest import FlopsSpec
from astra_ros.benchmarking.interleaving import Subject
from astra_ros.benchmarking.scene import Scene
from astra_ros.types import FloatArray

# recompute: the whole history at every denoising step, as the released Astra does.
# remember: the whole history once per chunk; the steps share its keys and values.
# append: the newest frames only.
Scheme = Literal["recompute", "remember", "append"]
SCHEMES: tuple[Scheme, ...] = get_args(Scheme)
UNITS = 4  # chunks in a row, as in a rollout


def chunk_flops(scheme: Scheme, flops: FlopsSpec, num_steps: int) -> int:
    """Of a chunk, codec excluded."""
    if scheme == "append":
        return flops.chunk(num_steps)
    histories = num_steps if scheme == "recompute" else 1
    return histories * flops.remember + num_steps * flops.step


def repeated_flops(flops: FlopsSpec, num_steps: int) -> int:
    """Of `chunk_flops`, what a runtime that computes the actions' part once per chunk does not do."""
    return (num_steps - 1) * flops.plan


def chunk_subject(name: str, backend: Backend, scheme: Scheme, scene: Scene, *, with_codec: bool) -> Subject:
    """with_codec: from a new picture to the predicted pictures, else latents only.

    No chunk has the actions of the one before, as on a robot: a runtime may keep what it made of those.
    Every chunk ends with latents on the host, so a device has finished when the clock is read.
    """
    slots, rollout, noise = scene.slots(backend), backend.rollout(), scene.noise
    plans = scene.plans(UNITS + 1)[:, None]  # of the chunk before, and of each that is timed
    past = backend.remember(slots)
    rollout.begin(past)
    first = rollout.sample(noise, plans[0]).copy()

    def recompute(latents: FloatArray, done: FloatArray, plan: FloatArray) -> FloatArray:
        del done
        latents = noise
        for k in range(rollout.num_steps):
            rollout.begin(backend.remember(slots))
            latents = rollout.denoise(k, latents, plan)
        return latents

    def remember(latents: FloatArray, done: FloatArray, plan: FloatArray) -> FloatArray:
        del latents, done
        rollout.begin(backend.remember(slots))
        return rollout.sample(noise, plan)

    def append(latents: FloatArray, done: FloatArray, plan: FloatArray) -> FloatArray:
        rollout.append(latents, done)
        return rollout.sample(noise, plan)

    chunk_after = {"recompute": recompute, "remember": remember, "append": append}[scheme]

    def run() -> None:
        rollout.begin(past)
        latents = first
        for done, plan in pairwise(plans):
            if with_codec:
                backend.encode(scene.picture)
            latents = chunk_after(latents, done, plan)
            if with_codec:
                backend.decode(latents[0])

    return Subject(name, run, UNITS)
