"""rosbag2 recordings of a robot arm: a camera, joint states and, where they were recorded, joint commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from astra_ros.data.bag import BagError
from astra_ros.data.episode import EpisodeTopics, joint_names, read_episode
from astra_ros.data.importers.source import Source
from astra_ros.data.schema import ActionSchema
from astra_ros.types import NANOSECONDS

_PROBE_SIZE = 16


@dataclass(frozen=True)
class BagsConfig:
    """How recordings are read.

    space: name of the action space. joints: which, in this order; empty takes those of the first JointState.
    units: one for all joints, or one per joint. size: of the pictures, pixels.
    """

    space: str
    joints: tuple[str, ...] = ()
    units: tuple[str, ...] = ("rad",)
    size: int = 128
    topics: EpisodeTopics = field(default_factory=EpisodeTopics)


def open_source(folders: Sequence[Path], config: BagsConfig) -> Source:
    """folders: of recordings, or recordings themselves. The camera's rate is that of the first one that can be read."""
    bags = [bag for folder in folders for bag in _recordings(folder)]
    if doubles := [bag for bag in bags if sum(bag.name == other.name for other in bags) > 1]:
        raise BagError(f"{doubles[0]}: expected a folder name of its own, found {doubles[-1]}; rename one")
    names, fps = _first_readable(bags, config)
    units = config.units * len(names) if len(config.units) == 1 else config.units
    return Source(
        schema=ActionSchema(config.space, "arm", "joint_position", names, units),
        fps=fps,
        picture_size=config.size,
        episodes={bag.name: partial(read_episode, bag, names, config.size, config.topics) for bag in bags},
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


def _first_readable(bags: Sequence[Path], config: BagsConfig) -> tuple[tuple[str, ...], float]:
    """Joint names, and frames per second to a whole number."""
    for bag in bags:
        try:
            names = config.joints or joint_names(bag, config.topics.joint_states)
            stamps = read_episode(bag, names, _PROBE_SIZE, config.topics).stamps_ns
        except BagError as error:
            reason = str(error)
        else:
            return names, float(round(NANOSECONDS / float(np.median(np.diff(stamps)))))
    raise BagError(f"expected a readable recording, found none in {len(bags)}; the last one: {reason}")
