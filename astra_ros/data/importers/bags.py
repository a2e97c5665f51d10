"""rosbag2 recordings of a robot arm: a camera, joint states and, where they were recorded, joint commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from astra_ros.data.bag import BagError
from astra_ros.data.episode import Contents, Episode, EpisodeTopics, read_contents, read_episode
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
                    f"{path}: {topic}: name: expected the same joints in every message, found {one} and {other}; say which:"
                    " --joints NAME ..."
                )
        return self._first.joints[0]

    @property
    def _first(self) -> Contents:
        return next(iter(self.contents.values()))


def open_source(folders: Sequence[Path], config: BagsConfig) -> Source:
    """folders: of recordings, or recordings themselves. The camera's rate is that of the first one that can be read.

    Recordings are cut where their camera dropped pictures or paused: a model's steps are counted in frames.
    """
    bags = [bag for folder in folders for bag in _recordings(folder)]
    if doubles := [bag for bag in bags if sum(bag.name == other.name for other in bags) > 1]:
        raise BagError(f"{doubles[0]}: expected a folder name of its own, found {doubles[-1]}; rename one")
    found = _look_through(bags, config.topics)
    names = config.joints or found.joints(config.topics.joint_states)
    units = config.units * len(names) if len(config.units) == 1 else config.units
    wanted = (config.size, config.size) if isinstance(config.size, int) else config.size
    load = partial(_load, names=names, size=unenlarged(*found.picture_size, *wanted), topics=config.topics)
    return Source(
        schema=ActionSchema(config.space, "arm", "joint_position", names, units),
        fps=found.fps,
        picture_size=found.picture_size,
        episodes={name: one for bag in bags for name, one in _episodes(bag, found, load).items()},
    )


def _recordings(folder: Path) -> list[Path]:
    if (folder / "metadata.yaml").exists():
        return [folder]
    bags = [file.parent for file in sorted(folder.glob("*/metadata.yaml"))]
    if not bags:
        raise BagError(
            f"{folder}: expected rosbag2 folders (with metadata.yaml), found none; `astra record` makes them"
        )
    return bags


def _look_through(bags: Sequence[Path], topics: EpisodeTopics) -> Recordings:
    found = Recordings({}, {})
    for bag in bags:
        try:
            found.contents[bag] = read_contents(bag, topics)
        except BagError as error:
            found.bad[bag] = error
    if not found.contents:
        reason = found.bad[bags[-1]]
        raise BagError(f"expected a readable recording, found none in {len(bags)}; the last one: {reason}")
    return found


def _episodes(bag: Path, found: Recordings, load: Callable[..., Episode]) -> dict[str, Callable[[], Episode]]:
    """A recording under its name, or its segments of a second or more; a bad one says why when it is loaded."""
    if bag in found.bad:
        return {bag.name: partial(_refuse, found.bad[bag])}
    stamps, period_ns = found.contents[bag].stamps_ns, _period_ns(found.contents[bag])
    parts = segments(len(stamps), gaps(stamps, _LONGEST_GAP_PERIODS * period_ns / NANOSECONDS))
    if len(parts) == 1:
        return {bag.name: partial(load, bag, bag.name, range(len(stamps)))}
    fewest = _SHORTEST_SEGMENT_S * NANOSECONDS / period_ns
    whole = {
        name: range(len(stamps))[part] for name, part in parts.items() if part.stop - part.start >= fewest
    }
    if not whole:
        error = BagError(
            f"{bag}: header.stamp: expected {_SHORTEST_SEGMENT_S:g} s of pictures without a gap, found none in"
            f" {len(parts)} pieces; the camera drops pictures, record it again"
        )
        return {bag.name: partial(_refuse, error)}
    return {
        f"{bag.name}_{name}": partial(load, bag, f"{bag.name}_{name}", part) for name, part in whole.items()
    }


def _load(
    bag: Path,
    name: str,
    frames: range,
    *,
    names: tuple[str, ...],
    size: tuple[int, int],
    topics: EpisodeTopics,
) -> Episode:
    return replace(read_episode(bag, names, size, topics, frames), name=name)


def _refuse(error: BagError) -> Episode:
    raise error


def _period_ns(contents: Contents) -> float:
    return float(np.median(np.diff(contents.stamps_ns)))
