"""Plays a recording onto its topics, as the robot did.

Three ways of dealing with time:

* stamps as recorded and nothing else: for nodes that never compare a stamp with their clock;
* `clock_hz`: stamps as recorded, and /clock with the recording's time for nodes with use_sim_time. Each lap of `loop`
  makes that time jump back to the start; the world model then clears its history;
* `restamp`, for nodes on the system's clock: the stamp of every std_msgs/Header, nested ones included, becomes
  `system time at the lap's start + (stamp - start of the recording)`. That is one mapping for all topics, so
  their stamps keep their distances; laps of `loop` go on forwards. Zero stamps stay zero. At rate 1 only: durations inside
  messages, such as the steps of a plan, would not follow another.

Publishers are reliable, which serves reliable and best-effort subscribers alike, and latched where the recorded
publishers were.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.interfaces import Qos, QosDurability
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from astra_ros.data.bag import BagError, BagReader, RecordedMessage, RecordedTopic
from astra_ros.data.playback import Lap, PlaybackConfig, PlaybackProgress
from astra_ros.ros.conversions import to_image, to_rgb
from astra_ros.ros.message_types import UnknownMessageTypeError, message_class, restamp, stamp_ns
from astra_ros.ros.refusal import Refusal
from astra_ros.ros.session import ros_session
from astra_ros.ros.stamps import to_time
from astra_ros.types import NANOSECONDS

CLOCK_TOPIC = "/clock"
_DEFAULT_DEPTH = 10
_PROGRESS_PERIOD_S = 0.5
_MOST_APART_S = 60.0
_LONGEST_CONFIRMATION_S = 2.0  # of the last messages; a subscriber may hang
_COMPRESSED = "sensor_msgs/msg/CompressedImage"


class BagPlayer:
    """Plays one recording through a node's publishers. A context manager: opens the recording, announces the topics.

    `play` blocks its thread; no executor is needed. Raises BagError for a recording that has nothing to play, ValueError for a
    rate that restamping cannot have.
    """

    def __init__(self, node: Node, config: PlaybackConfig, stop: threading.Event) -> None:
        """stop: set it, from any thread, to end `play`."""
        if config.restamp and config.rate != 1:
            raise ValueError(
                f"rate: expected 1 with restamp, found {config.rate:g}, which the durations in recorded plans would not follow;"
                " simulate time: use_sim_time:=true (ros2 launch), or --clock 100 instead of --restamp (astra replay)"
            )
        self._node, self._config, self._stop = node, config, stop
        self._messages, self._laps = 0, 0
        self._clock = node.create_publisher(Clock, CLOCK_TOPIC, _DEFAULT_DEPTH) if config.clock_hz else None
        self._publishers: dict[str, Publisher] = {}
        self._bag = BagReader(config.bag)
        self.lap = Lap.begin(0, config.rate)

    def __enter__(self) -> BagPlayer:
        with ExitStack() as on_error:
            on_error.enter_context(self._bag)
            self._span_ns = self._span(self._bag)
            for topic in self._wanted(self._bag):
                self._add_publisher(topic)
            if not self._publishers:
                raise BagError(f"{self._bag.path}: none of its topics can be played")
            if self._config.restamp or self._clock:
                self._require_the_recorders_clock()
            on_error.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bag.__exit__(kind, error, trace)

    def play(self, on_progress: Callable[[PlaybackProgress], None] | None = None) -> PlaybackProgress:
        """Play to the end or until stopped."""
        report = on_progress or (lambda progress: None)
        self._wait_for_subscribers()
        progress = self._play_lap(report)
        while self._config.loop and not self._stop.is_set():
            progress = self._play_lap(report)
        self._wait_until_received()
        return progress

    def subscriber_counts(self) -> dict[str, int]:
        """Matched subscriptions by recorded topic."""
        return {topic: publisher.get_subscription_count() for topic, publisher in self._publishers.items()}

    def _span(self, bag: BagReader) -> tuple[int, int]:
        """First stamp to play, and the first not to."""
        start_ns = bag.start_ns + round(self._config.start_s * NANOSECONDS)
        end_ns = bag.end_ns + 1
        if start_ns >= end_ns:
            length_s = (bag.end_ns - bag.start_ns) / NANOSECONDS
            raise BagError(
                f"start_s: expected less than the {length_s:.1f} s of {bag.path}, found {self._config.start_s:g}"
            )
        if self._config.duration_s:
            end_ns = min(end_ns, start_ns + round(self._config.duration_s * NANOSECONDS))
        return start_ns, end_ns

    def _wanted(self, bag: BagReader) -> list[RecordedTopic]:
        wanted = set(self._config.topics or bag.topics)
        if missing := wanted - set(bag.topics):
            known = ", ".join(sorted(bag.topics))
            raise BagError(
                f"topics: {sorted(missing)[0]} was not recorded in {bag.path}; expected some of {known}"
            )
        if self._clock:
            wanted.discard(CLOCK_TOPIC)  # two clocks would contradict each other
        return [bag.topics[name] for name in sorted(wanted)]

    def _require_the_recorders_clock(self) -> None:
        """Stamps of a simulator's clock, beside times of reception on the system's, have no place on either of ours."""
        flowing = [name for name in self._publishers if not _is_latched(self._bag.topics[name].qos)]
        for message in self._bag.messages(flowing, *self._span_ns) if flowing else ():
            if stamped_ns := stamp_ns(message.type, message.raw):
                break
        else:
            return
        if abs(apart_s := (stamped_ns - message.stamp_ns) / NANOSECONDS) > _MOST_APART_S:
            raise BagError(
                f"{self._bag.path}: {message.topic}: expected stamps within {_MOST_APART_S:g} s of their reception, found one"
                f" {abs(apart_s):.0f} s {'after' if apart_s > 0 else 'before'} it, of a simulator's clock; record /clock too, and replay it"
                " as it is (astra replay without --clock and --restamp) for nodes with use_sim_time:=true"
            )

    def _add_publisher(self, topic: RecordedTopic) -> None:
        qos = playback_qos(topic.qos)
        try:
            if self._decompresses(topic.type):
                publisher = self._node.create_publisher(Image, topic.name.removesuffix("/compressed"), qos)
            else:
                publisher = self._node.create_publisher(message_class(topic.type), topic.name, qos)
            self._publishers[topic.name] = publisher
        except UnknownMessageTypeError as error:
            self._node.get_logger().warning(f"{topic.name} is not played: {error}")

    def _decompresses(self, type_name: str) -> bool:
        return self._config.decompress and type_name == _COMPRESSED

    def _wait_for_subscribers(self) -> None:
        deadline_s = time.monotonic() + self._config.wait_s
        while time.monotonic() < deadline_s and not self._stop.is_set():
            if all(self.subscriber_counts().values()):
                return
            self._stop.wait(0.02)

    def _wait_until_received(self) -> None:
        """A publisher that goes takes along what a subscriber has not confirmed yet."""
        if not self._stop.is_set():
            deadline_s = time.monotonic() + _LONGEST_CONFIRMATION_S
            for publisher in self._publishers.values():
                left_s = max(0.0, deadline_s - time.monotonic())
                publisher.wait_for_all_acked(Duration(nanoseconds=round(left_s * NANOSECONDS)))

    def _play_lap(self, report: Callable[[PlaybackProgress], None]) -> PlaybackProgress:
        self._laps += 1
        self.lap = lap = Lap.begin(self._span_ns[0], self._config.rate)
        reported_s = lap.monotonic_s
        for message in self._bag.messages(self._publishers, *self._span_ns):
            if not self._wait_until(lap, message.stamp_ns):
                break
            self._publish(message, lap)
            if time.monotonic() - reported_s >= _PROGRESS_PERIOD_S:
                reported_s = time.monotonic()
                report(self._progress(lap))
        report(progress := self._progress(lap))
        return progress

    def _progress(self, lap: Lap) -> PlaybackProgress:
        total_s = (self._span_ns[1] - lap.start_ns) / NANOSECONDS
        seconds = min(total_s, (lap.now_ns() - lap.start_ns) / NANOSECONDS)
        return PlaybackProgress(seconds, total_s, self._messages, self._laps)

    def _wait_until(self, lap: Lap, bag_ns: int) -> bool:
        """Sleep until a message is due while /clock ticks. False when playing is to stop."""
        while not self._stop.is_set():
            wait_s = lap.due_s(bag_ns) - time.monotonic()
            if wait_s <= 0:
                self._tick(bag_ns)  # so that no message is ahead of the clock
                return True
            self._tick(lap.now_ns())
            self._stop.wait(min(wait_s, 1 / self._config.clock_hz) if self._clock else wait_s)
        return False

    def _tick(self, bag_ns: int) -> None:
        if self._clock:
            self._clock.publish(Clock(clock=to_time(bag_ns)))

    def _publish(self, message: RecordedMessage, lap: Lap) -> None:
        raw = restamp(message.type, message.raw, lap.to_system_ns) if self._config.restamp else message.raw
        try:
            content = _raw_image(raw) if self._decompresses(message.type) else raw
        except Refusal as error:
            self._node.get_logger().warning(f"{message.topic}: {error}", throttle_duration_sec=5.0)
            return
        self._publishers[message.topic].publish(content)
        self._messages += 1


def play_bag(
    config: PlaybackConfig, ros_args: Sequence[str], on_progress: Callable[[PlaybackProgress], None]
) -> PlaybackProgress:
    """Play as a program of its own, until the end or Ctrl-C. ros_args: for example ("-r", "/camera:=/image")."""
    with (
        ros_session(["bag_player", "--ros-args", *ros_args]) as stop,
        BagPlayer(_make_node(), config, stop) as player,
    ):
        return player.play(on_progress)


def _make_node() -> Node:
    """Nobody spins it: services would not answer."""
    return rclpy.create_node("bag_player", start_parameter_services=False)


def _is_latched(recorded: Sequence[Qos]) -> bool:
    return any(profile.durability is QosDurability.TRANSIENT_LOCAL for profile in recorded)


def playback_qos(recorded: Sequence[Qos]) -> QoSProfile:
    """Reliable; latched when any recorded publisher was, and then deep enough for what all of them kept."""
    latched = _is_latched(recorded)
    depth = max(
        _DEFAULT_DEPTH, sum(max(1, profile.depth) for profile in recorded)
    )  # unknown depths are recorded as 0
    durability = QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE
    return QoSProfile(depth=depth, reliability=QoSReliabilityPolicy.RELIABLE, durability=durability)


def _raw_image(raw: bytes) -> Image:
    message = deserialize_message(raw, CompressedImage)
    return to_image(to_rgb(message), message.header)


def _config_from_parameters(node: Node) -> PlaybackConfig:
    values: dict[str, Any] = {}
    for field in fields(PlaybackConfig):
        default = "" if field.default is MISSING else [""] if field.default == () else field.default
        # rclpy refuses rate:=2 for a floating-point parameter that may not change its type.
        descriptor = ParameterDescriptor(
            description=field.metadata["description"],
            dynamic_typing=isinstance(default, float),
            read_only=True,
        )
        value = node.declare_parameter(field.name, default, descriptor).value
        values[field.name] = float(value) if isinstance(default, float) else value
    topics = tuple(name for name in values["topics"] if name)
    return PlaybackConfig(**{**values, "bag": Path(values["bag"]), "topics": topics})


def main(args: Sequence[str] | None = None) -> None:
    """The node `bag_player`: `ros2 run astra_ros bag_player --ros-args -p bag:=FOLDER -p loop:=true`."""
    with ros_session(sys.argv if args is None else args) as stop:
        node = _make_node()
        try:
            with BagPlayer(node, _config_from_parameters(node), stop) as player:
                player.play()
        except (ValueError, ParameterException) as error:
            node.get_logger().fatal(str(error))
            sys.exit(1)
