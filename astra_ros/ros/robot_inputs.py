"""What a robot tells of itself and is told by others than planners: an arm's joints, or a vehicle's velocity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from astra_ros.actions.spec import ActionSpec
from astra_ros.actions.velocities import VELOCITY_MESSAGES
from astra_ros.ros import qos
from astra_ros.ros.declaration import ConfigError
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import NO_PLAN_ID, Plan, require_overlap
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import to_ns
from astra_ros.ros.sync import JointReader
from astra_ros.ros.trajectories import MAX_DURATION_S, TrajectoryError, read_trajectory
from astra_ros.ros.vehicle import VelocityReader, command_type, robot_topic
from astra_ros.ros.worker import Worker
from astra_ros.types import NANOSECONDS, FloatArray

# Rows of a trajectory within a step of the model: its points lie where they lie.
_FINER = 10


class Topic(NamedTuple):
    """name: before it is remapped, and of the source. handle: raises Refusal."""

    name: str
    message_type: type
    handle: Callable[[Any, Worker], None]
    profile: QoSProfile


@dataclass(frozen=True)
class Clock:
    """now_ns: the node's. recent_ns: a stamp, which is refused where it cannot be one of the last moments."""

    now_ns: Callable[[], int]
    recent_ns: Callable[[int], int]


def robot_inputs(
    action: ActionSpec, config: NodeConfig, clock: Clock, *, is_told_only: bool
) -> ArmInputs | VehicleInputs:
    """Of the kind of robot that the model is of. is_told_only: a vehicle's odometry is its commands. Raises ConfigError."""
    if action.representation == "joint_position":
        return ArmInputs(action, clock)
    return VehicleInputs(action, config, clock, is_told_only=is_told_only)


class ArmInputs:
    """Joint states, and trajectories of a controller."""

    def __init__(self, action: ActionSpec, clock: Clock) -> None:
        self._action, self._clock = action, clock
        self._reader = JointReader(action.names)
        self._positions: FloatArray | None = None

    def topics(self) -> Iterator[Topic]:
        yield Topic(robot_topic(self._action), JointState, self._on_joint_state, qos.sensor(depth=10))
        yield Topic("joint_trajectory", JointTrajectory, self._on_trajectory, qos.commands())

    def forget(self) -> None:
        """What came so far belongs to another time."""
        self._positions = None

    def _on_joint_state(self, message: JointState, worker: Worker) -> None:
        positions = self._reader.read(message)
        worker.add_measured(self._clock.recent_ns(to_ns(message.header.stamp)), positions)
        before = self._positions
        self._positions = positions if before is None else np.where(np.isnan(positions), before, positions)

    def _on_trajectory(self, message: JointTrajectory, worker: Worker) -> None:
        """One without points withdraws the plan."""
        if not message.points:
            worker.set_plan(None)
            return
        action, now_ns = self._action, self._clock.now_ns()
        # Where the robot will be at a later start is not known yet.
        measured = None if to_ns(message.header.stamp) > now_ns else self._all_positions()
        try:
            step_ns = round(action.step_dt * NANOSECONDS / _FINER)  # it is sampled again, from a picture on
            plan = read_trajectory(message, action.names, step_ns, measured, now_ns)
        except TrajectoryError as error:
            raise Refusal(Drop.BAD_PLAN, str(error)) from error
        require_overlap(plan, MAX_DURATION_S, now_ns)
        worker.set_plan(plan)

    def _all_positions(self) -> FloatArray | None:
        """The last ones, once every joint has been told of."""
        positions = self._positions
        return None if positions is None or np.isnan(positions).any() else positions


class VehicleInputs:
    """Odometry, and the commands that a controller or somebody with a joystick sends."""

    def __init__(
        self, action: ActionSpec, config: NodeConfig, clock: Clock, *, is_told_only: bool = False
    ) -> None:
        """is_told_only: odom is the topic of the commands. Raises ConfigError."""
        self._action, self._clock, self._is_told_only = action, clock, is_told_only
        if is_told_only and VELOCITY_MESSAGES[config.odom_type].is_measured:
            raise ConfigError(
                f"odom_type: expected the type of the commands, for odom and cmd_vel are one topic, found {config.odom_type}; set it,"
                " or remap odom:= to the odometry"
            )
        told = command_type(config.odom_type, config.cmd_vel_type)
        self._odom = VelocityReader("odom_type", told if is_told_only else config.odom_type, action.names)
        self._command = VelocityReader("cmd_vel_type", told, action.names)

    def topics(self) -> Iterator[Topic]:
        yield Topic(
            robot_topic(self._action), self._odom.message_type, self._on_velocity, qos.sensor(depth=10)
        )
        if not self._is_told_only:  # else it is subscribed to once, for both
            yield Topic("cmd_vel", self._command.message_type, self._on_command, qos.sensor())

    def forget(self) -> None:
        """Nothing is kept."""

    def _on_velocity(self, message: Any, worker: Worker) -> None:
        velocity = self._odom.read(message)
        stamp_ns = self._odom.stamp_ns(message, self._clock.now_ns())
        worker.add_measured(self._clock.recent_ns(stamp_ns), velocity)
        if self._is_told_only:
            self._on_command(message, worker)

    def _on_command(self, message: Any, worker: Worker) -> None:
        """In force from now on, where no plan is."""
        velocity = self._command.read(message, Drop.BAD_PLAN)
        step_ns, now_ns = round(self._action.step_dt * NANOSECONDS), self._clock.now_ns()
        worker.set_command(Plan(NO_PLAN_ID, 0, step_ns, velocity[None], now_ns))
