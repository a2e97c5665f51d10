"""The node `simulated_arm`: a Panda in MuJoCo, or PushT's disc: camera, joint states, /clock, joint trajectories.

ros2 run astra_ros simulated_arm --ros-args -p python:=.venv-sim/bin/python
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory

from astra_ros.data.sim_client import SimClient
from astra_ros.msg import ModelInfo
from astra_ros.ros import qos
from astra_ros.ros.client import action_spec
from astra_ros.ros.declaration import Limits, parameter, require_choices
from astra_ros.ros.planner import to_trajectory
from astra_ros.ros.simulated_robot import OnDone, SimulatedRobot, nobody_asks, run
from astra_ros.ros.trajectories import MAX_DURATION_S, TrajectoryError, read_trajectory
from astra_ros.types import NANOSECONDS, FloatArray

ROBOT_OF = {"reach": "panda", "lift": "panda", "push": "pusht"}


class SimulatedArm(SimulatedRobot):
    """Between two trajectories it stays at the end of the last, as under a joint trajectory controller, else where it is."""

    node_name, plan_topic, plan_type = "simulated_arm", "joint_trajectory", JointTrajectory

    def __init__(self, sim: SimClient, on_done: OnDone = nobody_asks, **options: Any) -> None:
        super().__init__(sim, on_done, **options)
        self._joints = self.create_publisher(JointState, "joint_states", qos.newest())

    @staticmethod
    def plan(rows: FloatArray, info: ModelInfo) -> JointTrajectory:
        return to_trajectory(rows, action_spec(info))

    @property
    def rest(self) -> FloatArray:
        return self.measured

    def tell(self, stamp: Time, measured: FloatArray) -> None:
        header, positions = Header(stamp=stamp), array("d", measured.astype(float))
        self._joints.publish(JointState(header=header, name=self.names, position=positions))

    def rows_left(self, message: JointTrajectory) -> FloatArray | None:
        if not message.points:
            return None  # to end what is carried out, which is over by now
        step_ns = round(self.step_s * NANOSECONDS)
        return rows_left(message, self.names, step_ns, self.measured, self.now_ns)

    def next_row(self) -> FloatArray:
        return self.measured if self._last_row is None else self._last_row


def rows_left(
    trajectory: JointTrajectory, names: Sequence[str], step_ns: int, positions: FloatArray, now_ns: int
) -> FloatArray:
    """(n, a) what a joint trajectory controller carries out from now on, one row per step.

    What is over is skipped, wherever the arm is; until a later start it stays at positions (a,). Raises TrajectoryError.
    """
    plan = read_trajectory(trajectory, names, step_ns, positions, now_ns)
    elapsed, horizon = (now_ns - plan.stamp_ns) / plan.step_ns, len(plan.rows)
    if not -MAX_DURATION_S * NANOSECONDS / plan.step_ns < elapsed < horizon:
        raise TrajectoryError(
            f"header.stamp: expected a trajectory that begins within {MAX_DURATION_S:g} s and is not over, found a start"
            f" {elapsed * plan.step_ns / NANOSECONDS:.3f} s ago; stamp it on the arm's /clock (use_sim_time:=true), or with 0"
        )
    points = np.concatenate([[positions], np.where(np.isnan(plan.rows), positions, plan.rows)])
    wanted = elapsed + np.arange(1, 1 + np.ceil(horizon - elapsed))
    columns = [np.interp(wanted, np.arange(len(points)), joint) for joint in points.T]
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class ArmConfig:
    """One field per parameter, same name."""

    python: str = parameter("", "Python of the simulator's environment (make sim).", is_live=False)
    task: str = parameter(
        "reach",
        "What the episode starts with; push is of a disc and a T, the others of a Panda.",
        Limits(choices=tuple(ROBOT_OF)),
        is_live=False,
    )
    seed: int = parameter(0, "Of the episode.", Limits(0, 2**31 - 1), is_live=False)

    def __post_init__(self) -> None:
        require_choices(self)


def main() -> None:
    """`ros2 run astra_ros simulated_arm`. Between trajectories time passes as it does. Exit code 0 on SIGINT and SIGTERM."""
    run(SimulatedArm, ArmConfig, lambda config: ROBOT_OF[config.task])
