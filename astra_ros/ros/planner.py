"""The node `planner`: a goal and joint states in, a trajectory out that the world model likes best; of a vehicle, commands.

It asks a world model node for proposals and scores, and searches among them. It moves nothing by itself: whoever subscribes to
`joint_trajectory` (a joint trajectory controller) or `cmd_vel` (a drive) does.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from builtin_interfaces.msg import Time
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from astra_ros.actions.spec import ActionSpec
from astra_ros.msg import ActionSequence
from astra_ros.planning.sampling import Planned
from astra_ros.ros import qos
from astra_ros.ros.calm_executor import CalmExecutor
from astra_ros.ros.client import WorldModelClient, WorldModelError, to_plan
from astra_ros.ros.declaration import ConfigError, declare_parameters, read_config
from astra_ros.ros.driver import Driver
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.search import PlannerConfig, Search
from astra_ros.ros.session import ros_session
from astra_ros.ros.stamps import to_duration, to_time
from astra_ros.ros.sync import JointReader
from astra_ros.types import NANOSECONDS, FloatArray

# Joint states older than this say nothing of where the robot is.
_RECENT_S = 1.0


@dataclass(frozen=True)
class _Sensed:
    """Joint positions (a,) in the model's order, NaN before the first, and when each came (monotonic)."""

    positions: FloatArray
    received_s: FloatArray

    @classmethod
    def nothing(cls, dim: int) -> _Sensed:
        return cls(np.full(dim, np.nan, np.float32), np.full(dim, -np.inf))

    def updated(self, positions: FloatArray) -> _Sensed:
        """positions: NaN where nothing new is known."""
        is_new = ~np.isnan(positions)
        return _Sensed(
            np.where(is_new, positions, self.positions), np.where(is_new, time.monotonic(), self.received_s)
        )


class Planner(Node):
    """Spun by several threads: a search waits for answers that another one receives.

    options: of rclpy's Node. Raises ConfigError.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("planner", **options)
        declare_parameters(self, PlannerConfig)
        config = read_config(self, PlannerConfig)
        self.model = WorldModelClient(self, config.world_model)
        self._search = Search(self.model, self._positions, lambda: int(self.get_clock().now().nanoseconds))
        self._sensed: _Sensed | None = None
        self._reader: tuple[tuple[str, ...], JointReader] | None = None
        self._ended_s = time.monotonic()
        self._num_stops = 0  # so far; what was begun before the last one leads to nothing
        self._trajectory = self.create_publisher(JointTrajectory, "joint_trajectory", qos.newest())
        self._sequence = self.create_publisher(ActionSequence, "action_sequence", qos.newest())
        self._driver = Driver(self)
        # Two threads of their own: joint states come while a search runs, and one after the other.
        sensing, searching = MutuallyExclusiveCallbackGroup(), MutuallyExclusiveCallbackGroup()
        self.create_subscription(
            # Deep enough for drivers that publish their joints one after the other.
            JointState,
            "joint_states",
            self._on_joint_state,
            qos.sensor(depth=10),
            callback_group=sensing,
        )
        self.create_service(Trigger, "~/plan", self._on_plan, callback_group=searching)
        self.create_service(Trigger, "~/stop", self._on_stop)  # also during a search
        self.create_timer(0.05, self._on_timer, callback_group=searching)
        self.add_on_set_parameters_callback(self._validate)

    def plan(self) -> tuple[Planned, float]:
        """Search from where the robot is, or will be, and publish what was found. Returns it and the seconds it took.

        The robot may stand, or carry out the last plan. Raises WorldModelError, ConfigError or ValueError; nothing is published
        then.
        """
        return self._plan(self._num_stops)

    def _plan(self, stops: int) -> tuple[Planned, float]:
        """stops: how often the planner was stopped when this was asked for."""
        config, spec, started_s = read_config(self, PlannerConfig), self.model.spec(), time.monotonic()
        plan = self._plan_arm if spec.representation == "joint_position" else self._plan_drive
        try:
            planned = plan(spec, config, partial(self._require_not_stopped, stops))
        finally:
            self._ended_s = time.monotonic()
        return planned, self._ended_s - started_s

    def _plan_arm(
        self, spec: ActionSpec, config: PlannerConfig, require_wanted: Callable[[], None]
    ) -> Planned:
        planned, begins_ns = self._search.run(spec, config)
        require_wanted()
        joints = config.published(spec)
        self._trajectory.publish(to_trajectory(planned.plan, spec, joints, to_time(begins_ns)))
        return planned

    def _plan_drive(
        self, spec: ActionSpec, config: PlannerConfig, require_wanted: Callable[[], None]
    ) -> Planned:
        """The vehicle stands while it searches."""
        if config.joints:
            raise ConfigError(
                f"joints: expected none for a model of {', '.join(spec.names)}, found {config.joints}"
            )
        if (left_s := self._driver.left_s) > 0:
            raise WorldModelError(
                f"cmd_vel: expected the last plan to be over, found {left_s:.2f} s of it left; plan when the vehicle stands"
            )
        self._driver.prepare(spec.names, config.cmd_vel_type)
        planned = self._search.from_standstill(spec, config)
        step_ns = round(spec.step_dt * NANOSECONDS)
        begins_ns = self._driver.begin(spec.names, planned.plan, step_ns, require_wanted)
        sequence = to_plan(planned.plan, self.model.info())
        sequence.header.stamp = to_time(begins_ns)
        self._sequence.publish(sequence)
        return planned

    def stop(self) -> bool:
        """Plan no more by itself, and stop a vehicle that it drives. Returns whether it drove."""
        self._num_stops += 1
        self.set_parameters([Parameter("period_s", value=0.0)])
        return self._driver.stop()

    def _require_not_stopped(self, stops: int) -> None:
        if self._num_stops != stops:
            raise WorldModelError("~/stop: expected none during the search, found one; plan again")

    def _on_joint_state(self, message: JointState) -> None:
        try:
            info = self.model.info(timeout_s=0.0)
        except WorldModelError:
            return  # the names are not known yet
        if info.action_representation != ActionSequence.REPRESENTATION_JOINT_POSITION:
            return  # the joints of a vehicle are its wheels
        names = tuple(info.action_names)
        if self._reader is None or self._reader[0] != names:
            self._reader, self._sensed = (names, JointReader(names)), None
            self._search.forget()
        try:
            positions = self._reader[1].read(message)
            self._sensed = (self._sensed or _Sensed.nothing(len(names))).updated(positions)
        except Refusal as refusal:
            # Another driver's on the same topic are no problem while the arm's come.
            if refusal.cause is not Drop.OTHER_JOINTS or self._recently_sensed() is None:
                self.get_logger().warning(f"joint_states: {refusal}", throttle_duration_sec=10.0)

    def _positions(self) -> FloatArray:
        """(a,) where the robot is. Raises WorldModelError when nobody says so any more."""
        sensed = self._recently_sensed()
        if sensed is None:
            raise WorldModelError(
                f"{self.resolve_topic_name('joint_states')}: expected joint states of the last {_RECENT_S:g} s, found none"
                f"{self._of_whom()}; start the robot's driver, or remap joint_states:="
            )
        return sensed.positions

    def _recently_sensed(self) -> _Sensed | None:
        sensed = self._sensed
        return sensed if sensed and not self._silent(sensed).any() else None

    def _silent(self, sensed: _Sensed) -> npt.NDArray[np.bool_]:
        """(a,) joints that nobody tells of any more."""
        silent: npt.NDArray[np.bool_] = time.monotonic() - sensed.received_s > _RECENT_S
        return silent

    def _of_whom(self) -> str:
        """Which joints, where only some lack."""
        if self._reader is None or self._sensed is None:
            return ""
        silent = self._silent(self._sensed)
        names = [name for name, is_silent in zip(self._reader[0], silent, strict=True) if is_silent]
        return "" if silent.all() else f" of {', '.join(names)}"

    def _on_plan(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            planned, seconds = self.plan()
            method = self._search.method(read_config(self, PlannerConfig))
        except (WorldModelError, ConfigError, ValueError) as error:
            response.message = " ".join(str(error).split())
            return response
        response.success = True
        response.message = (
            f"{method}: cost {planned.cost:.4f} after {len(planned.history)} iterations (first: {planned.history[0]:.4f}) in"
            f" {seconds:.2f} s"
        )
        return response

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        did = "stopped the vehicle" if self.stop() else "drove nothing; stop an arm by its controller"
        response.success, response.message = True, f"{did}; plans no more by itself (period_s is 0)"
        return response

    def _on_timer(self) -> None:
        try:
            stops = self._num_stops  # before the period, which a stop ends
            period_s = read_config(self, PlannerConfig).period_s
            if not period_s or time.monotonic() - self._ended_s < period_s or self._driver.left_s:
                return
            self._plan(stops)
        except (WorldModelError, ConfigError, ValueError) as error:
            self.get_logger().warning(" ".join(str(error).split()), throttle_duration_sec=10.0)
        self._ended_s = time.monotonic()

    def _validate(self, changes: Sequence[Parameter]) -> SetParametersResult:
        try:
            before, after = read_config(self, PlannerConfig), read_config(self, PlannerConfig, changes)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if before.world_model != after.world_model:
            reason = "world_model: expected no change while the node runs; start it again with the other name"
            return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)


def to_trajectory(
    rows: FloatArray, spec: ActionSpec, joints: Sequence[str] = (), stamp: Time | None = None
) -> JointTrajectory:
    """Rows (horizon, a), each reached at the end of its step. joints: of the message; none: all. stamp: None = at once."""
    names = list(joints) or list(spec.names)
    columns = [spec.names.index(name) for name in names]
    return JointTrajectory(
        header=Header(stamp=stamp or Time()),
        joint_names=names,
        points=[
            JointTrajectoryPoint(
                positions=array("d", row[columns].astype(float)),
                time_from_start=to_duration((k + 1) * spec.step_dt),
            )
            for k, row in enumerate(rows)
        ],
    )


def main() -> None:
    """`ros2 run astra_ros planner`. Ends with exit code 0 on SIGINT and SIGTERM, after a vehicle was told to stop."""
    try:
        with ros_session(sys.argv) as stop:
            planner, executor = Planner(), CalmExecutor(4)
            executor.add_node(planner)
            try:
                while not stop.is_set():
                    executor.spin_once(timeout_sec=0.1)
            finally:
                planner.stop()
    except (ConfigError, ParameterException, ValueError) as error:
        sys.exit(f"planner: {error}")
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
