"""An episode: one recording as arrays in the model's terms. Frames, what the robot did, and what it was told."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.actions.velocities import VELOCITY_MESSAGES, VelocityMessage, mean_velocities
from astra_ros.data.bag import BagError, BagReader
from astra_ros.data.clocks import Stamps, require_one_clock, stamp_of_receipt
from astra_ros.frames.encodings import PictureError, to_rgb
from astra_ros.frames.preprocess import fit, share_of, stacked
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

IntArray = np.ndarray[Any, np.dtype[np.int64]]
# Of a joint or an axis: stamps (m,), sorted, and positions or velocities (m,).
Series = tuple[IntArray, FloatArray]

# Farther from a picture a joint state, or what another camera saw, says nothing of it: an arm moves by centimetres in a tenth of a second.
WITHIN_S = 0.1
# Real cameras are late now and then; what stops for longer than both is cut into two recordings.
PAUSE_S, _PAUSE_PERIODS = 0.5, 1.75
# A recorder's subscriptions do not begin at the same moment.
LATE_START_S = 1.0
# Messages of one stamp are received at most so far apart.
_RECEIVED_WITHIN_NS = 5 * NANOSECONDS
_JOINT_STATE = "sensor_msgs/msg/JointState"
# What a ros2_control arm is told, point by point: its joint_trajectory_controller publishes it.
CONTROLLER_STATE = "control_msgs/msg/JointTrajectoryControllerState"
_PICTURES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")


@dataclass(frozen=True)
class EpisodeTopics:
    """Where a recording keeps what the model needs.

    image: Image or CompressedImage. other_images: those of further cameras, which come below the first in the order given.
    joint_commands: JointState, or the state of a joint_trajectory_controller. It may be absent from the recording: then what
    the joints did next stands for what they were told.
    velocity: of a robot that drives, in place of joint states: Odometry, or the commands where it has none. velocity_commands
    may be absent, as joint_commands.
    """

    image: str = "/camera/image_raw/compressed"
    joint_states: str = "/joint_states"
    joint_commands: str = "/joint_commands"
    other_images: tuple[str, ...] = ()
    velocity: str = ""
    velocity_commands: str = "/cmd_vel"

    def of(self, representation: str) -> EpisodeTopics:
        """For a model of actions of that representation; where none was named, a vehicle's velocity is its odometry."""
        return replace(self, velocity="/odom") if representation == "rate" and not self.velocity else self

    @property
    def measured(self) -> str:
        """What the robot did."""
        return self.velocity or self.joint_states

    @property
    def commanded(self) -> str:
        """What it was told; empty where that is all that is known of what it did."""
        if not self.velocity:
            return self.joint_commands
        return self.velocity_commands if self.velocity_commands != self.velocity else ""

    @property
    def commands_option(self) -> str:
        """Of `astra data import`."""
        return "--velocity-commands" if self.velocity else "--joint-commands"

    @property
    def images(self) -> tuple[str, ...]:
        return self.image, *self.other_images


@dataclass(frozen=True)
class Episode:
    """One recording.

    stamps_ns (t,); pixels (t, h, w, 3) uint8; measured (t, a) joints at the stamps, or mean velocities since the stamp before;
    commanded (t, a): the last command before each stamp, the one that led to the frame, or likewise the mean of commands.
    """

    name: str
    stamps_ns: IntArray
    pixels: ByteArray
    measured: FloatArray
    commanded: FloatArray


@dataclass(frozen=True)
class Contents:
    """What is in a recording.

    stamps_ns, received_ns (t,) of the first camera's pictures; picture_sizes: height and width of each camera's first.
    joints: the names of its JointStates as they first came, one tuple per set of joints. commanded: those of its commands.
    stamps: of every topic's messages.
    """

    stamps_ns: IntArray
    received_ns: IntArray
    picture_sizes: tuple[tuple[int, int], ...]
    joints: tuple[tuple[str, ...], ...]
    commanded: tuple[str, ...]
    stamps: Mapping[str, Stamps]


def read_contents(path: Path, topics: EpisodeTopics | None = None) -> Contents:
    """Look through a rosbag2 recording; of a camera's pictures only the first is decoded.

    Raises BagError when a topic is missing or of another type, or the pictures' stamps do not grow.
    """
    topics = topics or EpisodeTopics()
    joints, commanded = dict[frozenset[str], tuple[str, ...]](), dict[frozenset[str], tuple[str, ...]]()
    sizes = dict[str, tuple[int, int]]()
    with BagReader(path) as bag:
        _require_topics(bag, topics)
        commands = {topics.commanded} & {*bag.topics}  # which may be missing
        stamps = {topic: Stamps() for topic in (*topics.images, topics.measured, *commands)}
        for recorded in bag.messages([*stamps]):
            message = bag.deserialize(recorded)
            if recorded.topic not in topics.images:
                names = tuple(_values_of(message, recorded.type))
                found = joints if recorded.topic == topics.measured else commanded
                found.setdefault(frozenset(names), names)
            elif recorded.topic not in sizes:
                height, width = _rgb(path, message).shape[:2]
                sizes[recorded.topic] = height, width
            if _is_stamped(message, recorded.type):
                stamps[recorded.topic].add(recorded.stamp_ns, _stamp_ns(message))
    if not joints:
        raise BagError(f"{path}: {topics.measured}: expected messages, found none")
    grown = [_growing(path, topic, stamps[topic].stamped) for topic in topics.images]
    return Contents(
        grown[0],
        np.array(stamps[topics.image].received, np.int64),
        tuple(sizes[topic] for topic in topics.images),
        tuple(joints.values()),
        tuple(dict.fromkeys(name for message in commanded.values() for name in message)),
        stamps,
    )


def require_joints(path: Path, topic: str, contents: Contents, names: Sequence[str]) -> None:
    """Raise BagError unless joint states tell of every joint, in one message or in several."""
    recorded = dict.fromkeys(name for message in contents.joints for name in message)
    if missing := [name for name in names if name not in recorded]:
        raise BagError(
            f"{path}: {topic}: name: expected {', '.join(names)}; missing {', '.join(missing)}, found"
            f" {', '.join(recorded) or 'none'}; `ros2 topic echo {topic} --once` tells their spelling and order"
        )


def read_episode(
    path: Path,
    names: Sequence[str],
    size: int | tuple[int, int],
    topics: EpisodeTopics | None = None,
    *,
    units: Sequence[str] = (),
    frames: range | None = None,
    contents: Contents | None = None,
) -> Episode:
    """Read a rosbag2 recording. Every picture of the first camera is a frame.

    names: joints in the model's order. size: of the pictures, a square's side or (height, width). Several cameras share it,
    one below the other; of each further one the picture nearest in time is taken.
    units: of the joints, where they are known; one in "rad" must not wrap. frames: which frames to read; all by default.
    Frames without joint states or another camera's picture near them are left out, up to a second at either end.
    contents: of `read_contents`, if it was called already.
    Raises BagError when a topic or a joint is missing, or stamps do not fit each other.
    """
    topics = topics or EpisodeTopics()
    contents = contents or read_contents(path, topics)
    require_joints(path, topics.measured, contents, names)
    part = slice(frames.start, frames.stop) if frames else slice(None)
    used, received = contents.stamps_ns[part], contents.received_ns[part]
    start_ns, end_ns = int(received[0]) - _RECEIVED_WITHIN_NS, int(received[-1]) + _RECEIVED_WITHIN_NS
    with BagReader(path) as bag:
        kind = VELOCITY_MESSAGES.get(bag.topics[topics.measured].type)
        # Between commands there may be any time.
        is_steady = kind is None or kind.is_measured
        of_receipt = stamp_of_receipt(contents.stamps[topics.image])
        recorded = _series(bag, topics.measured, start_ns if is_steady else None, end_ns, of_receipt)
        commands = _series(bag, topics.commanded, None, end_ns, of_receipt)  # an old one may be in force
        if not (is_steady or recorded):  # it was not told anything yet
            recorded = {name: (used[:1], np.zeros(1, np.float32)) for name in names}
        states = _states(path, topics.measured, recorded, names)
        used = used[_covered(path, used, _beside(topics, contents, states, kind))]
        for topic in (topics.measured, *topics.other_images):
            require_one_clock(path, topic, contents.stamps[topics.image], contents.stamps[topic])
        angles = [name for name, unit in zip(names, units, strict=False) if unit == "rad" and not kind]
        _require_unwrapped(path, topics.measured, used, {name: recorded[name] for name in angles})
        pixels = stacked(
            [
                _pixels(bag, topic, contents.stamps[topic], used, _share(topics, size))
                for topic in topics.images
            ]
        )
    if commands:
        _require_commands(path, topics, contents, commands, names)
    if kind:
        measured, commanded = _driven(used, states, [commands[name] for name in names if commands], kind)
    else:
        measured = np.stack([np.interp(used, *series) for series in states], axis=1).astype(np.float32)
        commanded = _last_before(used, commands, names, measured)
    return Episode(recording_name(path), used, pixels, measured, commanded)


def _beside(
    topics: EpisodeTopics, contents: Contents, states: Sequence[Series], kind: VelocityMessage | None
) -> list[tuple[str, str, IntArray]]:
    """What every picture must have near it, for `_covered`. kind: of a vehicle."""
    what = "velocity" if kind else "joint state"
    cameras = [
        (topic, "picture", np.array(contents.stamps[topic].stamped, np.int64))
        for topic in topics.other_images
    ]
    is_steady = kind is None or kind.is_measured
    return [*((topics.measured, what, stamps) for stamps, _ in states if is_steady), *cameras]


def _driven(
    at: IntArray, states: Sequence[Series], told: Sequence[Series], kind: VelocityMessage
) -> tuple[FloatArray, FloatArray]:
    """(t, a) velocities as measured, and as commanded; the same where nothing was."""
    measured = _mean_velocities(at, states, is_measured=kind.is_measured)
    return measured, _mean_velocities(at, told, is_measured=False) if told else measured


def _mean_velocities(at: IntArray, axes: Sequence[Series], *, is_measured: bool) -> FloatArray:
    """(t, a) since the time before; since one such period before the first."""
    begins = np.append(at[0] - round(float(np.median(np.diff(at)))), at[:-1])
    stamps, velocities = axes[0][0], np.stack([values for _, values in axes], axis=1)
    return mean_velocities(stamps, velocities, begins, at, is_measured=is_measured)


def recording_name(path: Path) -> str:
    """The folder's name, or a lone file's without its suffix."""
    return path.stem if path.is_file() else path.name


def longest_pause(stamps_ns: IntArray) -> tuple[int, float] | None:
    """The frame before the camera's longest pause, and the pause in seconds; None when none is long enough to matter.

    A model's steps are counted in frames: a step across a pause would last longer than the others.
    """
    steps_s = np.diff(stamps_ns) / NANOSECONDS
    if not len(steps_s) or steps_s.max() <= max(PAUSE_S, _PAUSE_PERIODS * float(np.median(steps_s))):
        return None
    return int(steps_s.argmax()), float(steps_s.max())


def frame_stride(episode: Episode, step_dt: float) -> int:
    """Camera frames per model step; raises ValueError when the camera does not fit the step."""
    return stride_of(episode.stamps_ns, step_dt, episode.name)


def stride_of(stamps_ns: IntArray, step_dt: float, name: str) -> int:
    """The same, from the stamps of an episode of that name."""
    if len(stamps_ns) < 2:
        raise ValueError(f"{name}: stamps_ns: expected 2 frames or more, found {len(stamps_ns)}")
    period = float(np.median(np.diff(stamps_ns))) / NANOSECONDS
    stride = round(step_dt / period)
    if stride < 1 or abs(stride * period - step_dt) > 0.1 * step_dt:
        raise ValueError(
            f"{name}: camera period {period:.3f} s does not divide step_dt {step_dt} s; record at a multiple of "
            f"{1 / step_dt:.1f} Hz"
        )
    return stride


def _require_topics(bag: BagReader, topics: EpisodeTopics) -> None:
    """All but the commands are there, and of the types that are read."""
    what = "--velocity" if topics.velocity else "--joint-states"
    options = {**dict.fromkeys(topics.images, "--image"), topics.measured: what}
    for topic, option in options.items():
        if topic not in bag.topics:
            known = ", ".join(sorted(bag.topics))
            raise BagError(
                f"{bag.path}: expected topic {topic}, found {known}; say which it is: {option} TOPIC"
            )
    for topic in topics.images:
        _require_type(bag, topic, *_PICTURES)
    is_velocity = bool(topics.velocity)
    _require_type(bag, topics.measured, *(VELOCITY_MESSAGES if is_velocity else [_JOINT_STATE]))
    if topics.commanded in bag.topics:
        types = VELOCITY_MESSAGES if is_velocity else (_JOINT_STATE, CONTROLLER_STATE)
        hint = f"; import without them: {topics.commands_option} NONE"
        _require_type(bag, topics.commanded, *types, hint=hint)


def _require_type(bag: BagReader, topic: str, *types: str, hint: str = "") -> None:
    if (found := bag.topics[topic].type) not in types:
        raise BagError(f"{bag.path}: {topic}: expected {' or '.join(types)}, found {found}{hint}")


def _stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * NANOSECONDS + int(message.header.stamp.nanosec)


def _is_stamped(message: Any, message_type: str) -> bool:
    """Commands of a velocity may have no stamp, or not set it; all else must."""
    kind = VELOCITY_MESSAGES.get(message_type)
    return kind is None or kind.is_measured or (kind.is_stamped and _stamp_ns(message) != 0)


def _values_of(message: Any, message_type: str) -> dict[str, float]:
    """By joint: of a JointState, or what a joint_trajectory_controller wants (`desired` until Iron); or by axis of a velocity."""
    if kind := VELOCITY_MESSAGES.get(message_type):
        return dict(zip(kind.axes, kind.reader(kind.axes)(message).tolist(), strict=True))
    if not hasattr(message, "joint_names"):
        return dict(zip(message.name, message.position, strict=False))
    wanted = message.reference if hasattr(message, "reference") else message.desired
    return dict(zip(message.joint_names, wanted.positions, strict=False))


def _series(
    bag: BagReader, topic: str, start_ns: int | None, end_ns: int, of_receipt: Callable[[int], int]
) -> dict[str, Series]:
    """What was received on a topic, by joint or axis; several publishers may share it, and it may be absent.

    of_receipt: stamps of messages without. A velocity that is no number is left out, as the node refuses it.
    """
    columns: dict[str, tuple[array[int], array[float]]] = {}
    for recorded in bag.messages((topic,), start_ns, end_ns) if topic in bag.topics else ():
        message = bag.deserialize(recorded)
        found = _values_of(message, recorded.type)
        if recorded.type in VELOCITY_MESSAGES and not np.isfinite([*found.values()]).all():
            continue
        is_stamped = _is_stamped(message, recorded.type)
        stamp_ns = _stamp_ns(message) if is_stamped else of_receipt(recorded.stamp_ns)
        for name, value in found.items():
            stamps, values = columns.setdefault(name, (array("q"), array("f")))
            stamps.append(stamp_ns)
            values.append(value)
    return {name: _sorted(np.array(at), np.array(values)) for name, (at, values) in columns.items()}


def _sorted(stamps: IntArray, positions: FloatArray) -> Series:
    order = np.argsort(stamps, kind="stable")
    return stamps[order], positions[order]


def _share(topics: EpisodeTopics, size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of each camera's part of a picture."""
    height, width = (size, size) if isinstance(size, int) else size
    return share_of(height, len(topics.images)), width


def _pixels(bag: BagReader, topic: str, stamps: Stamps, at: IntArray, size: tuple[int, int]) -> ByteArray:
    """(t, h, w, 3) a camera's pictures that are nearest to those times. stamps: of all its pictures."""
    nearest = _nearest(at, np.array(stamps.stamped, np.int64))
    received, wanted = (np.array(ns, np.int64)[nearest] for ns in (stamps.received, stamps.stamped))
    messages = map(bag.deserialize, bag.messages((topic,), int(received.min()), int(received.max()) + 1))
    used, seen = set(wanted.tolist()), dict[int, ByteArray]()
    for message in messages:
        if (stamp_ns := _stamp_ns(message)) in used:
            seen[stamp_ns] = fit(_rgb(bag.path, message), *size)
    return np.stack([seen[stamp_ns] for stamp_ns in wanted.tolist()])


def _rgb(path: Path, message: Any) -> ByteArray:
    try:
        return to_rgb(message)
    except PictureError as error:
        raise BagError(f"{path}: picture at {_stamp_ns(message)} ns: {error}") from error


def _growing(path: Path, topic: str, stamps: Sequence[int]) -> IntArray:
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


def _states(path: Path, topic: str, recorded: Mapping[str, Series], names: Sequence[str]) -> list[Series]:
    """Of every joint of `names`."""
    if missing := [name for name in names if name not in recorded]:
        raise BagError(
            f"{path}: {topic}: expected messages while the camera ran, found none of {', '.join(missing)}; record both"
            " together"
        )
    return [recorded[name] for name in names]


def _require_unwrapped(path: Path, topic: str, at: IntArray, angles: Mapping[str, Series]) -> None:
    """Halfway between +pi and -pi is 0, on the joint's other side."""
    for name, (stamps, positions) in angles.items():
        first, last = np.searchsorted(stamps, (at[0], at[-1]))
        used = positions[max(first - 1, 0) : last + 1]
        jumps = np.flatnonzero(np.abs(np.diff(used)) > np.pi)
        if jumps.size:
            before, after = used[jumps[0] : jumps[0] + 2]
            raise BagError(
                f"{path}: {topic}: position: expected {name} to turn by less than pi rad from one joint state to the next,"
                f" found {before:.2f} and then {after:.2f}; it wraps: publish it unwrapped, or leave it out with"
                " --joints; if it is no angle in rad, say so with --units"
            )


def _covered(path: Path, at: IntArray, beside: Sequence[tuple[str, str, IntArray]]) -> slice:
    """The frames that are not before the first or after the last of what came beside them; of the others none may lack any nearby.

    beside: topic, what came on it, and stamps, of every joint and every other camera.
    """
    distances = [np.abs(at - stamps[_nearest(at, stamps)]) for _, _, stamps in beside] or [np.zeros(len(at))]
    away = np.max(distances, axis=0)
    near = np.flatnonzero(away <= WITHIN_S * NANOSECONDS)
    kept = slice(near[0], near[-1] + 1) if near.size else slice(0, len(at))
    left_out = max(at[kept][0] - at[0], at[-1] - at[kept][-1])
    if left_out > LATE_START_S * NANOSECONDS or len(near) < len(at[kept]):
        topic, what, _ = beside[int(np.argmax([distance.max() for distance in distances]))]
        raise BagError(
            f"{path}: {topic}: header.stamp: expected a {what} within {WITHIN_S} s of every picture, found the"
            f" nearest {away.max() / NANOSECONDS:.3f} s from that at {at[away.argmax()]} ns; the clocks differ or the publisher"
            " paused: record with header stamps of one clock"
        )
    if kept.stop - kept.start < 2:
        raise BagError(
            f"{path}: expected 2 pictures or more with all that belongs beside them, found one; record it again"
        )
    return kept


def _nearest(at: IntArray, stamps: IntArray) -> IntArray:
    """(t,) index of the nearest of the sorted stamps to each time; of two the earlier."""
    after = np.searchsorted(stamps, at)
    before, after = np.maximum(after - 1, 0), np.minimum(after, len(stamps) - 1)
    return np.where(np.abs(at - stamps[before]) <= np.abs(stamps[after] - at), before, after)


def _require_commands(
    path: Path,
    topics: EpisodeTopics,
    contents: Contents,
    commands: Mapping[str, Series],
    names: Sequence[str],
) -> None:
    """Commands are of the model's joints; those that were recorded while the camera ran have stamps of that time."""
    topic = topics.commanded
    if not set(names) & set(contents.commanded):
        raise BagError(
            f"{path}: {topic}: name: expected some of {', '.join(names)}, found {', '.join(contents.commanded)}; give the"
            f" topic of their commands, or import without them ({topics.commands_option} NONE)"
        )
    at = contents.stamps_ns
    margin = LATE_START_S * NANOSECONDS
    for stamps, _ in (commands[name] for name in names if name in commands):
        first, last = stamps[0], stamps[-1]
        if (len(stamps) > 1 and first == last) or last < at[0] - margin or first > at[-1] + margin:
            raise BagError(
                f"{path}: {topic}: header.stamp: expected growing stamps between those of the pictures, {at[0]} to {at[-1]}"
                f" ns, found {first} to {last} ns; stamp commands with the camera's clock, or import without them"
                f" ({topics.commands_option} NONE)"
            )
    require_one_clock(path, topic, contents.stamps[topics.image], contents.stamps[topic])


def _last_before(
    at: IntArray, commands: Mapping[str, Series], names: Sequence[str], measured: FloatArray
) -> FloatArray:
    """(t, a) what was in force at each time; where a joint was until its first command, which may never come."""
    commanded = measured.copy()
    for column, name in enumerate(names):
        if name in commands:
            stamps, positions = commands[name]
            last = np.searchsorted(stamps, at) - 1
            commanded[last >= 0, column] = positions[last[last >= 0]]
    return commanded
