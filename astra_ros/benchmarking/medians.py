"""Medians over rounds with 95 % intervals. Rounds are resampled: a disturbance disturbs a whole round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from astra_ros.evaluation.intervals import BOOTSTRAP_RESAMPLES, Interval

_BOUNDS = (2.5, 97.5)
_DIGITS = 4


@dataclass(frozen=True)
class Median:
    """A median and its 95 % interval; no bounds where there was only one round to resample."""

    median: float
    low: float | None
    high: float | None

    def text(self, form: str = ".2f") -> str:
        """For a table: `4.82 (4.54 … 5.06)`."""
        return Interval(self.median, self.low, self.high).text(form)


def median(values: npt.ArrayLike) -> Median:
    """Of one value per round, (n,). The resampling is seeded: the same values give the same interval."""
    rounds = np.asarray(values, np.float64)
    middle = _rounded(np.median(rounds))
    if len(rounds) < 2:
        return Median(middle, None, None)
    chosen = np.random.default_rng(0).integers(len(rounds), size=(BOOTSTRAP_RESAMPLES, len(rounds)))
    low, high = np.percentile(np.median(rounds[chosen], axis=1), _BOUNDS)
    return Median(middle, _rounded(low), _rounded(high))


def ratio(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> Median:
    """Of the ratios in each round, both (n,): of times, how many times as fast the denominator is."""
    return median(np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
