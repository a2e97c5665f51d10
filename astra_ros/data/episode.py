"""An episode: one recording as arrays in the model's terms. Frames, what the joints did, and what they were told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.bag import BagError, BagReader
from astra_ros.frames.encodings import PictureError, to_rgb
from astra_ros.frames.preprocess import fit
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

IntArray = np.ndarray[Any, np.dtype[np.int64]]

# Farther from a picture a joint state says nothing of it: an arm moves by centimetres in a tenth of a second.
JOINTS_WITHIN_S = 0.1
# A recorder's subscriptions do not begin at the same moment.
LATE_START_S = 1.0


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


@dataclass(frozen=True)
class Contents:
    """What is in a recording. stamps_ns (t,) of its pictures; picture_size: height and width of the first.

    joints: the names of its JointStates as they first came, one tuple per set of joints.
    """

    stamps_ns: IntArray
    picture_size: tuple[int, int]
    joints: tuple[tuple[str, ...], ...]


def read_contents(path: Path, topics: EpisodeTopics | None = None) -> Contents:
    """Look through a rosbag2 recording; of its pictures only the first is decoded.

    Raises BagError when a topic is missing, or the pictures' stamps do not grow.
    """
    topics = topics or EpisodeTopics()
    stamps: list[int] = []
    joints: dict[frozenset[str], tuple[str, ...]] = {}
    with BagReader(path) as bag:
        for topic, message in _needed(bag, (topics.image, topics.joint_states)):
            if topic == topics.joint_states:
                names = tuple(message.name[: len(message.position)])
                joints.setdefault(frozenset(names), names)
                continue
            if not stamps:
                height, width = _rgb(path, message).shape[:2]
            stamps.append(_stamp_ns(message))
    if not joints:
        raise BagError(f"{path}: {topics.joint_states}: expected messages, found none")
    at = _growing(path, topics.image, stamps)
    return Contents(at, (height, width), tuple(joints.values()))


def read_episode(
    path: Path,
    names: Sequence[str],
    size: int | tuple[int, int],
    topics: EpisodeTopics | None = None,
    frames: range | None = None,
) -> Episode:
    """Read a rosbag2 recording. names: joints in the model's order; size: of the pictures, a square's side or (height, width).

    frames: which of its pictures; all by default. Those without joint states near them, up to a second at either end, are
    left out. Raises BagError when a topic or a joint is missing, or stamps do not fit each other.
    """
    topics = topics or EpisodeTopics()
    height, width = (size, size) if isinstance(size, int) else size
    stamps, pixels = list[int](), list[ByteArray]()
    joints: dict[str, list[Any]] = {topics.joint_states: [], topics.joint_commands: []}
    with BagReader(path) as bag:
        for topic, message in _needed(bag, (topics.image, topics.joint_states), topics.joint_commands):
            if topic != topics.image:
                joints[topic].append(message)
                continue
            if frames is None or len(stamps) in frames:
                pixels.append(fit(_rgb(path, message), height, width))
            stamps.append(_stamp_ns(message))
    at = _growing(path, topics.image, stamps)
    used = at if frames is None else at[frames.start : frames.stop]
    states = _joints(path, topics.joint_states, joints[topics.joint_states], names)
    kept = _covered(path, topics.joint_states, used, states)
    used = used[kept]
    measured = np.stack([np.interp(used, *series) for series in states], axis=1).astype(np.float32)
    commanded = measured
    if sent := joints[topics.joint_commands]:
        commands = _joints(path, topics.joint_commands, sent, names)
        _require_same_clock(path, topics.joint_commands, at, commands)
        commanded = _last_before(used, commands, measured)
    return Episode(path.name, used, np.stack(pixels[kept]), measured, commanded)


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


def _needed(bag: BagReader, topics: Sequence[str], *optional: str) -> Iterator[tuple[str, Any]]:
    """Topic and content of every message, in the order of reception."""
    for topic in topics:
        if topic not in bag.topics:
            raise BagError(f"{bag.path}: expected topic {topic}, found {', '.join(sorted(bag.topics))}")
    for message in bag.messages([*topics, *(topic for topic in optional if topic in bag.topics)]):
        yield message.topic, bag.deserialize(message)


def _rgb(path: Path, message: Any) -> ByteArray:
    try:
        return to_rgb(message)
    except PictureError as error:
        raise BagError(f"{path}: picture at {_stamp_ns(message)} ns: {error}") from error


def _growing(path: Path, topic: str, stamps: list[int]) -> IntArray:
    """(t,) stamps of pictures."""
    if not stamps:
        raise BagError(f"{path}: {topic}: expected messages, found none")
    at = np.array(stamps, np.int64)
    late = np.flatnonzero(np.diff(at) <= 0)
    if len(at) < 2 or late.size:
        found = f"{at[late[0] + 1]} ns after {at[late[0]]} ns" if late.size else "one picture"
        raise BagError(
            f"{path}: {topic}: header.stamp: expected 2 pictures or more with growing stamps, found {found}; the camera's"
            " driver must stamp them, record it again"
        )
    return at


def _joints(
    path: Path, topic: str, messages: list[Any], names: Sequence[str]
) -> list[tuple[IntArray, FloatArray]]:
    """Per joint of `names` its stamps (m,), sorted, and positions (m,); several publishers may share a topic."""
    if not messages:
        raise BagError(f"{path}: {topic}: expected messages, found none")
    series: dict[str, list[tuple[int, float]]] = {}
    for message in messages:
        for name, position in zip(message.name, message.position, strict=False):
            series.setdefault(name, []).append((_stamp_ns(message), position))
    if missing := set(names) - set(series):
        raise BagError(f"{path}: joints {sorted(missing)} not recorded; it holds {list(series)}")
    return [_sorted(series[name]) for name in names]


def _sorted(rows: list[tuple[int, float]]) -> tuple[IntArray, FloatArray]:
    stamps, positions = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
    return np.array(stamps, np.int64), np.array(positions, np.float32)


def _covered(path: Path, topic: str, at: IntArray, states: list[tuple[IntArray, FloatArray]]) -> slice:
    """The frames that are not before the first or after the last joint state; of the others none may lack one nearby."""
    away = np.max([_distance(at, stamps) for stamps, _ in states], axis=0)
    near = np.flatnonzero(away <= JOINTS_WITHIN_S * NANOSECONDS)
    kept = slice(near[0], near[-1] + 1) if near.size else slice(0, len(at))
    left_out = max(at[kept][0] - at[0], at[-1] - at[kept][-1])
    if left_out > LATE_START_S * NANOSECONDS or len(near) < len(at[kept]):
        raise BagError(
            f"{path}: {topic}: header.stamp: expected a joint state within {JOINTS_WITHIN_S} s of every picture, found the"
            f" nearest {away.max() / NANOSECONDS:.3f} s from that at {at[away.argmax()]} ns; the clocks differ or the publisher"
            " paused: record with header stamps of one clock"
        )
    return kept


def _distance(at: IntArray, stamps: IntArray) -> IntArray:
    """(t,) from each time to the nearest of the sorted stamps, nanoseconds."""
    after = np.searchsorted(stamps, at)
    before, after = np.maximum(after - 1, 0), np.minimum(after, len(stamps) - 1)
    return np.minimum(np.abs(at - stamps[before]), np.abs(stamps[after] - at))


def _require_same_clock(
    path: Path, topic: str, at: IntArray, commands: list[tuple[IntArray, FloatArray]]
) -> None:
    """Commands that were recorded while the camera ran have stamps of that time."""
    margin = LATE_START_S * NANOSECONDS
    for stamps, _ in commands:
        first, last = stamps[0], stamps[-1]
        if (len(stamps) > 1 and first == last) or last < at[0] - margin or first > at[-1] + margin:
            raise BagError(
                f"{path}: {topic}: header.stamp: expected growing stamps between those of the pictures, {at[0]} to {at[-1]}"
                f" ns, found {first} to {last} ns; stamp commands with the camera's clock, or import without them"
                " (--joint-commands NONE)"
            )


def _last_before(
    at: IntArray, commands: list[tuple[IntArray, FloatArray]], measured: FloatArray
) -> FloatArray:
    """(t, a) what was in force at each time; before the first command of a joint, where it was."""
    columns = []
    for (stamps, positions), held in zip(commands, measured.T, strict=True):
        index = np.searchsorted(stamps, at) - 1
        columns.append(np.where(index < 0, held, positions[index]))
    return np.stack(columns, axis=1)
