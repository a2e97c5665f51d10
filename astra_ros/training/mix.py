"""The datasets of a run, and which of their episodes are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from astra_ros.data.held_out import held_out
from astra_ros.data.lerobot import Dataset
from astra_ros.training.config import DataConfig


@dataclass(frozen=True)
class TrainingSet:
    """A dataset of the mix. names: its episodes to train on; held_out: the others. weight: its share of the mix."""

    dataset: Dataset
    names: tuple[str, ...]
    held_out: tuple[str, ...]
    weight: float


def open_sets(config: DataConfig) -> list[TrainingSet]:
    """Open every dataset and set its held-out episodes aside.

    Raises ValueError, one line, when a dataset cannot be read or nothing is left to train on.
    """
    aside = held_out(Path(config.held_out))
    sets = []
    for source in config.sets:
        dataset = Dataset.open(Path(source.path))
        split = aside.split(dataset.name, dataset.episode_names)
        if not split.training:
            raise ValueError(
                f"{source.path}: expected episodes to train on, found {len(split.held_out)}, "
                f"all of them held out by {config.held_out}"
            )
        sets.append(TrainingSet(dataset, split.training, split.held_out, source.weight))
    return sets
