"""The node `simulated_rover`: a robot on two wheels in a furnished home: camera, odometry, /clock, velocity commands.

ros2 run astra_ros simulated_rover --ros-args -p python:=.venv-sim/bin/python
ros2 run teleop_twist_keyboard teleop_twist_keyboard --ros-args -p stamped:=true
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry
from std_msgs.msg import Header

from astra_ros.actions.spec import ActionSpec
from astra_ros.actions.velocities import COMMAND_TIMEOUT_S, UNITS, VELOCITY_MESSAGES
from astra_ros.data.bag_messages import BASE_FRAME, ODOM_FRAME
from astra_ros.data.sim_client import SimClient
from astra_ros.msg import ActionSequence, ModelInfo
from astra_ros.ros import qos
from astra_ros.ros.client import to_plan
from astra_ros.ros.declaration import Limits, parameter
from astra_ros.ros.plans import commands_for, read_plan
from astra_ros.ros.simulated_robot import OnDone, SimulatedRobot, nobody_asks, run
from astra_ros.types import NANOSECONDS, FloatArray

_LATEST_START_S = 10.0


class SimulatedRover(SimulatedRobot):
    """Between two plans it follows the commands on cmd_vel, and stands half a second after the last, as drives do."""

    node_name, plan_topic, plan_type = "simulated_rover", "action_sequence", ActionSequence

    def __init__(self, sim: SimClient, on_done: OnDone = nobody_asks, **options: Any) -> None:
        super().__init__(sim, on_done, **options)
        axes, unlimited = tuple(self.names), (np.inf,) * len(self.names)
        self._spec = ActionSpec(
            *("rover", "drive", "rate", axes, tuple(UNITS[axis] for axis in axes), self.step_s),
            *((0.0,) * len(axes), *[(1.0,) * len(axes)] * 2, tuple(-one for one in unlimited), unlimited),
        )
        self._read = VELOCITY_MESSAGES["geometry_msgs/msg/TwistStamped"].reader(axes)
        self._told, self._told_ns = self.rest, 0
        self._odometry = self.create_publisher(Odometry, "odom", qos.newest())
        self.create_subscription(TwistStamped, "cmd_vel", self._on_command, qos.sensor())

    @staticmethod
    def plan(rows: FloatArray, info: ModelInfo) -> ActionSequence:
        return to_plan(rows, info)

    @property
    def rest(self) -> FloatArray:
        return np.zeros(len(self.names), np.float32)

    def tell(self, stamp: Time, measured: FloatArray) -> None:
        message = Odometry(header=Header(stamp=stamp, frame_id=ODOM_FRAME), child_frame_id=BASE_FRAME)
        message.twist.twist.linear.x, message.twist.twist.angular.z = map(float, measured)
        self._odometry.publish(message)

    def rows_left(self, message: ActionSequence) -> FloatArray | None:
        if not message.horizon:
            return None
        plan = read_plan(message, self._spec, _LATEST_START_S, self.now_ns)
        start_ns = plan.stamp_ns or self.now_ns
        left_ns = start_ns + len(plan.rows) * plan.step_ns - self.now_ns
        steps = -(-left_ns // round(self.step_s * NANOSECONDS))
        rows: FloatArray = commands_for(plan, self.now_ns, self.measured, steps, self._spec).rows
        return rows

    def next_row(self) -> FloatArray:
        is_recent = self.now_ns - self._told_ns <= COMMAND_TIMEOUT_S * NANOSECONDS
        return self._told if is_recent else self.rest

    def _on_command(self, message: TwistStamped) -> None:
        velocity = self._read(message)
        if np.isfinite(velocity).all():
            self._told, self._told_ns = velocity, self.now_ns
        else:
            self.get_logger().error(f"cmd_vel: expected finite numbers, found {velocity}; not followed")


@dataclass(frozen=True)
class RoverConfig:
    """One field per parameter, same name."""

    python: str = parameter("", "Python of the simulator's environment (make sim).", is_live=False)
    seed: int = parameter(0, "Of the place where it starts.", Limits(0, 2**31 - 1), is_live=False)
    task = "go"


def main() -> None:
    """`ros2 run astra_ros simulated_rover`. Between plans time passes as it does. Exit code 0 on SIGINT and SIGTERM."""
    run(SimulatedRover, RoverConfig, lambda _config: "rover")
