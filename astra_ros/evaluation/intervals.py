"""Means with 95 % intervals. What varies independently is the episode, so episodes are resampled, not frames.

What several cameras saw of one trajectory, and the pieces that it was cut into, vary together and are one episode here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

BOOTSTRAP_RESAMPLES = 2000
_BOUNDS = (2.5, 97.5)
_PART = re.compile(r"(_cam\d+|_segment_\d+)+$")  # as importers name the views and the pieces of a trajectory
_Z = 1.959964  # standard normal quantile of 97.5 %

Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval; no bounds where there was only one episode to resample."""

    mean: float
    low: float | None
    high: float | None

    def text(self, form: str = ".2f") -> str:
        """For a table: `4.82 (4.54 … 5.06)`."""
        if self.low is None or self.high is None:
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} ({self.low:{form}} … {self.high:{form}})"


def by_episode(episodes: Sequence[str]) -> list[np.ndarray]:
    """Rows of each independent episode: its name less the number of camera and piece, in order of first appearance."""
    names = np.array([_PART.sub("", episode) for episode in episodes])
    return [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]


def per_episode(values: Values, episodes: Sequence[str]) -> Values:
    """(n, ...) values and the episode of each → (number of independent episodes, ...) means."""
    return np.stack([values[rows].mean(axis=0) for rows in by_episode(episodes)])


def bootstrap(values: Values, rng: np.random.Generator) -> Interval:
    """Mean of one value per episode, (n,)."""
    return bootstrap_statistic(values[:, None], lambda means: means[..., 0], rng)


def bootstrap_columns(values: Values, rng: np.random.Generator) -> tuple[Interval, ...]:
    """Mean of every column of (n, columns), one row per episode."""
    return tuple(bootstrap(column, rng) for column in values.T)


def bootstrap_ratio(parts: Values, wholes: Values, rng: np.random.Generator) -> Interval:
    """Ratio of the means of two values per episode, (n,) each."""
    rows = np.stack([parts, wholes], axis=1)
    return bootstrap_statistic(rows, lambda means: means[..., 0] / means[..., 1], rng)


def bootstrap_statistic(
    rows: Values, statistic: Callable[[Values], Values], rng: np.random.Generator
) -> Interval:
    """What follows from means over episodes.

    rows: (n, s), one per episode. statistic: means (..., s) → (...), for any leading axes.
    """
    value = statistic(rows.mean(axis=0))
    if len(rows) < 2:
        return Interval(_rounded(value), None, None)
    chosen = rng.integers(len(rows), size=(BOOTSTRAP_RESAMPLES, len(rows)))
    low, high = np.percentile(statistic(rows[chosen].mean(axis=1)), _BOUNDS)
    return Interval(_rounded(value), _rounded(low), _rounded(high))


def wilson(successes: float, trials: int) -> Interval:
    """Share of successes, which may be parts of one each, with Wilson's score interval. Raises ValueError for no trials."""
    if trials < 1:
        raise ValueError(f"trials: expected at least 1, found {trials}")
    share, spread = successes / trials, _Z**2 / trials
    centre = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return Interval(_rounded(share), _rounded(centre - half), _rounded(centre + half))


def _rounded(value: Any) -> float:
    return round(float(value), 4)
