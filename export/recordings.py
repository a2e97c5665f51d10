"""The recordings of a model's own dataset: what it learned from, and what was held out."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.manifest import Manifest
from astra_ros.cli.options import add_held_out
from astra_ros.cli.progress import ProgressLine
from astra_ros.data.episode import Episode
from astra_ros.data.held_out import Split, held_out
from astra_ros.data.lerobot import Dataset
from astra_ros.data.suitability import require_same, require_unseen


@dataclass(frozen=True)
class Recordings:
    """training, held_out: names of episodes, two or more of each."""

    dataset: Dataset
    training: tuple[str, ...]
    held_out: tuple[str, ...]

    def __post_init__(self) -> None:
        if min(len(self.training), len(self.held_out)) < 2:
            raise ValueError(
                f"{self.dataset.path}: expected two training and two held-out episodes, or more, found"
                f" {len(self.training)} and {len(self.held_out)}; record more, or hold more out and train again"
            )

    @classmethod
    def open(cls, options: argparse.Namespace) -> Self:
        """What `add_arguments` asked for.

        Raises OSError, or ValueError, also for other actions than the bundle's or held-out episodes that it was trained on.
        """
        dataset, split = _open(options.data, options)
        return cls(dataset, split.training, split.held_out)

    def read(self, manifest: Manifest, names: Sequence[str], done: str) -> Iterator[Episode]:
        """As `read_episodes`."""
        return read_episodes(self.dataset, names, manifest, done)


@dataclass(frozen=True)
class _Part:
    """names: of the episodes, one or more."""

    dataset: Dataset
    names: tuple[str, ...]


class Later(_Part):
    """Recordings that were made after the training, or left out of it whole: those that are held out."""

    @classmethod
    def open(cls, path: Path, options: argparse.Namespace) -> Self:
        """Raises as Recordings.open, and ValueError where nothing is held out."""
        dataset, split = _open(path, options)
        if not split.held_out:
            raise ValueError(
                f"{path}: expected held-out episodes, found none; give {dataset.name} a line in {options.held_out}"
            )
        return cls(dataset, split.held_out)


class Further(_Part):
    """Recordings to learn more from: those that are not held out."""

    @classmethod
    def open(cls, path: Path, options: argparse.Namespace) -> Self:
        """Raises as Recordings.open, and ValueError where all is held out."""
        dataset, split = _open(path, options)
        if not split.training:
            raise ValueError(
                f"{path}: expected episodes that {options.held_out} does not hold out, found none"
            )
        return cls(dataset, split.training)


def read_episodes(dataset: Dataset, names: Sequence[str], manifest: Manifest, done: str) -> Iterator[Episode]:
    """In the model's picture size; a bad one is named and passed over. done: what progress calls it."""
    progress = ProgressLine()
    episodes = dataset.stream(names, manifest.camera.size, name_skipped)
    for number, episode in enumerate(episodes, 1):
        yield episode
        progress.update(f"{done} {number}/{len(names)}: {episode.name}")


def _open(path: Path, options: argparse.Namespace) -> tuple[Dataset, Split]:
    manifest = load_bundle(options.bundle).manifest
    dataset = Dataset.open(path, manifest.camera.names)
    require_same(path, dataset.schema, manifest.action)
    split = held_out(options.held_out).split(dataset.name, dataset.episode_names)
    require_unseen(dataset.name, split.held_out, manifest.provenance.get("training", {}))
    return dataset, split


def name_skipped(why: object) -> None:
    """Say which episode is passed over, in a line of its own."""
    ProgressLine().done(f"skipped: {why}")


def add_arguments(parser: argparse.ArgumentParser, *, needs_data: bool = True) -> None:
    """The bundle, its dataset and what of it is held out."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--data", type=Path, required=needs_data, metavar="DIR", help="the dataset it was trained on"
    )
    add_held_out(parser)
