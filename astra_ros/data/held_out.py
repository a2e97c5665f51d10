"""Which episodes no model is trained on: a YAML file of names by dataset (config/held_out.yaml)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

_WILD = frozenset("*?[")


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
        train on what was meant to be held out.
        """
        if dataset not in self.patterns:
            raise ValueError(
                f"{self.path}: {dataset}: expected the names of its held-out episodes, found no entry; "
                f"add `{dataset}: [NAME, ...]`, or `{dataset}: []` to hold out none"
            )
        patterns = self.patterns[dataset]
        for name in patterns:
            if name not in episodes and not _WILD & set(name):
                raise ValueError(f"{self.path}: {dataset}: expected names of its episodes, found {name}")
        held_out = tuple(n for n in episodes if any(fnmatchcase(n, pattern) for pattern in patterns))
        return Split(tuple(n for n in episodes if n not in set(held_out)), held_out)


def held_out(path: Path) -> HeldOut:
    """Read the file. Raises ValueError, one line, when it is not a list of names per dataset."""
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
            raise ValueError(f"{path}: {dataset}: expected a list of episode names, found {names!r}")
    return HeldOut(path, {dataset: tuple(names) for dataset, names in content.items()})
