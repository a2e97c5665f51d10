"""An episode: one recording as arrays in the model's terms. Frames, what the joints did, and what they were told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.bag import BagError, BagReader
from astra_ros.frames.encodings import PictureError, to_rgb
from astra_ros.frames.preprocess import fit
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class EpisodeTopics:
    """Where a recording keeps what the model needs.

    image may be Image or CompressedImage. joint_commands may be absent from it: then what the joints did next stands for what they were told.
    """

    image: str = "/camera/image_raw/compressed"
    joint_states: str = "/joint_states"
    joint_commands: str = "/joint_commands"


@dataclass(frozen=True)
class Episode:
    """One recording.

    stamps_ns (t,); pixels (t, h, w, 3) uint8; measured (t, a) joints at the stamps;
    commanded (t, a): the last command before each stamp, the one that led to the frame.
    """

    name: str
    stamps_ns: IntArray
    pixels: ByteArray
    measured: FloatArray
    commanded: FloatArray


def read_episode(path: Path, names: Sequence[str], size: int, topics: EpisodeTopics | None = None) -> Episode:
    """Read a rosbag2 recording. names: joints in the model's order; size: pixels, square.

    Raises BagError when a topic or a joint is missing.
    """
    topics = topics or EpisodeTopics()
    with BagReader(path) as bag:
        found = [
            topic
            for topic in (topics.image, topics.joint_states, topics.joint_commands)
            if topic in bag.topics
        ]
        for topic in (topics.image, topics.joint_states):
            if topic not in found:
                raise BagError(f"{path}: expected topic {topic}, found {', '.join(sorted(bag.topics))}")
        messages: dict[str, list[Any]] = {
            topic: [] for topic in (topics.image, topics.joint_states, topics.joint_commands)
        }
        for message in bag.messages(found):
            messages[message.topic].append(bag.deserialize(message))
    for topic in (topics.image, topics.joint_states):
        if not messages[topic]:
            raise BagError(f"{path}: {topic}: expected messages, found none")
    stamps = np.array([_stamp_ns(m) for m in messages[topics.image]], np.int64)
    pixels = np.stack([_picture(path, m, size) for m in messages[topics.image]])
    states = _joints(path, messages[topics.joint_states], names)
    measured = np.stack([np.interp(stamps, *series) for series in states], axis=1).astype(np.float32)
    commanded = measured
    if messages[topics.joint_commands]:
        commands = _joints(path, messages[topics.joint_commands], names)
        commanded = np.stack([_last_before(stamps, *series) for series in commands], axis=1)
    return Episode(path.name, stamps, pixels, measured, commanded)


def joint_names(path: Path, topic: str = EpisodeTopics.joint_states) -> tuple[str, ...]:
    """The joints of a recording, in the order of its first JointState."""
    with BagReader(path) as bag:
        first = next(bag.messages([topic]), None)
        if first is None:
            raise BagError(f"{path}: {topic}: expected messages, found none")
        return tuple(bag.deserialize(first).name)


def frame_stride(episode: Episode, step_dt: float) -> int:
    """Camera frames per model step; raises ValueError when the camera does not fit the step."""
    period = float(np.median(np.diff(episode.stamps_ns))) / NANOSECONDS
    stride = round(step_dt / period)
    if stride < 1 or abs(stride * period - step_dt) > 0.1 * step_dt:
        raise ValueError(
            f"{episode.name}: camera period {period:.3f} s does not divide step_dt {step_dt} s; record at a multiple of "
            f"{1 / step_dt:.1f} Hz"
        )
    return stride


def _stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * NANOSECONDS + int(message.header.stamp.nanosec)


def _picture(path: Path, message: Any, size: int) -> ByteArray:
    try:
        return fit(to_rgb(message), size, size)
    except PictureError as error:
        raise BagError(f"{path}: picture at {_stamp_ns(message)} ns: {error}") from error


def _joints(path: Path, messages: list[Any], names: Sequence[str]) -> list[tuple[IntArray, FloatArray]]:
    """Per joint of `names` its stamps (m,) and positions (m,); several publishers may share a topic."""
    series: dict[str, tuple[list[int], list[float]]] = {}
    for message in messages:
        for name, position in zip(message.name, message.position, strict=False):
            stamps, positions = series.setdefault(name, ([], []))
            stamps.append(_stamp_ns(message))
            positions.append(position)
    if missing := set(names) - set(series):
        raise BagError(f"{path}: joints {sorted(missing)} not recorded; it holds {list(series)}")
    return [(np.array(series[n][0], np.int64), np.array(series[n][1], np.float32)) for n in names]


def _last_before(at: IntArray, stamps: IntArray, positions: FloatArray) -> FloatArray:
    return positions[np.maximum(np.searchsorted(stamps, at) - 1, 0)]
