"""The node's topics in: check, convert, hand to the worker. Nothing here waits for the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory

from astra_ros.backends.manifest import Manifest
from astra_ros.frames.preprocess import fit, share_of
from astra_ros.msg import ActionSequence, Goal
from astra_ros.ros import qos
from astra_ros.ros.conversions import to_rgb
from astra_ros.ros.health import Health
from astra_ros.ros.inbox import Frame
from astra_ros.ros.listener import Listener
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import read_plan, require_overlap
from astra_ros.ros.queries import QueryRefusal, read_goal
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import TIME_RESET_NS, require_recent, to_ns
from astra_ros.ros.standing_goal import StandingGoal
from astra_ros.ros.sync import JointReader
from astra_ros.ros.trajectories import MAX_DURATION_S, TrajectoryError, read_trajectory
from astra_ros.ros.views import Views, camera_source
from astra_ros.ros.worker import Worker
from astra_ros.types import NANOSECONDS, FloatArray

# Rows of a trajectory within a step of the model: its points lie where they lie.
_FINER = 10


class Inputs:
    """The subscriptions of one configuration. Messages pass only while a worker is connected."""

    def __init__(
        self,
        node: LifecycleNode,
        manifest: Manifest,
        config: NodeConfig,
        health: Health,
        standing_goal: StandingGoal,
    ) -> None:
        """Raises ConfigError, and leaves nothing behind then."""
        self._node = node
        self._standing_goal = standing_goal
        self._manifest = manifest
        self.config = config
        self._health = health
        self._joint_reader = JointReader(manifest.action.names)
        self._worker: Worker | None = None
        self._positions: FloatArray | None = None
        self._listener = Listener(node, health)
        with ExitStack() as undo:
            undo.callback(self.destroy)
            # By source: image, and for further cameras image_2, image_3, ...
            self.image_topics = dict(self._listen_to_cameras(config.image_transport))
            self._listen_to_robot()
            undo.pop_all()
        self._views = Views([*self.image_topics.values()])
        self._newest_ns = dict.fromkeys(self.image_topics, 0)

    def connect(self, worker: Worker) -> None:
        """Open the gate: rclpy calls subscriptions in every lifecycle state."""
        self._forget_own()
        self._worker = worker

    def disconnect(self) -> None:
        self._worker = None

    def forget(self) -> None:
        """What came so far belongs to another time."""
        self._forget_own()
        if self._worker:
            self._worker.forget()

    def _forget_own(self) -> None:
        self._views.clear()
        self._newest_ns, self._positions = dict.fromkeys(self.image_topics, 0), None

    def destroy(self) -> None:
        self._listener.destroy()

    def _on_image(self, source: str, message: Image | CompressedImage, worker: Worker) -> None:
        received_s = time.monotonic()
        stamp_ns = self._recent_stamp_ns(message.header)
        self._require_in_order(source, stamp_ns)
        camera = self._manifest.camera
        pixels = fit(to_rgb(message), share_of(camera.height, camera.count), camera.width)
        frame = Frame(stamp_ns, message.header.frame_id, pixels, received_s, time.monotonic() - received_s)
        self._newest_ns[source] = stamp_ns
        self._views.add([*self.image_topics].index(source), frame)
        for found in self._views.take(self.config.sync_slop_s):
            if isinstance(found, Refusal):
                self._health.refuse("cameras", found)
            else:
                self._health.resolve("cameras")
                worker.add_frame(found)

    def _on_joint_state(self, message: JointState, worker: Worker) -> None:
        positions = self._joint_reader.read(message)
        stamp_ns = self._recent_stamp_ns(message.header)
        worker.add_joint_positions(stamp_ns, positions)
        before = self._positions
        self._positions = positions if before is None else np.where(np.isnan(positions), before, positions)

    def _on_plan(self, message: ActionSequence, worker: Worker) -> None:
        """One without rows withdraws the plan."""
        if not message.horizon and not message.data:
            worker.set_plan(None)
        else:
            worker.set_plan(read_plan(message, self._manifest.action, MAX_DURATION_S, self._now_ns()))

    def _on_trajectory(self, message: JointTrajectory, worker: Worker) -> None:
        """One without points withdraws the plan."""
        if not message.points:
            worker.set_plan(None)
            return
        action, now_ns = self._manifest.action, self._now_ns()
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

    def _on_goal(self, message: Goal) -> bool:
        try:
            self._standing_goal.set(read_goal(message, self._manifest))
        except QueryRefusal as refusal:
            raise Refusal(Drop.BAD_GOAL, str(refusal)) from refusal
        return True

    def _recent_stamp_ns(self, header: Header) -> int:
        stamp_ns, config = to_ns(header.stamp), self.config
        require_recent(stamp_ns, self._now_ns(), config.max_observation_age_s, config.future_tolerance_s)
        return stamp_ns

    def _require_in_order(self, source: str, stamp_ns: int) -> None:
        behind_ns = self._newest_ns[source] - stamp_ns
        if behind_ns >= TIME_RESET_NS:
            self.forget()
        elif behind_ns >= 0:
            raise Refusal(
                Drop.OUT_OF_ORDER,
                "header.stamp: expected every picture to be newer than the one before, found one"
                f" {behind_ns / NANOSECONDS:.3f} s older; only one camera may publish on this topic",
            )

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def _listen_to_cameras(self, transport: str) -> Iterator[tuple[str, str]]:
        """Sources and full topics."""
        for number in range(1, self._manifest.camera.count + 1):
            source = camera_source(number)
            # As image_transport does: a remapping of the base topic carries over to the compressed one.
            base, is_raw = self._node.resolve_topic_name(source), transport == "raw"
            topic, kind = (source, Image) if is_raw else (f"{base}/compressed", CompressedImage)
            subscription = self._listen(source, kind, topic, partial(self._on_image, source), qos.sensor())
            yield source, subscription.topic_name

    def _listen_to_robot(self) -> None:
        commands, joints = qos.commands, qos.sensor(depth=10)
        self._listen("joint_states", JointState, "joint_states", self._on_joint_state, joints)
        self._listen("action_sequence", ActionSequence, "action_sequence", self._on_plan, commands())
        self._listen("joint_trajectory", JointTrajectory, "joint_trajectory", self._on_trajectory, commands())
        # Latched goals come once, so they are taken whether the node is active or not.
        self._listener.listen("goal", Goal, "goal", self._on_goal, qos.latched())

    def _listen(
        self,
        source: str,
        message_type: type,
        topic: str,
        handle: Callable[[Any, Worker], None],
        profile: QoSProfile,
    ) -> Subscription:
        def on_message(message: Any) -> bool:
            worker = self._worker
            if worker is None:
                self._health.count(Drop.NOT_ACTIVE)
                return False
            handle(message, worker)
            return True

        return self._listener.listen(source, message_type, topic, on_message, profile)
