"""rosbag2 recordings of a robot: a camera, what its joints or wheels did and, where that was recorded, what they were told."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from astra_ros.actions.velocities import UNITS, VELOCITY_MESSAGES
from astra_ros.data.bag import STORAGE_SUFFIXES, BagError, is_recording
from astra_ros.data.episode import (
    Contents,
    Episode,
    EpisodeTopics,
    read_contents,
    read_episode,
    recording_name,
    require_joints,
)
from astra_ros.data.importers.source import Source, gaps, segments, stored_size
from astra_ros.data.schema import ActionSchema
from astra_ros.types import NANOSECONDS

# A picture that was dropped leaves two periods between its neighbours; what is less is a late one.
_LONGEST_GAP_PERIODS = 1.75
# Nor does one matter by which a model's step, which is counted in pictures, is hardly longer: of a fast camera.
_LONGER_BY_S = 0.05
_SHORTEST_SEGMENT_S = 1.0
# What drivers and image_transport put into the name of any camera's topic.
_NO_CAMERA_NAMES = {"", "image", "image_raw", "image_rect", "image_color", "color", "rgb", "compressed"}
# An episode is read into memory as a whole.
_LONGEST_SEGMENT_S = 120.0


@dataclass(frozen=True)
class BagsConfig:
    """How recordings are read.

    space: name of the action space. joints: which, or axes of a vehicle's velocity, in this order; empty takes those of
    the first JointState, or the usual axes. units: one for all joints, or one per joint; those of axes are given. size: of the pictures, a square's side or (height, width), pixels.
    """

    space: str
    joints: tuple[str, ...] = ()
    units: tuple[str, ...] = ("rad",)
    size: int | tuple[int, int] = 128
    topics: EpisodeTopics = field(default_factory=EpisodeTopics)


@dataclass(frozen=True)
class Recordings:
    """Of a folder, by path: what is in those that can be read, and why the others cannot."""

    contents: dict[Path, Contents]
    bad: dict[Path, BagError]

    @property
    def fps(self) -> float:
        """Of the first one's camera, to a whole number."""
        return float(round(NANOSECONDS / _period_ns(self._first)))

    @property
    def picture_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the first one's pictures, by camera."""
        return self._first.picture_sizes

    def joints(self, topic: str) -> tuple[str, ...]:
        """Of the first one. Raises BagError where it is not told which ones to take."""
        for path, found in self.contents.items():
            if len(found.joints) > 1:
                one, other = (", ".join(names) for names in found.joints[:2])
                raise BagError(
                    f"{path}: {topic}: name: expected the same joints in every message, found {one} and {other}; say which:"
                    " --joints NAME ..."
                )
        return self._first.joints[0]

    @property
    def usual_axes(self) -> tuple[str, ...]:
        """Of recordings of a velocity."""
        kinds = VELOCITY_MESSAGES.values()
        return next(kind.usual for kind in kinds if kind.axes == self._first.joints[0])

    @property
    def _first(self) -> Contents:
        return next(iter(self.contents.values()))


def open_source(folders: Sequence[Path], config: BagsConfig) -> Source:
    """folders: of recordings, or recordings themselves. The camera's rate is that of the first one that can be used.

    Recordings are cut where their camera dropped pictures or paused: a model's steps are counted in frames. What a folder has
    in files that are no recording, or further down, counts as bad. Raises BagError when none can be used.
    """
    bags = [bag for folder in folders for bag in _recordings(folder)]
    called = [recording_name(bag) for bag in bags]
    if doubles := [bag for bag, name in zip(bags, called, strict=True) if called.count(name) > 1]:
        raise BagError(f"{doubles[0]}: expected a name of its own, found {doubles[-1]}; rename one")
    found = _look_through(bags, config)
    schema = _schema(found, config)
    images = config.topics.images
    cameras = (
        found.picture_sizes[0]
        if len(images) == 1
        else dict(zip(camera_names(images), found.picture_sizes, strict=True))
    )
    wanted = (config.size, config.size) if isinstance(config.size, int) else config.size
    height, width = stored_size(cameras, wanted)
    size = (height * len(images), width)
    load = partial(read_episode, names=schema.names, size=size, topics=config.topics, units=schema.units)
    notes = [_note(bag, contents) for bag, contents in found.contents.items()]
    return Source(
        schema=schema,
        fps=found.fps,
        picture_size=cameras,
        episodes={name: one for bag in bags for name, one in _episodes(bag, found, load).items()},
        notes=[note for note in notes if note],
    )


def _schema(found: Recordings, config: BagsConfig) -> ActionSchema:
    if config.topics.velocity:
        axes = config.joints or found.usual_axes
        return ActionSchema(config.space, "drive", "rate", axes, tuple(UNITS[axis] for axis in axes))
    names = config.joints or found.joints(config.topics.joint_states)
    units = config.units * len(names) if len(config.units) == 1 else config.units
    return ActionSchema(config.space, "arm", "joint_position", names, units)


def camera_names(topics: Sequence[str]) -> tuple[str, ...]:
    """What the cameras of several topics are called: "front" for /front/image_raw/compressed; numbers where that is not one each."""
    found = ["_".join(part for part in topic.split("/") if part not in _NO_CAMERA_NAMES) for topic in topics]
    is_told = all(found) and len({*found}) == len(found)
    return tuple(found) if is_told else tuple(f"camera_{number}" for number in range(1, len(topics) + 1))


def _recordings(path: Path) -> list[Path]:
    """The path, or what is in it. A recorder that never finished left a file that is named after its folder."""
    if is_recording(path) and (path.is_file() or (path / "metadata.yaml").is_file()):
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    below = [one for one in inside if is_recording(one)]
    if len(below) == 1 and below[0].is_file() and below[0].stem.startswith(path.name):
        return [path]
    if not path.exists():
        raise BagError(f"{path}: expected recordings, found no such folder")
    if not below:
        raise BagError(
            f"{path}: expected rosbag2 folders, .mcap or .db3 files in it, found none; recordings are looked for one level"
            " down, `astra record` makes them"
        )
    return [one for one in inside if one in below or _holds_storage(one)]


def _holds_storage(folder: Path) -> bool:
    """In itself, or one level down."""
    return folder.is_dir() and any(
        file.suffix in STORAGE_SUFFIXES for pattern in ("*", "*/*") for file in folder.glob(pattern)
    )


def _look_through(bags: Sequence[Path], config: BagsConfig) -> Recordings:
    found = Recordings({}, {})
    for bag in bags:
        try:
            contents = read_contents(bag, config.topics)
            require_joints(bag, config.topics.measured, contents, config.joints)
            found.contents[bag] = contents
        except BagError as error:
            found.bad[bag] = error
    if not found.contents:
        reason = found.bad[bags[-1]]
        raise BagError(f"expected a usable recording, found none in {len(bags)}; the last one: {reason}")
    return found


def _episodes(bag: Path, found: Recordings, load: Callable[..., Episode]) -> dict[str, Callable[[], Episode]]:
    """A recording under its name, or its segments of a second or more; a bad one says why when it is loaded."""
    recording = recording_name(bag)
    if bag in found.bad:
        return {recording: partial(_refuse, found.bad[bag])}
    contents = found.contents[bag]
    load = partial(load, bag, contents=contents)
    parts = _parts(contents)
    if [*parts.values()] == [range(len(contents.stamps_ns))]:
        return {recording: load}
    if not parts:
        error = BagError(
            f"{bag}: header.stamp: expected {_SHORTEST_SEGMENT_S:g} s of pictures without a gap, found none in"
            f" {len(_gaps(contents)) + 1} pieces; the camera drops pictures, record it again"
        )
        return {recording: partial(_refuse, error)}
    return {
        f"{recording}_{name}": partial(_renamed, f"{recording}_{name}", partial(load, frames=frames))
        for name, frames in parts.items()
    }


def _gaps(contents: Contents) -> list[int]:
    """Frames before which pictures are missing."""
    period_s = _period_ns(contents) / NANOSECONDS
    return gaps(contents.stamps_ns, max(_LONGEST_GAP_PERIODS * period_s, period_s + _LONGER_BY_S))


def _parts(contents: Contents) -> dict[str, range]:
    """Frames of a recording's segments: without a gap, of a second or more, and of two minutes at most, all about as long."""
    count, cuts = len(contents.stamps_ns), _gaps(contents)
    frames_per_s = NANOSECONDS / _period_ns(contents)
    for first, end in pairwise([0, *cuts, count]):
        pieces = math.ceil((end - first) / (_LONGEST_SEGMENT_S * frames_per_s))
        cuts = sorted({*cuts, *(first + (end - first) * piece // pieces for piece in range(1, pieces))})
    fewest = _SHORTEST_SEGMENT_S * frames_per_s
    parts = segments(count, cuts)
    return {
        name: range(count)[part]
        for name, part in parts.items()
        if len(parts) == 1 or part.stop - part.start >= fewest
    }


def _note(bag: Path, contents: Contents) -> str:
    """What a recording lost; empty: nothing."""
    lost = _gaps(contents)
    if not lost:
        return ""
    stamps = contents.stamps_ns
    kept_s = [float(stamps[part[-1]] - stamps[part[0]]) / NANOSECONDS for part in _parts(contents).values()]
    return (
        f"{bag}: pictures are missing at {len(lost)} places: kept {sum(kept_s):.1f} of"
        f" {(stamps[-1] - stamps[0]) / NANOSECONDS:.1f} s, the longest piece is {max(kept_s, default=0):.1f} s"
    )


def _renamed(name: str, load: Callable[[], Episode]) -> Episode:
    return replace(load(), name=name)


def _refuse(error: BagError) -> Episode:
    raise error


def _period_ns(contents: Contents) -> float:
    return float(np.median(np.diff(contents.stamps_ns)))
