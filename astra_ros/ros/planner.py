"""The node `planner`: a goal and joint states in, a trajectory out that the world model likes best.

It asks a world model node for scores and searches with CEM or MPPI. It moves nothing by itself: whoever subscribes to
`joint_trajectory` (a joint trajectory controller) does.
"""

from __future__ import annotations

import sys
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from astra_ros.actions.spec import ActionSpec
from astra_ros.planning.cem import CemConfig, cem
from astra_ros.planning.mppi import MppiConfig, mppi
from astra_ros.planning.sampling import Costs, Planned, shifted
from astra_ros.ros import qos
from astra_ros.ros.client import WorldModelClient, WorldModelError
from astra_ros.ros.declaration import (
    ConfigError,
    Limits,
    declare_parameters,
    parameter,
    read_config,
    require_choices,
)
from astra_ros.ros.refusal import Refusal
from astra_ros.ros.stamps import to_duration
from astra_ros.ros.sync import JointReader
from astra_ros.types import FloatArray

# Joint states older than this say nothing of where the robot is.
_RECENT_S = 1.0
# A robot that is farther from the last plan than so many usual changes per step did not follow it.
_ASTRAY = 6.0


@dataclass(frozen=True)
class PlannerConfig:
    """One field per parameter, same name."""

    world_model: str = parameter("world_model", "Name of the world model node that is asked.", is_live=False)
    joints: str = parameter(
        "", "Joints of the published trajectory, separated by commas: a controller's; empty: the model's."
    )
    method: str = parameter("cem", "How plans are searched for.", Limits(choices=("cem", "mppi")))
    num_samples: int = parameter(32, "Plans that are tried per iteration.", Limits(2, 65536))
    iterations: int = parameter(5, "Iterations of the search.", Limits(1, 1000))
    horizon: int = parameter(8, "Rows of a plan, in steps of the model.", Limits(1, 1024))
    max_step: float = parameter(
        1.5, "Largest change of a joint from row to row, in the usual ones of training.", Limits(0.01, 100.0)
    )
    period_s: float = parameter(
        0.0,
        "Plan again and again, at least so long after the last time [s]; 0: only when asked (~/plan).",
        Limits(0.0, 3600.0),
    )
    seed: int = parameter(0, "Seed of the first search; every later one has the next.", Limits(0, 2**31 - 1))

    def __post_init__(self) -> None:
        require_choices(self)

    def published(self, spec: ActionSpec) -> list[str]:
        """Joints of the trajectory. Raises ConfigError."""
        wanted = [name.strip() for name in self.joints.split(",") if name.strip()] or list(spec.names)
        if unknown := [name for name in wanted if name not in spec.names]:
            raise ConfigError(f"joints: expected some of {', '.join(spec.names)}, found {', '.join(unknown)}")
        return wanted


@dataclass(frozen=True)
class _Sensed:
    """Joint positions (a,) in the model's order, and when they came (monotonic)."""

    positions: FloatArray
    received_s: float


class Planner(Node):
    """Spun by several threads: a search waits for answers that another one receives.

    options: of rclpy's Node. Raises ConfigError.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("planner", **options)
        declare_parameters(self, PlannerConfig)
        config = read_config(self, PlannerConfig)
        self.model = WorldModelClient(self, config.world_model)
        self._num_searches = 0
        self._sensed: _Sensed | None = None
        self._reader: tuple[tuple[str, ...], JointReader] | None = None
        self._last: tuple[float, FloatArray] | None = None
        self._ended_s = time.monotonic()
        self._trajectory = self.create_publisher(JointTrajectory, "joint_trajectory", qos.newest())
        aside = ReentrantCallbackGroup()
        self.create_subscription(
            JointState, "joint_states", self._on_joint_state, qos.sensor(), callback_group=aside
        )
        searching = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/plan", self._on_plan, callback_group=searching)
        self.create_timer(0.05, self._on_timer, callback_group=searching)
        self.add_on_set_parameters_callback(self._validate)

    def plan(self) -> tuple[Planned, float]:
        """Search from where the robot is, publish what was found. Returns it and the seconds it took.

        Every iteration asks about the newest picture, so the robot should stand or move slowly meanwhile.
        Raises WorldModelError, ConfigError or ValueError; nothing is published then.
        """
        config, spec = read_config(self, PlannerConfig), self.model.spec()
        joints, first = config.published(spec), self._first_guess(spec, config)
        stamp, started_s = self.get_clock().now().to_msg(), time.monotonic()
        planned = _search(self.model.costs(seed=config.seed), first, spec, config, self._num_searches)
        self._num_searches += 1
        self._last = (started_s, planned.plan)
        self._trajectory.publish(to_trajectory(planned.plan, spec, joints, stamp))
        return planned, time.monotonic() - started_s

    def _first_guess(self, spec: ActionSpec, config: PlannerConfig) -> FloatArray:
        """What is left of the last plan, if the robot follows it, else holding still."""
        sensed = self._sensed
        if sensed is None or time.monotonic() - sensed.received_s > _RECENT_S:
            raise WorldModelError(
                f"{self.resolve_topic_name('joint_states')}: expected joint states of the last {_RECENT_S:g} s, found none;"
                " start the robot's driver, or remap joint_states:="
            )
        if self._last is not None and self._last[1].shape == (config.horizon, spec.dim):
            elapsed = round((time.monotonic() - self._last[0]) / spec.step_dt)
            at = self._last[1][min(elapsed, config.horizon) - 1] if elapsed else self._last[1][0]
            astray = np.abs(sensed.positions - at) > _ASTRAY * np.array(spec.delta_std)
            if elapsed < config.horizon and not astray.any():
                return shifted(self._last[1], elapsed)
        return np.tile(spec.clip(sensed.positions), (config.horizon, 1))

    def _on_joint_state(self, message: JointState) -> None:
        try:
            names = tuple(self.model.info(timeout_s=0.0).action_names)
        except WorldModelError:
            return  # the names are not known yet
        if self._reader is None or self._reader[0] != names:
            self._reader, self._last = (names, JointReader(names)), None
        try:
            self._sensed = _Sensed(self._reader[1].read(message), time.monotonic())
        except Refusal as refusal:
            self.get_logger().warning(f"joint_states: {refusal}", throttle_duration_sec=10.0)

    def _on_plan(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            planned, seconds = self.plan()
        except (WorldModelError, ConfigError, ValueError) as error:
            response.message = " ".join(str(error).split())
            return response
        response.success = True
        response.message = (
            f"cost {planned.cost:.4f} after {len(planned.history)} iterations (first: {planned.history[0]:.4f}) in"
            f" {seconds:.2f} s"
        )
        return response

    def _on_timer(self) -> None:
        try:
            period_s = read_config(self, PlannerConfig).period_s
            if not period_s or time.monotonic() - self._ended_s < period_s:
                return
            self.plan()
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


def _search(
    costs: Costs, first: FloatArray, spec: ActionSpec, config: PlannerConfig, num_searches: int
) -> Planned:
    """With the method that is asked for."""
    seed, count = config.seed + num_searches, config.num_samples
    if config.method == "mppi":
        return mppi(costs, first, spec, MppiConfig(count, config.iterations, max_step=config.max_step), seed)
    settings = CemConfig(count, config.iterations, max(1, count // 8), max_step=config.max_step)
    return cem(costs, first, spec, settings, seed)


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
    """`ros2 run astra_ros planner`. Ends with exit code 0 on SIGINT and SIGTERM."""
    rclpy.init()
    executor = MultiThreadedExecutor(4)
    try:
        executor.add_node(Planner())
        executor.spin()
    except (ConfigError, ParameterException) as error:
        try_shutdown()
        sys.exit(f"planner: {error}")
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        try_shutdown()
