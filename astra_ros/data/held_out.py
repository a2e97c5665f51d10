"""Which episodes no model is trained on: a YAML file of names by dataset (config/held_out.yaml)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

# Recordings that a bundle's uncertainty is fitted to (export/calibrate.py), of which every second one is left to test on.
LEAST_HELD_OUT = 3
_WILD = frozenset("*?[")
_SHOWN = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Split:
    """Episode names of one dataset, each in one of the two."""

    training: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class HeldOut:
    """patterns: by dataset name; a pattern is an episode's name or a shell pattern of names."""

    path: Path
    patterns: Mapping[str, tuple[str, ...]]

    def split(self, dataset: str, episodes: Sequence[str]) -> Split:
        """Divide a dataset's episodes.

        Raises ValueError when the file does not name the dataset, or names an episode that it does not have: both would
        train on what was meant to be held out. A pattern is a rule for what may come (the seeds of a world from 100000 on),
        so that one without an episode is only warned of.
        """
        if dataset not in self.patterns:
            raise ValueError(
                f"{self.path}: {dataset}: expected the names of its held-out episodes, found no entry; "
                f"add `{dataset}: [NAME, ...]`, or `{dataset}: []` to hold out none"
            )
        aside: set[str] = set()
        for pattern in self.patterns[dataset]:
            found = {name for name in episodes if name == pattern or fnmatchcase(name, pattern)}
            if not found:
                self._tell_useless(dataset, pattern, episodes)
            aside |= found
        return Split(
            tuple(name for name in episodes if name not in aside),
            tuple(name for name in episodes if name in aside),
        )

    def _tell_useless(self, dataset: str, pattern: str, episodes: Sequence[str]) -> None:
        if not _WILD & set(pattern):
            parts = [name for name in episodes if name.startswith(pattern)]
            hint = (
                f'"{pattern}*" holds out the {len(parts)} that begin like it'
                if parts
                else f"it has {_some(episodes)}"
            )
            raise ValueError(
                f"{self.path}: {dataset}: expected names of its episodes, found {pattern}; {hint}"
            )
        logger.warning(
            "%s: %s: expected patterns of its episodes' names, found %s, which holds none out",
            self.path,
            dataset,
            pattern,
        )


def held_out(path: Path) -> HeldOut:
    """Read the file. Raises ValueError, one line, when there is none, or it is not a list of names per dataset."""
    if not path.exists():
        raise ValueError(
            f"held_out: expected a file of held-out episodes, found none at {path}; run in the clone, or give yours "
            "(data.held_out=FILE to train, else --held-out FILE)"
        )
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: expected YAML, found {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected `data set: [episode, ...]` entries, found {type(content).__name__}"
        )
    for dataset, names in content.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            quoted = '; quote names that are numbers ["003"]' if isinstance(names, list) else ""
            raise ValueError(f"{path}: {dataset}: expected a list of episode names, found {names!r}{quoted}")
    return HeldOut(path, {dataset: tuple(names) for dataset, names in content.items()})


def _some(names: Sequence[str]) -> str:
    """The first few."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
