"""Medians and their intervals against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.benchmarking.medians import Median, median, ratio


def test_a_ratio_is_taken_in_each_round_so_that_disturbed_rounds_cancel() -> None:
    disturbance = np.array([1.0, 10.0, 2.0, 5.0, 1.5])
    found = ratio(6.0 * disturbance, 2.0 * disturbance)
    assert found == Median(3.0, 3.0, 3.0)


def test_one_wild_round_does_not_move_the_median() -> None:
    assert median([1.0, 1.0, 1.0, 1.0, 900.0]).median == 1.0


def test_the_interval_narrows_with_the_number_of_rounds() -> None:
    rng = np.random.default_rng(0)
    few, many = (median(rng.normal(10.0, 1.0, rounds)) for rounds in (10, 1000))
    for found in (few, many):
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.median < found.high
    # The standard error of a median is 1.2533 * sigma / sqrt(n).
    assert many.high - many.low == pytest.approx(2 * 1.96 * 1.2533 / np.sqrt(1000), rel=0.25)  # type: ignore[operator]
    assert few.high - few.low > 3 * (many.high - many.low)  # type: ignore[operator]


def test_the_same_rounds_give_the_same_interval() -> None:
    rounds = np.random.default_rng(1).random(12)
    assert median(rounds) == median(rounds)


def test_one_round_has_no_interval() -> None:
    assert median([2.0]) == Median(2.0, None, None)
    assert median([2.0]).text(".4g") == "2"
    assert Median(4.824, 4.5, 5.06).text() == "4.82 (4.50 … 5.06)"


def test_four_digits_are_kept() -> None:
    assert median([123456.0]).median == 123500.0
    assert median([0.000123456]).median == 0.0001235
