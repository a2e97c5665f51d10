"""Records topics as they come, without decoding them, into a rosbag2 folder.

Topics are found while recording, so it may be started before their publishers. Each subscription takes the best QoS
that every publisher of the topic can serve; when a publisher comes that cannot, it is made anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo
from rclpy.validate_topic_name import validate_topic_name
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from astra_ros.data.bag import BagError, BagWriter
from astra_ros.ros.message_types import UnknownMessageTypeError, message_class
from astra_ros.ros.session import ros_session
from astra_ros.types import NANOSECONDS

_DISCOVERY_PERIOD_S = 0.1
_SPIN_S = 0.1
_PROGRESS_PERIOD_S = 0.5
_DRAIN_S = 1.0
_PREDICTION = "astra_ros/msg/PredictedFuture"
_QUEUE_DEPTH = 100  # messages that may wait while a chunk is compressed
_MAX_TIME = QosTime(sec=9223372036, nsec=854775807)


@dataclass(frozen=True)
class Arrival:
    """One received message. sent_ns, received_ns: system clock at publishing and at reception (DDS)."""

    topic: str
    type: str
    raw: bytes
    sent_ns: int
    received_ns: int


@dataclass
class TopicTally:
    """What came on one topic."""

    type: str
    messages: int = 0
    bytes: int = 0
    first_s: float = 0.0
    last_s: float = 0.0

    @property
    def rate_hz(self) -> float:
        """Mean rate between the first and the last message; 0 before the second."""
        span_s = self.last_s - self.first_s
        return (self.messages - 1) / span_s if span_s > 0 else 0.0

    def add(self, num_bytes: int) -> None:
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self.messages += 1
        self.bytes += num_bytes


class BagRecorder:
    """Subscribes through a node and writes from its executor's thread, which is the only one to touch the writer.

    topics: names to record; all topics but hidden ones when both this and `types` are empty. types: record every topic of
    these types but the previews of world models.
    on_arrival: also told of every message, after it is written.
    """

    def __init__(
        self,
        node: Node,
        writer: BagWriter,
        topics: Sequence[str] = (),
        types: Sequence[str] = (),
        on_arrival: Callable[[Arrival], None] | None = None,
    ) -> None:
        self._node, self._writer, self._on_arrival = node, writer, on_arrival
        self._topics = frozenset(node.resolve_topic_name(topic) for topic in topics)
        self._types = frozenset(types)
        self._refused: set[str] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self.tallies: dict[str, TopicTally] = {}
        self._discover()
        self._timer = node.create_timer(_DISCOVERY_PERIOD_S, self._discover)

    def missing(self) -> list[str]:
        """Topics asked for by name of which no message came."""
        return sorted(topic for topic in self._topics if not self._count(topic))

    def drain(self, executor: Executor) -> None:
        """Look for no more topics and write what was already received, so that stopping loses nothing."""
        self._timer.cancel()  # what the executor does from here on is to take messages
        deadline_s, before = time.monotonic() + _DRAIN_S, -1
        while before != self._total() and time.monotonic() < deadline_s:
            before = self._total()
            executor.spin_once(timeout_sec=_SPIN_S)

    def _total(self) -> int:
        return sum(tally.messages for tally in self.tallies.values())

    def _count(self, topic: str) -> int:
        return self.tallies[topic].messages if topic in self.tallies else 0

    def _discover(self) -> None:
        found = dict(self._node.get_topic_names_and_types())
        for topic in found:
            if topic in self._refused or not self._is_wanted(topic, found):
                continue
            publishers = self._node.get_publishers_info_by_topic(topic)
            if topic in self._subscriptions:
                self._weaken(topic, publishers)
            elif publishers:
                # Not `found`: those who only listen may want another type.
                self._subscribe(topic, sorted({one.topic_type for one in publishers}), publishers)

    def _is_wanted(self, topic: str, found: Mapping[str, Sequence[str]]) -> bool:
        """found: types of all topics."""
        if topic in self._topics:
            return True
        if self._types:
            return not self._types.isdisjoint(found[topic]) and not _is_preview(topic, found)
        return not self._topics and not any(token.startswith("_") for token in topic.split("/"))

    def _subscribe(self, topic: str, types: Sequence[str], publishers: Sequence[TopicEndpointInfo]) -> None:
        type_name = types[0]
        try:
            if len(types) > 1:
                raise BagError(
                    f"it has several types ({', '.join(types)}); stop the publishers of all but one"
                )
            cls = message_class(type_name)
            self._writer.add_topic(topic, type_name, [_offered(p.qos_profile) for p in publishers])
        except (BagError, UnknownMessageTypeError) as error:
            self._refused.add(topic)
            self._node.get_logger().warning(f"{topic} is not recorded: {error}")
            return
        self.tallies[topic] = TopicTally(type_name)
        self._listen(topic, cls, subscription_qos(publishers))

    def _listen(self, topic: str, cls: Any, profile: QoSProfile) -> None:
        type_name = self.tallies[topic].type

        def receive(raw: bytes, info: dict[str, int]) -> None:  # rclpy counts the arguments
            self._receive(
                Arrival(topic, type_name, raw, info["source_timestamp"], info["received_timestamp"])
            )

        callback: Callable[..., None] = receive
        self._subscriptions[topic] = self._node.create_subscription(cls, topic, callback, profile, raw=True)

    def _weaken(self, topic: str, publishers: Sequence[TopicEndpointInfo]) -> None:
        """Where a publisher came that the subscription cannot hear; what is sent until the new one is matched is lost."""
        before = self._subscriptions[topic]
        profile = subscription_qos([*publishers, before])
        if _strength(profile) == _strength(before.qos_profile):
            return
        profile.durability = QoSDurabilityPolicy.VOLATILE  # what is latched was received before
        self._node.destroy_subscription(before)
        self._listen(topic, before.msg_type, profile)

    def _receive(self, arrival: Arrival) -> None:
        self._writer.write_raw(arrival.topic, arrival.type, arrival.raw, arrival.received_ns)
        self.tallies[arrival.topic].add(len(arrival.raw))
        if self._on_arrival:
            self._on_arrival(arrival)


@dataclass(frozen=True)
class RecorderConfig:
    """out: folder to create. topics, types: what to record, see BagRecorder. duration_s: 0 records until stopped."""

    out: Path
    topics: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    duration_s: float = 0.0


@dataclass(frozen=True)
class Recorded:
    """tallies: by topic. missing: topics asked for by name of which nothing came."""

    seconds: float
    tallies: dict[str, TopicTally]
    missing: list[str]


def record_bag(config: RecorderConfig, on_progress: Callable[[Recorded], None]) -> Recorded:
    """Record as a program of its own, for the duration or until Ctrl-C; the bag is whole either way.

    Raises ValueError for a name that is no topic's.
    """
    with ros_session() as stop:
        for topic in config.topics:
            validate_topic_name(topic)  # before there is a folder
        with BagWriter(config.out) as writer:
            node = rclpy.create_node("bag_recorder")
            recorder = BagRecorder(node, writer, config.topics, config.types)
            return _record(node, recorder, config.duration_s, stop, on_progress)


def _record(
    node: Node,
    recorder: BagRecorder,
    duration_s: float,
    stop: threading.Event,
    on_progress: Callable[[Recorded], None],
) -> Recorded:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    began_s, reported_s = time.monotonic(), time.monotonic()
    while not stop.is_set() and not 0 < duration_s <= time.monotonic() - began_s:
        executor.spin_once(timeout_sec=_SPIN_S)
        if time.monotonic() - reported_s >= _PROGRESS_PERIOD_S:
            reported_s = time.monotonic()
            on_progress(Recorded(reported_s - began_s, recorder.tallies, recorder.missing()))
    recorder.drain(executor)
    return Recorded(time.monotonic() - began_s, recorder.tallies, recorder.missing())


def _is_preview(topic: str, found: Mapping[str, Sequence[str]]) -> bool:
    """What a world model draws is no camera's."""
    node = topic.removesuffix("/preview/image")
    return _PREDICTION in found.get(f"{node}/predicted_future", ())


def subscription_qos(endpoints: Sequence[TopicEndpointInfo | Subscription]) -> QoSProfile:
    """The strongest profile that matches every publisher: one best-effort publisher makes it best effort.

    Best effort and volatile, which matches any, while there is no publisher. A subscription among them: no stronger than that.
    """
    profiles = [endpoint.qos_profile for endpoint in endpoints]
    reliable = bool(profiles) and all(
        profile.reliability is QoSReliabilityPolicy.RELIABLE for profile in profiles
    )
    latched = bool(profiles) and all(
        profile.durability is QoSDurabilityPolicy.TRANSIENT_LOCAL for profile in profiles
    )
    return QoSProfile(
        depth=_QUEUE_DEPTH,
        reliability=QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
    )


def _strength(profile: QoSProfile) -> tuple[QoSReliabilityPolicy, QoSDurabilityPolicy]:
    return profile.reliability, profile.durability


def _offered(profile: QoSProfile) -> Qos:
    """rclpy's profile as rosbag2 writes it."""
    known_history = (
        profile.history is QoSHistoryPolicy.KEEP_ALL or profile.history is QoSHistoryPolicy.KEEP_LAST
    )
    return Qos(
        history=QosHistory[profile.history.name] if known_history else QosHistory.UNKNOWN,
        depth=profile.depth,
        reliability=QosReliability[profile.reliability.name],
        durability=QosDurability[profile.durability.name],
        deadline=_time(profile.deadline.nanoseconds),
        lifespan=_time(profile.lifespan.nanoseconds),
        liveliness=QosLiveliness[profile.liveliness.name],
        liveliness_lease_duration=_time(profile.liveliness_lease_duration.nanoseconds),
        avoid_ros_namespace_conventions=profile.avoid_ros_namespace_conventions,
    )


def _time(nanoseconds: int) -> QosTime:
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    return QosTime(seconds, rest) if seconds < _MAX_TIME.sec else _MAX_TIME
