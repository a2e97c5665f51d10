"""The node `planner`: a goal and joint states in, a trajectory out that the world model likes best.

It asks a world model node for scores and searches with CEM or MPPI. It moves nothing by itself: whoever subscribes to
`joint_trajectory` (a joint trajectory controller) does.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from astra_ros.actions.spec import ActionSpec
from astra_ros.planning.cem import CemConfig, cem
from astra_ros.planning.mppi import MppiConfig, mppi
from astra_ros.planning.sampling import Planned, shifted
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


@dataclass(frozen=True)
class PlannerConfig:
    """One field per parameter, same name."""

    world_model: str = parameter("world_model", "Name of the world model node that is asked.", is_live=False)
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


class Planner(Node):
    """Spun by several threads: a search waits for answers that another one receives.

    options: of rclpy's Node.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("planner", **options)
        declare_parameters(self, PlannerConfig)
        config = read_config(self, PlannerConfig)
        self._model = WorldModelClient(self, config.world_model)
        self._num_searches = 0
        self._positions: FloatArray | None = None
        self._reader: JointReader | None = None
        self._last: tuple[float, FloatArray] | None = None
        self._trajectory = self.create_publisher(JointTrajectory, "joint_trajectory", qos.newest())
        aside = ReentrantCallbackGroup()
        self.create_subscription(
            JointState, "joint_states", self._on_joint_state, qos.sensor(), callback_group=aside
        )
        searching = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/plan", self._on_plan, callback_group=searching)
        self.create_timer(0.05, self._on_timer, callback_group=searching)
        self._ended_s = time.monotonic()

    def plan(self) -> tuple[Planned, float]:
        """Search from where the robot is, publish what was found. Returns it and the seconds it took.

        Raises WorldModelError or ConfigError; nothing is published then.
        """
        config = read_config(self, PlannerConfig)
        spec = self._model.spec()
        started_s = time.monotonic()
        costs = self._model.costs(seed=config.seed)
        first, seed = self._first_guess(spec, config), config.seed + self._num_searches
        if config.method == "cem":
            elites = max(1, config.num_samples // 8)
            settings = CemConfig(config.num_samples, config.iterations, elites, max_step=config.max_step)
            planned = cem(costs, first, spec, settings, seed)
        else:
            planned = mppi(
                costs,
                first,
                spec,
                MppiConfig(config.num_samples, config.iterations, max_step=config.max_step),
                seed,
            )
        self._num_searches += 1
        self._last = (started_s, planned.plan)
        self._trajectory.publish(to_trajectory(planned.plan, spec))
        return planned, time.monotonic() - started_s

    def _first_guess(self, spec: ActionSpec, config: PlannerConfig) -> FloatArray:
        """What is left of the last plan, if the robot may still be following it, else holding still."""
        if self._positions is None:
            raise WorldModelError(
                f"{self.resolve_topic_name('joint_states')}: expected joint states, found none yet; start the robot's"
                " driver, or remap joint_states:="
            )
        if self._last is not None and len(self._last[1]) == config.horizon:
            elapsed = round((time.monotonic() - self._last[0]) / spec.step_dt)
            if elapsed < config.horizon:
                return shifted(self._last[1], elapsed)
        return np.tile(spec.clip(self._positions), (config.horizon, 1))

    def _on_joint_state(self, message: JointState) -> None:
        if self._reader is None:
            try:
                self._reader = JointReader(self._model.info(timeout_s=0.0).action_names)
            except WorldModelError:
                return  # its names are not known yet
        try:
            self._positions = self._reader.read(message)
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
        period_s = read_config(self, PlannerConfig).period_s
        if not period_s or time.monotonic() - self._ended_s < period_s:
            return
        try:
            self.plan()
        except (WorldModelError, ConfigError, ValueError) as error:
            self.get_logger().warning(" ".join(str(error).split()), throttle_duration_sec=10.0)
        self._ended_s = time.monotonic()


def to_trajectory(rows: FloatArray, spec: ActionSpec) -> JointTrajectory:
    """Rows (horizon, a), each reached at the end of its step, from now on."""
    names: Sequence[str] = spec.names
    return JointTrajectory(
        joint_names=list(names),
        points=[
            JointTrajectoryPoint(
                positions=array("d", row.astype(float)), time_from_start=to_duration((k + 1) * spec.step_dt)
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
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        try_shutdown()
