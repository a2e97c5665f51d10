"""rosbag2 recordings of a robot arm: a camera, joint states and, where they were recorded, joint commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from astra_ros.data.bag import BagError, is_recording
from astra_ros.data.episode import (
    Contents,
    Episode,
    EpisodeTopics,
    read_contents,
    read_episode,
    recording_name,
    require_joints,
)
from astra_ros.data.importers.source import Source, gaps, segments
from astra_ros.data.schema import ActionSchema
from astra_ros.frames.preprocess import unenlarged
from astra_ros.types import NANOSECONDS

# A picture that was dropped leaves two periods between its neighbours; what is less is a late one.
_LONGEST_GAP_PERIODS = 1.75
_SHORTEST_SEGMENT_S = 1.0


@dataclass(frozen=True)
class BagsConfig:
    """How recordings are read.

    space: name of the action space. joints: which, in this order; empty takes those of the first JointState.
    units: one for all joints, or one per joint. size: of the pictures, a square's side or (height, width), pixels.
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
    def picture_size(self) -> tuple[int, int]:
        """Height and width of the first one's pictures."""
        return self._first.picture_size

    def joints(self, topic: str) -> tuple[str, ...]:
        """Of the first one. Raises BagError where it is not told which ones to take."""
        for path, found in self.contents.items():
            if len(found.joints) > 1:
                one, other = (", ".join(names) for names in found.joints[:2])
                raise BagError(
                    f"{path}: {topic}: name: expected the same joints in every message, found {one} and {other}; say which,"
                    " all of one message: --joints NAME ..."
                )
        return self._first.joints[0]

    @property
    def _first(self) -> Contents:
        return next(iter(self.contents.values()))


def open_source(folders: Sequence[Path], config: BagsConfig) -> Source:
    """folders: of recordings, or recordings themselves. The camera's rate is that of the first one that can be used.

    Recordings are cut where their camera dropped pictures or paused: a model's steps are counted in frames.
    Raises BagError when none can be used.
    """
    bags = [bag for folder in folders for bag in _recordings(folder)]
    called = [recording_name(bag) for bag in bags]
    if doubles := [bag for bag, name in zip(bags, called, strict=True) if called.count(name) > 1]:
        raise BagError(f"{doubles[0]}: expected a name of its own, found {doubles[-1]}; rename one")
    found = _look_through(bags, config)
    names = config.joints or found.joints(config.topics.joint_states)
    units = config.units * len(names) if len(config.units) == 1 else config.units
    wanted = (config.size, config.size) if isinstance(config.size, int) else config.size
    size = unenlarged(*found.picture_size, *wanted)
    load = partial(read_episode, names=names, size=size, topics=config.topics, units=units)
    return Source(
        schema=ActionSchema(config.space, "arm", "joint_position", names, units),
        fps=found.fps,
        picture_size=found.picture_size,
        episodes={name: one for bag in bags for name, one in _episodes(bag, found, load).items()},
    )


def _recordings(path: Path) -> list[Path]:
    """The path, or what is in it. A recorder that never finished left a file that is named after its folder."""
    if is_recording(path) and (path.is_file() or (path / "metadata.yaml").is_file()):
        return [path]
    below = [one for one in sorted(path.iterdir()) if is_recording(one)] if path.is_dir() else []
    if len(below) == 1 and below[0].is_file() and below[0].stem.startswith(path.name):
        return [path]
    if not path.exists():
        raise BagError(f"{path}: expected recordings, found no such folder")
    if not below:
        raise BagError(
            f"{path}: expected rosbag2 folders, .mcap or .db3 files in it, found none; recordings are looked for one level"
            " down, `astra record` makes them"
        )
    return below


def _look_through(bags: Sequence[Path], config: BagsConfig) -> Recordings:
    found = Recordings({}, {})
    for bag in bags:
        try:
            contents = read_contents(bag, config.topics)
            require_joints(bag, config.topics.joint_states, contents, config.joints)
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
    stamps, period_ns = contents.stamps_ns, _period_ns(contents)
    parts = segments(len(stamps), gaps(stamps, _LONGEST_GAP_PERIODS * period_ns / NANOSECONDS))
    load = partial(load, bag, contents=contents)
    if len(parts) == 1:
        return {recording: load}
    fewest = _SHORTEST_SEGMENT_S * NANOSECONDS / period_ns
    whole = {
        name: range(len(stamps))[part] for name, part in parts.items() if part.stop - part.start >= fewest
    }
    if not whole:
        error = BagError(
            f"{bag}: header.stamp: expected {_SHORTEST_SEGMENT_S:g} s of pictures without a gap, found none in"
            f" {len(parts)} pieces; the camera drops pictures, record it again"
        )
        return {recording: partial(_refuse, error)}
    return {
        f"{recording}_{name}": partial(_renamed, f"{recording}_{name}", partial(load, frames=frames))
        for name, frames in whole.items()
    }


def _renamed(name: str, load: Callable[[], Episode]) -> Episode:
    return replace(load(), name=name)


def _refuse(error: BagError) -> Episode:
    raise error


def _period_ns(contents: Contents) -> float:
    return float(np.median(np.diff(contents.stamps_ns)))
