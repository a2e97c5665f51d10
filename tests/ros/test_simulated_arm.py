"""What the simulated arm carries out of a trajectory: what a joint trajectory controller would, on a slow machine too."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from astra_ros.ros import simulated_robot
from astra_ros.ros.simulated_arm import ArmConfig, SimulatedArm, rows_left
from astra_ros.ros.stamps import to_time
from astra_ros.ros.trajectories import TrajectoryError
from tests.ros.rig import trajectory

S = 1_000_000_000
NOW = 1000 * S
NAMES, STEP_NS = ("shoulder", "elbow"), S // 5
POSITIONS = np.array([0.0, 0.5], np.float32)
# Ten times as far as the time, from 0 at its start.
POINTS = [(0.2, [2.0]), (0.4, [4.0]), (0.6, [6.0])]


def shoulder(stamp_ns: int) -> np.ndarray:
    message = trajectory(POINTS, ["shoulder"])
    message.header.stamp = to_time(stamp_ns)
    rows = rows_left(message, NAMES, STEP_NS, POSITIONS, NOW)
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
    np.testing.assert_allclose(
        rows_left(message, NAMES, STEP_NS, POSITIONS, NOW)[:, 0], [1.0, 2.0], atol=1e-5
    )


def test_what_is_wholly_over_is_refused() -> None:
    with pytest.raises(TrajectoryError, match=r"header.stamp: .* is not over, found a start 0.600 s ago"):
        shoulder(NOW - S * 3 // 5)


def test_a_stamp_of_another_clock_is_refused() -> None:
    with pytest.raises(
        TrajectoryError, match=r"expected a trajectory that begins within 600 s .*use_sim_time"
    ):
        shoulder(1_700_000_000 * S)


class _CarriedOutError(Exception):
    pass


class SlowSimulator:
    """Takes longer for a step than the step lasts, and sees to it that a trajectory is waiting."""

    def __init__(self, *_: object) -> None:
        self._node = Node("teacher")
        self._trajectory = self._node.create_publisher(JointTrajectory, "joint_trajectory", 1)
        self._gives_up_s = time.monotonic() + 20.0

    def __enter__(self) -> SlowSimulator:
        return self

    def __exit__(self, *_: object) -> None:
        self._node.destroy_node()

    def describe(self) -> dict[str, Any]:
        names = ["shoulder", "elbow"]
        return {
            "names": names,
            "camera_frame": "camera",
            "control_hz": 20,
            "camera_hz": 20,
            "step_s": 0.05,
        }

    def reset(self, **_: object) -> dict[str, Any]:
        picture = np.zeros((4, 4, 3), np.uint8)
        positions = np.zeros((1, 2), np.float32)
        return {"measured": positions, "pictures": [picture], "last": positions[0], "now": picture}

    def execute(self, rows: np.ndarray) -> dict[str, Any]:
        if len(rows) > 1:
            raise _CarriedOutError
        assert time.monotonic() < self._gives_up_s, "no trajectory is carried out"
        self._trajectory.publish(trajectory(POINTS, ["shoulder"]))
        time.sleep(0.1)
        return self.reset()


def test_a_machine_too_slow_for_real_time_hears_trajectories_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated_robot, "SimClient", SlowSimulator)
    with pytest.raises(_CarriedOutError):
        simulated_robot.live(SimulatedArm, ArmConfig(python="python"), "panda", tmp_path / "log")
