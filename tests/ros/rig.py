"""A robot for the node under test: a plain rclpy node that publishes what a robot publishes and keeps what it receives.

Real rclpy over real DDS. One executor, spun by the test itself until something has happened.
"""

from __future__ import annotations

import gc
import time
import weakref
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import Log
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from astra_ros.msg import ActionSequence, Goal, ModelInfo, PredictedFuture
from astra_ros.ros.node import WorldModelNode
from astra_ros.ros.refusal import Drop
from astra_ros.ros.stamps import to_duration, to_ns, to_time
from astra_ros.types import NANOSECONDS

JOINTS = (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1")
POSITIONS = np.linspace(-1.0, 1.0, len(JOINTS)).astype(np.float32)
HORIZON = 10  # two seconds: what the node predicts unless told otherwise
TIMEOUT_S = 20.0
# A busy machine delivers late; the tests that are about lateness set their own.
PATIENT = {"max_observation_age_s": 30.0, "sync_slop_s": 10.0, "plan_timeout_s": 60.0}
SENSOR = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Rig:
    """A world model node, and a robot in the same namespace."""

    def __init__(
        self, bundle: str, namespace: str = "", cli_args: Sequence[str] = (), **parameters: Any
    ) -> None:
        """cli_args: of the node, for remappings. parameters: of the node."""
        # The backend that opens fastest; which one a machine would take is tested elsewhere.
        values = {"bundle": bundle, "backend": "onnxruntime", **PATIENT, **parameters}
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = WorldModelNode(
            namespace=namespace, cli_args=list(cli_args), parameter_overrides=overrides
        )
        self.robot = Node("robot", namespace=namespace, parameter_overrides=_clock_of(parameters))
        self.futures: list[PredictedFuture] = []
        self.infos: list[ModelInfo] = []
        self.statuses: list[DiagnosticStatus] = []
        self.warnings: list[str] = []
        self.image = self.robot.create_publisher(Image, "image", SENSOR)
        self.joints = self.robot.create_publisher(JointState, "joint_states", SENSOR)
        self.plan = self.robot.create_publisher(ActionSequence, "action_sequence", SENSOR)
        self.trajectory = self.robot.create_publisher(JointTrajectory, "joint_trajectory", SENSOR)
        self.goal = self.robot.create_publisher(Goal, "goal", LATCHED)
        self.robot.create_subscription(
            PredictedFuture, "world_model/predicted_future", self.futures.append, SENSOR
        )
        self.robot.create_subscription(ModelInfo, "world_model/model_info", self.infos.append, LATCHED)
        self.robot.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, SENSOR)
        self.robot.create_subscription(Log, "/rosout", self._on_log, SENSOR)
        self._executor = SingleThreadedExecutor()
        for member in (self.node, self.robot):
            self._executor.add_node(member)

    def close(self) -> None:
        self._executor.shutdown()
        self.robot.destroy_node()
        self.node.destroy_node()
        # rclpy's state machine holds on to the node's handle until it is collected, an executor on the nodes of tasks that it
        # never got to. What is left would be found by the next test's clients, and answer none of them.
        left = weakref.ref(self.node)
        del self.node, self._executor
        gc.collect()
        assert left() is None, "the node is still referred to"

    def activate(self) -> None:
        """Bring the node up and wait until the robot and it have found each other."""
        self.configure_and_activate()
        self.spin_until(self.image.get_subscription_count)

    def configure_and_activate(self) -> None:
        """As activate, but for the camera: the node may listen to another topic than the robot's."""
        assert self.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        self.activate_configured()

    def activate_configured(self) -> None:
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        publishers = (self.joints, self.plan, self.trajectory, self.goal)
        self.spin_until(lambda: all(one.get_subscription_count() for one in publishers))
        self.spin_until(lambda: self.node.count_subscribers(f"{self.node_name}/predicted_future"))

    @property
    def node_name(self) -> str:
        return str(self.node.get_fully_qualified_name())

    def spin_until(self, condition: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
        """The condition's first true value. Fails the test when there is none in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if value := condition():
                return value
            self._executor.spin_once(timeout_sec=0.05)
        status = self.statuses[-1] if self.statuses else None
        raise AssertionError(
            f"nothing within {timeout_s:g} s; last status {status}; warnings {self.warnings}"
        )

    def spin_for(self, duration_s: float) -> None:
        """For what must not happen."""
        deadline = time.monotonic() + duration_s
        while (left_s := deadline - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left_s)

    def now_ns(self) -> int:
        return int(self.robot.get_clock().now().nanoseconds)

    def serve(self, **picture: Any) -> PredictedFuture:
        """Publish a good observation and wait for its prediction."""
        stamp_ns = self.now_ns()
        self.joints.publish(joint_state(stamp_ns))
        self.image.publish(image(stamp_ns, **picture))
        return self.future_at(stamp_ns)

    def future_at(self, stamp_ns: int) -> PredictedFuture:
        def find() -> PredictedFuture | None:
            return next((future for future in self.futures if to_ns(future.header.stamp) == stamp_ns), None)

        future: PredictedFuture = self.spin_until(find)
        return future

    def status(self, level: bytes, text: str = "", timeout_s: float = TIMEOUT_S) -> DiagnosticStatus:
        """Wait for the newest status to be of this level and to mention a text."""

        def find() -> DiagnosticStatus | None:
            newest = self.statuses[-1] if self.statuses else None
            return newest if newest and newest.level == level and text in newest.message else None

        status: DiagnosticStatus = self.spin_until(find, timeout_s)
        return status

    def counters(self) -> dict[str, str]:
        """What the next status will say, now."""
        return self.node._diagnostics.health.snapshot().values

    def drops(self) -> dict[str, int]:
        """Counters of drops that are not 0."""
        counters = self.counters()
        return {str(cause): number for cause in Drop if (number := int(counters[f"drops.{cause}"]))}

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses += [status for status in message.status if status.name.startswith(f"{self.node_name}:")]

    def _on_log(self, message: Log) -> None:
        if message.name == self.node.get_logger().name and message.level >= Log.WARN:
            self.warnings.append(message.msg)


def image(
    stamp_ns: int,
    *,
    height: int = 48,
    width: int = 64,
    encoding: str = "rgb8",
    channels: int = 3,
    seed: int = 0,
    **fields: Any,
) -> Image:
    """A picture of noise, sound unless fields say otherwise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width * channels), np.uint8)
    message = Image(
        height=height,
        width=width,
        encoding=encoding,
        step=width * channels,
        data=array("B", pixels.tobytes()),
    )
    message.header.stamp, message.header.frame_id = to_time(stamp_ns), "camera_optical"
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def joint_state(
    stamp_ns: int, names: Sequence[str] = JOINTS, positions: Sequence[float] | None = None
) -> JointState:
    positions = [float(p) for p in POSITIONS] if positions is None else positions
    message = JointState(name=list(names), position=list(positions))
    message.header.stamp = to_time(stamp_ns)
    return message


def action_sequence(
    stamp_ns: int = 0, *, rows: np.ndarray | None = None, step_dt: float = 0.2, **fields: Any
) -> ActionSequence:
    """A plan as long as a prediction, sound unless fields say otherwise."""
    rows = plan_rows() if rows is None else rows
    message = ActionSequence(
        representation=ActionSequence.REPRESENTATION_JOINT_POSITION,
        step_dt=to_duration(step_dt),
        horizon=len(rows),
        names=list(JOINTS),
        data=array("f", rows.astype(np.float32).ravel()),
    )
    message.id.uuid = np.arange(16, dtype=np.uint8)
    message.header.stamp = to_time(stamp_ns)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def trajectory(points: Sequence[tuple[float, Sequence[float]]], names: Sequence[str]) -> JointTrajectory:
    """points: (time_from_start [s], positions)."""
    return JointTrajectory(
        joint_names=list(names),
        points=[
            JointTrajectoryPoint(positions=array("d", positions), time_from_start=to_duration(time_s))
            for time_s, positions in points
        ],
    )


def plan_rows() -> np.ndarray:
    """All joints move by 0.05 a step."""
    return POSITIONS + 0.05 * np.arange(1, HORIZON + 1)[:, None]


def _clock_of(parameters: dict[str, Any]) -> list[Parameter]:
    return [Parameter("use_sim_time", value=parameters.get("use_sim_time", False))]


__all__ = [
    "HORIZON",
    "JOINTS",
    "NANOSECONDS",
    "POSITIONS",
    "Rig",
    "action_sequence",
    "image",
    "joint_state",
    "plan_rows",
]
