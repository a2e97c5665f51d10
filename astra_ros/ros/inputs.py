"""The node's topics in: check, convert, hand to the worker. Nothing here waits for the model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from rclpy.clock import Clock as RosClock
from rclpy.clock import ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

from astra_ros.backends.manifest import Manifest
from astra_ros.frames.preprocess import fit, share_of
from astra_ros.msg import ActionSequence, Goal
from astra_ros.ros import qos
from astra_ros.ros.conversions import to_rgb
from astra_ros.ros.health import Health
from astra_ros.ros.inbox import Frame
from astra_ros.ros.listener import Listener
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import read_plan
from astra_ros.ros.queries import QueryRefusal, read_goal
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.robot_inputs import Clock, robot_inputs
from astra_ros.ros.stamps import TIME_RESET_NS, require_recent, to_ns
from astra_ros.ros.standing_goal import StandingGoal
from astra_ros.ros.trajectories import MAX_DURATION_S
from astra_ros.ros.views import Views, camera_source
from astra_ros.ros.worker import Worker
from astra_ros.types import NANOSECONDS

_SHORTEST_WAIT_NS = 1_000_000


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
        clock = Clock(self._now_ns, self._recent_ns)
        odom, cmd_vel = map(node.resolve_topic_name, ("odom", "cmd_vel"))
        self._robot = robot_inputs(manifest.action, config, clock, is_told_only=odom == cmd_vel)
        self._worker: Worker | None = None
        self._listener = Listener(node, health)
        # Of real time: pictures wait as they come, also where simulated time stands.
        self._patience = node.create_timer(
            1.0, self._on_patience, clock=RosClock(clock_type=ClockType.STEADY_TIME)
        )
        self._patience.cancel()
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

    def end_gone(self) -> None:
        """Of topics that nobody publishes any more."""
        self._listener.end_gone()

    def disconnect(self) -> None:
        self._worker = None

    def forget(self) -> None:
        """What came so far belongs to another time."""
        self._forget_own()
        if self._worker:
            self._worker.forget()

    def _forget_own(self) -> None:
        self._views.clear()
        self._robot.forget()
        self._newest_ns = dict.fromkeys(self.image_topics, 0)

    def destroy(self) -> None:
        self._listener.destroy()
        self._node.destroy_timer(self._patience)

    def _on_image(self, source: str, message: Image | CompressedImage, worker: Worker) -> None:
        received_s = time.monotonic()
        stamp_ns = self._recent_ns(to_ns(message.header.stamp))
        self._require_in_order(source, stamp_ns)
        camera = self._manifest.camera
        pixels = fit(to_rgb(message), share_of(camera.height, camera.count), camera.width)
        frame = Frame(stamp_ns, message.header.frame_id, pixels, received_s, time.monotonic() - received_s)
        self._newest_ns[source] = stamp_ns
        self._views.add([*self.image_topics].index(source), frame)
        self._take_views(worker)

    def _take_views(self, worker: Worker) -> None:
        for found in self._views.take(self.config.sync_slop_s):
            if isinstance(found, Refusal):
                self._health.refuse("cameras", found)
            else:
                self._health.resolve("cameras")
                worker.add_frame(found)
        if self._views.are_waiting and self._patience.is_canceled():
            self._patience.timer_period_ns = max(
                round(self.config.sync_slop_s * NANOSECONDS), _SHORTEST_WAIT_NS
            )
            self._patience.reset()

    def _on_patience(self) -> None:
        """A picture has waited the slop for those of the other cameras."""
        self._patience.cancel()
        if self._worker:
            self._take_views(self._worker)

    def _on_plan(self, message: ActionSequence, worker: Worker) -> None:
        """One without rows withdraws the plan."""
        if not message.horizon and not message.data:
            worker.set_plan(None)
        else:
            worker.set_plan(read_plan(message, self._manifest.action, MAX_DURATION_S, self._now_ns()))

    def _on_goal(self, message: Goal) -> bool:
        try:
            self._standing_goal.set(read_goal(message, self._manifest))
        except QueryRefusal as refusal:
            raise Refusal(Drop.BAD_GOAL, str(refusal)) from refusal
        return True

    def _recent_ns(self, stamp_ns: int) -> int:
        config = self.config
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
        for topic in self._robot.topics():
            self._listen(topic.name, topic.message_type, topic.name, topic.handle, topic.profile)
        self._listen("action_sequence", ActionSequence, "action_sequence", self._on_plan, qos.commands())
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
