"""What recordings of attempts hold beside each picture; the attempts themselves are in tests/simulator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from astra_ros.training.attempts import AttemptsConfig, at_pictures

TICKS = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [10.0], [10.0], [10.0], [14.0]])


def test_positions_are_those_at_the_picture() -> None:
    np.testing.assert_array_equal(at_pictures(TICKS, 4, "joint_position"), [[0.0], [4.0], [14.0]])


def test_velocities_are_the_mean_since_the_picture_before() -> None:
    np.testing.assert_array_equal(at_pictures(TICKS, 4, "rate"), [[0.0], [2.5], [11.0]])


@pytest.mark.parametrize("name", ["attempts", "considered"])
def test_none_of_something_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected 1 or more, found 0"):
        replace(AttemptsConfig(), **{name: 0})  # type: ignore[arg-type]
