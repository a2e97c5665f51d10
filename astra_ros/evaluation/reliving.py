"""A recording lived through again by a world model, which is asked at some of its moments what will come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from astra_ros.data.episode import Episode, frame_stride
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import ByteArray, FloatArray, Observation


@dataclass(frozen=True)
class Moment:
    """The world model remembers everything up to t0. plan: (horizon, a), what was commanded from there.

    pixels: (h, w, 3), seen at t0. happened: (horizon, h, w, 3), seen at the end of every step.
    """

    t0_ns: int
    plan: FloatArray
    pixels: ByteArray
    happened: ByteArray


def relived(world_model: WorldModel, episode: Episode, horizon: int, every: int) -> Iterator[Moment]:
    """Moments with a whole history behind and the horizon before them, `every` so many camera frames.

    Raises ValueError for an episode that is too short for one.
    """
    manifest = world_model.manifest
    stride = frame_stride(episode, manifest.action.step_dt)
    first, end = (manifest.history.num_slots - 1) * stride, len(episode.pixels) - horizon * stride
    if first >= end:
        raise ValueError(
            f"{episode.name}: expected more than {first + horizon * stride} frames, a history and a horizon of"
            f" {horizon}, found {len(episode.pixels)}"
        )
    ahead = stride * np.arange(1, horizon + 1)
    world_model.reset()
    for now, (stamp, pixels, positions) in enumerate(
        zip(episode.stamps_ns.tolist(), episode.pixels, episode.measured, strict=True)
    ):
        world_model.observe(Observation(stamp, pixels, positions))
        if first <= now < end and (now - first) % every == 0:
            plan = manifest.action.steps(episode.commanded, now + ahead, stride)
            yield Moment(stamp, plan, pixels, episode.pixels[now + ahead])
