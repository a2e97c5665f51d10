"""An episode: one recording as arrays in the model's terms. Frames, what the joints did, and what they were told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.actions.spec import ActionSpec
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
    stamps = np.array([_stamp_ns(m) for m in messages[topics.image]], np.int64)
    pixels = np.stack([_picture(path, m, size) for m in messages[topics.image]])
    state_stamps, states = _joints(path, messages[topics.joint_states], names)
    measured = np.stack([np.interp(stamps, state_stamps, column) for column in states.T], axis=1).astype(
        np.float32
    )
    commanded = measured
    if messages[topics.joint_commands]:
        command_stamps, commands = _joints(path, messages[topics.joint_commands], names)
        commanded = commands[np.maximum(np.searchsorted(command_stamps, stamps) - 1, 0)]
    return Episode(path.name, stamps, pixels, measured, commanded)


def joint_names(path: Path, topic: str = EpisodeTopics.joint_states) -> tuple[str, ...]:
    """The joints of a recording, in the order of its first JointState."""
    with BagReader(path) as bag:
        return tuple(bag.deserialize(next(iter(bag.messages([topic])))).name)


def fit_action_spec(
    episodes: Sequence[Episode], names: Sequence[str], units: Sequence[str], step_dt: float
) -> ActionSpec:
    """Normalisation and range from recorded episodes; a margin of 2 % of the range is allowed beyond it."""
    positions = np.concatenate([np.concatenate([e.measured, e.commanded]) for e in episodes])
    changes = np.concatenate(
        [
            e.commanded[stride:] - e.measured[:-stride]
            for e in episodes
            for stride in [frame_stride(e, step_dt)]
        ]
    )
    margin = 0.02 * (positions.max(0) - positions.min(0))

    def listed(values: np.ndarray) -> tuple[float, ...]:
        return tuple(float(f"{value:.6g}") for value in values)

    return ActionSpec(
        modality="arm",
        representation="joint_position",
        names=tuple(names),
        units=tuple(units),
        step_dt=step_dt,
        mean=listed(positions.mean(0)),
        std=listed(positions.std(0) + 1e-6),
        delta_std=listed(changes.std(0) + 1e-6),
        lower=listed(positions.min(0) - margin),
        upper=listed(positions.max(0) + margin),
    )


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


def _joints(path: Path, messages: list[Any], names: Sequence[str]) -> tuple[IntArray, FloatArray]:
    """Stamps (m,) and positions (m, a) in the order of `names`."""
    missing = set(names) - set(messages[0].name)
    if missing:
        raise BagError(f"{path}: joints {sorted(missing)} not recorded; it holds {list(messages[0].name)}")
    order = [list(messages[0].name).index(name) for name in names]
    positions = np.array([np.asarray(m.position)[order] for m in messages], np.float32)
    return np.array([_stamp_ns(m) for m in messages], np.int64), positions
