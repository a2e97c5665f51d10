"""Intervals against known answers."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.evaluation.intervals import (
    Interval,
    bootstrap,
    bootstrap_columns,
    bootstrap_ratio,
    per_episode,
    wilson,
)


def test_moments_of_one_episode_count_as_one() -> None:
    values = np.array([[1.0], [3.0], [10.0]])
    np.testing.assert_allclose(per_episode(values, ("b", "b", "a")), [[2.0], [10.0]])


def test_the_cameras_of_a_trajectory_are_one_episode() -> None:
    values = np.array([1.0, 3.0, 10.0, 20.0])
    names = ("val_7_cam0", "val_7_cam1", "val_8_cam0", "camera")
    np.testing.assert_allclose(per_episode(values, names), [2.0, 10.0, 20.0])
    views = per_episode(values, ("val_7_cam0", "val_7_cam1", "val_7_cam2", "val_7_cam10"))
    assert bootstrap(views, np.random.default_rng(0)) == Interval(8.5, None, None)


def test_the_pieces_of_a_recording_are_one_episode() -> None:
    names = ("monday_segment_00", "monday_segment_01", "tuesday_segment_00_cam0", "tuesday_cam1_segment_10")
    np.testing.assert_allclose(per_episode(np.array([1.0, 3.0, 10.0, 20.0]), names), [2.0, 15.0])
    values = np.array([1.0, 3.0])  # a name alone says nothing of a common recording
    np.testing.assert_allclose(per_episode(values, ("segment_00", "segment_01")), values)


def test_the_bootstrap_has_the_standard_error_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    interval = bootstrap(rng.normal(5.0, 2.0, 400), rng)
    assert interval.low is not None
    assert interval.high is not None
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)
    assert interval.low < interval.mean < interval.high


def test_columns_are_summarised_one_by_one() -> None:
    columns = bootstrap_columns(np.array([[1.0, 7.0], [3.0, 7.0]]), np.random.default_rng(0))
    assert columns[0] == Interval(2.0, 1.0, 3.0)
    assert columns[1] == Interval(7.0, 7.0, 7.0)


def test_a_ratio_is_of_means_and_not_a_mean_of_ratios() -> None:
    ratio = bootstrap_ratio(np.array([1.0, 3.0]), np.array([1.0, 7.0]), np.random.default_rng(0))
    assert ratio.mean == 0.5


def test_a_single_episode_has_no_interval() -> None:
    assert bootstrap(np.array([4.0]), np.random.default_rng(0)) == Interval(4.0, None, None)
    assert Interval(4.0, None, None).text() == "4.00"


def test_wilson_interval_of_a_textbook_case() -> None:
    """Newcombe 1998, 81 of 263: 0.2553 to 0.3662."""
    interval = wilson(81, 263)
    assert (interval.low, interval.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert wilson(20, 20).high == 1.0
    with pytest.raises(ValueError, match="expected at least 1, found 0"):
        wilson(0, 0)
