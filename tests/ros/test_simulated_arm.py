"""Which part of a trajectory the simulated arm carries out: what a joint trajectory controller would."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.msg import ModelInfo
from astra_ros.ros.simulated_arm import rows_left
from astra_ros.ros.stamps import to_duration, to_time
from astra_ros.ros.trajectories import TrajectoryError
from tests.ros.rig import trajectory

S = 1_000_000_000
NOW = 1000 * S
INFO = ModelInfo(action_names=["shoulder", "elbow"], step_dt=to_duration(0.2))
POSITIONS = np.array([0.0, 0.5], np.float32)
# Ten times as far as the time, from 0 at its start.
POINTS = [(0.2, [2.0]), (0.4, [4.0]), (0.6, [6.0])]


def shoulder(stamp_ns: int) -> np.ndarray:
    message = trajectory(POINTS, ["shoulder"])
    message.header.stamp = to_time(stamp_ns)
    rows = rows_left(message, INFO, POSITIONS, NOW)
    np.testing.assert_array_equal(rows[:, 1], np.full(len(rows), 0.5))
    return rows[:, 0]


@pytest.mark.parametrize(
    ("stamp_ns", "expected"),
    [
        (0, [2, 4, 6]),
        (NOW, [2, 4, 6]),
        # Wherever the arm is: with a plan that is late it jumps.
        (NOW - S * 2 // 5, [6]),
        (NOW - S * 3 // 10, [5, 6]),
        (NOW + S * 2 // 5, [0, 0, 2, 4, 6]),
    ],
)
def test_what_is_over_is_skipped(stamp_ns: int, expected: list[float]) -> None:
    np.testing.assert_allclose(shoulder(stamp_ns), expected, atol=1e-5)


def test_one_that_comes_late_is_begun_where_the_arm_is() -> None:
    """A controller moves from there to the first point that is not over, in the time that is left."""
    message = trajectory([(1.0, [2.0])], ["shoulder"])
    message.header.stamp = to_time(NOW - S * 6 // 10)
    np.testing.assert_allclose(rows_left(message, INFO, POSITIONS, NOW)[:, 0], [1.0, 2.0], atol=1e-5)


def test_what_is_wholly_over_is_refused() -> None:
    with pytest.raises(TrajectoryError, match=r"header.stamp: .* is not over, found a start 0.600 s ago"):
        shoulder(NOW - S * 3 // 5)


def test_a_stamp_of_another_clock_is_refused() -> None:
    with pytest.raises(
        TrajectoryError, match=r"expected a trajectory that begins within 600 s .*use_sim_time"
    ):
        shoulder(1_700_000_000 * S)
