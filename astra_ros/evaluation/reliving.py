"""A recording lived through again by a world model, which is asked at some of its moments what will come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from astra_ros.backends.manifest import Manifest
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.evaluation.intervals import by_episode
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


def long_enough(
    episodes: Iterable[Episode], manifest: Manifest, horizon: int, on_skip: Callable[[str], None]
) -> Iterator[Episode]:
    """Episodes that can be relived; `on_skip` is told of each other one, in one line. Raises ValueError when none can."""
    num_used = 0
    for episode in episodes:
        try:
            bounds(manifest, episode, horizon)
        except ValueError as error:
            on_skip(str(error))
        else:
            num_used += 1
            yield episode
    if not num_used:
        raise ValueError(
            f"episodes: expected one or more that can be read and are longer than {_seconds(manifest, horizon):.1f} s without a gap,"
            f" a history and {horizon} frames, found none; record longer ones"
        )


def reach(manifest: Manifest, num_frames: int, stride: int) -> int:
    """Longest horizon that an episode holds behind a history, 0 or less: none. stride: camera frames per step."""
    return (num_frames - 1) // stride - (manifest.history.num_slots - 1)


def common_horizon(reaches: Mapping[str, int], most: int) -> int:
    """As many frames as half of the recordings hold that can be relived at all, at most `most`.

    reaches: `reach` by episode's name. Views and pieces of one recording count once, as the longest of them.
    """
    of_episodes = list(reaches.values())
    longest = [max(of_episodes[row] for row in rows) for rows in by_episode(list(reaches))]
    usable = sorted((frames for frames in longest if frames > 0), reverse=True)
    return min(most, usable[(len(usable) - 1) // 2]) if usable else most


def _seconds(manifest: Manifest, horizon: int) -> float:
    """That a history and a horizon last."""
    return (manifest.history.num_slots - 1 + horizon) * manifest.action.step_dt


def relived(world_model: WorldModel, episode: Episode, horizon: int, every: int) -> Iterator[Moment]:
    """Moments with a whole history behind and the horizon before them, `every` so many camera frames.

    Raises ValueError for an episode without one, or of a camera whose frames do not fit the model's step.
    """
    manifest = world_model.manifest
    first, end, stride = bounds(manifest, episode, horizon)
    ahead = stride * np.arange(1, horizon + 1)
    plans = iter(plans_of(manifest, episode, horizon, every))
    did = manifest.action.steps(episode.measured, np.arange(len(episode.measured)), stride)
    world_model.reset()
    for now, (stamp, pixels, measured) in enumerate(
        zip(episode.stamps_ns.tolist(), episode.pixels, did, strict=True)
    ):
        world_model.observe(Observation(stamp, pixels, measured))
        if first <= now < end and (now - first) % every == 0:
            yield Moment(stamp, next(plans), pixels, episode.pixels[now + ahead])


def plans_of(manifest: Manifest, episode: Episode, horizon: int, every: int) -> FloatArray:
    """(moments, horizon, a): what was commanded from each moment of `relived`, without living through them."""
    first, end, stride = bounds(manifest, episode, horizon)
    ahead = stride * np.arange(1, horizon + 1)
    moments = range(first, end, every)
    return np.stack([manifest.action.steps(episode.commanded, now + ahead, stride) for now in moments])


def bounds(manifest: Manifest, episode: Episode, horizon: int) -> tuple[int, int, int]:
    """First frame that can be a moment, the frame after the last one, and frames per step."""
    stride = frame_stride(episode, manifest.action.step_dt)
    first, end = (manifest.history.num_slots - 1) * stride, len(episode.pixels) - horizon * stride
    if first >= end:
        raise ValueError(
            f"{episode.name}: expected more than {first + horizon * stride} frames, a history and a horizon of"
            f" {horizon}, found {len(episode.pixels)}"
        )
    return first, end, stride
