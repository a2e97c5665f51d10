"""The player over real DDS."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from astra_ros.data.bag import BagError, BagReader, BagWriter, message_type
from astra_ros.data.playback import Lap, PlaybackConfig, PlaybackProgress
from astra_ros.ros.bag_player import CLOCK_TOPIC, BagPlayer, playback_qos
from astra_ros.ros.conversions import to_rgb
from astra_ros.ros.message_types import message_class, stamp_ns
from astra_ros.ros.stamps import to_ns
from astra_ros.types import NANOSECONDS
from tests.bag.conftest import Ros
from tests.recordings import (
    CAMERA,
    JOINTS,
    PLAN,
    START_NS,
    action_sequence,
    joint_state,
    jpeg,
    picture,
    write_recording,
)

SECONDS = 1.0
TYPES = {
    CAMERA: "sensor_msgs/msg/CompressedImage",
    JOINTS: "sensor_msgs/msg/JointState",
    PLAN: "astra_ros/msg/ActionSequence",
}
NO_TIME = QosTime(0, 0)
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=NO_TIME,
    lifespan=NO_TIME,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=NO_TIME,
    avoid_ros_namespace_conventions=False,
)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "bag", SECONDS)


class Stage:
    """A player, and a subscriber that keeps what it gets as (topic, bytes) in the order of arrival."""

    def __init__(self, ros: Ros, config: PlaybackConfig) -> None:
        self.ros = ros
        self.received: list[tuple[str, bytes]] = []
        self.arrivals_s: list[float] = []
        self.stop = threading.Event()
        self._subscriber = ros.node("subscriber")
        self.player = BagPlayer(ros.node("player"), config, self.stop)

    def subscribe(self, topic: str, cls: Any, qos: QoSProfile | int = 1000) -> None:
        def receive(raw: bytes) -> None:
            self.received.append((topic, raw))
            self.arrivals_s.append(time.monotonic())

        self._subscriber.create_subscription(cls, topic, receive, qos, raw=True)

    def play(self, expected: int, laps: int = 1) -> PlaybackProgress:
        """Play; wait for so many messages of the recording, the clock's not counted; stop after so many laps."""

        def stop_when_done(progress: PlaybackProgress) -> None:
            if progress.lap >= laps and progress.seconds >= progress.total_s:
                self.stop.set()

        with self.player, ThreadPoolExecutor(1) as thread:
            playing = thread.submit(self.player.play, stop_when_done)
            self.ros.spin_until(playing.done)
            self.ros.spin_until(lambda: len(self.received) - len(self.raw(CLOCK_TOPIC)) >= expected)
            return playing.result()

    def raw(self, topic: str) -> list[bytes]:
        return [raw for name, raw in self.received if name == topic]


def _stage(ros: Ros, bag: Path, **options: Any) -> Stage:
    return Stage(ros, PlaybackConfig(bag=bag, wait_s=20.0, **options))


def _stamps(stage: Stage, topic: str) -> list[int]:
    return [stamp_ns(TYPES[topic], raw) or 0 for raw in stage.raw(topic)]


def _clock_ns(stage: Stage) -> list[int]:
    return [to_ns(deserialize_message(raw, Clock).clock) for raw in stage.raw(CLOCK_TOPIC)]


def test_every_message_arrives_as_it_was_recorded(ros: Ros, recording: Path) -> None:
    stage = _stage(ros, recording)
    for topic, type_name in TYPES.items():
        stage.subscribe(topic, message_class(type_name))
    progress = stage.play(expected=35)
    with BagReader(recording) as bag:
        recorded = [(m.topic, m.raw) for m in bag.messages()]
    for topic in TYPES:
        assert stage.raw(topic) == [raw for name, raw in recorded if name == topic]
    assert (progress.messages, progress.lap) == (35, 1)


def test_best_effort_subscribers_are_served_too(ros: Ros, recording: Path) -> None:
    stage = _stage(ros, recording, topics=(JOINTS,))
    qos = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    stage.subscribe(JOINTS, message_class(TYPES[JOINTS]), qos)
    assert stage.play(expected=20).messages == 20


@pytest.mark.parametrize("rate", [0.5, 4.0])
def test_rate(ros: Ros, recording: Path, rate: float) -> None:
    stage = _stage(ros, recording, rate=rate, topics=(JOINTS,))
    stage.subscribe(JOINTS, message_class(TYPES[JOINTS]))
    stage.play(expected=20)
    # 0.95 s between the first and the last message; never faster, and slower only by what a busy machine adds.
    assert 0.95 / rate - 0.1 < stage.arrivals_s[-1] - stage.arrivals_s[0] < 0.95 / rate + 2.0


def test_start_and_duration_choose_a_part(ros: Ros, recording: Path) -> None:
    stage = _stage(ros, recording, start_s=0.4, duration_s=0.2, topics=(JOINTS,))
    stage.subscribe(JOINTS, message_class(TYPES[JOINTS]))
    stage.play(expected=4)
    assert _stamps(stage, JOINTS) == [START_NS + ms * 1_000_000 for ms in (400, 450, 500, 550)]


def test_clock_tells_the_recordings_time_and_jumps_back_at_a_loop(ros: Ros, recording: Path) -> None:
    stage = _stage(ros, recording, rate=2.0, loop=True, clock_hz=50.0, topics=(JOINTS,))
    stage.subscribe(JOINTS, message_class(TYPES[JOINTS]))
    stage.subscribe(CLOCK_TOPIC, Clock)
    assert stage.play(expected=2 * 20, laps=2).lap == 2
    end_ns = START_NS + 950_000_000
    ros.spin_until(lambda: _clock_ns(stage).count(end_ns) >= 2)  # what is on two topics comes in any order
    times = _clock_ns(stage)
    backwards = [i for i in range(1, len(times)) if times[i] < times[i - 1]]
    assert len(backwards) == 1
    assert (min(times), max(times)) == (START_NS, end_ns)
    assert len(times) >= 2 * 20  # at least one with every message
    assert _stamps(stage, JOINTS)[:20] == _stamps(stage, JOINTS)[20:40]


def test_restamped_topics_keep_their_distances_and_follow_the_system_clock(ros: Ros, recording: Path) -> None:
    began_ns = time.time_ns()
    stage = _stage(ros, recording, loop=True, restamp=True, topics=(CAMERA, JOINTS))
    for topic in (CAMERA, JOINTS):
        stage.subscribe(topic, message_class(TYPES[topic]))
    stage.play(expected=2 * 30, laps=2)
    joints, images = _stamps(stage, JOINTS), _stamps(stage, CAMERA)
    assert began_ns < joints[0] < joints[-1] < time.time_ns()
    assert images[:10] == joints[:20:2]  # one mapping for all topics
    assert set(np.diff(joints[:20])) == {50_000_000}
    assert joints == sorted(joints)  # a lap goes on forwards


@pytest.mark.parametrize("options", [{"restamp": True}, {"clock_hz": 10.0}])
def test_a_simulators_stamps_are_not_put_on_another_clock(
    ros: Ros, tmp_path: Path, options: dict[str, Any]
) -> None:
    """The recorder tells receipt by the system's clock: mapped by that, all would be stale."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(CAMERA, jpeg(1000 * NANOSECONDS, picture(0, 64)), START_NS)
    with pytest.raises(
        BagError, match=r"camera.*: expected stamps within 60 s of their reception, found one \d+ s before it"
    ):
        _stage(ros, tmp_path / "bag", **options).player.__enter__()
    with _stage(ros, tmp_path / "bag").player:  # as it is
        pass


def test_what_was_latched_long_ago_says_nothing_of_the_clock(ros: Ros, tmp_path: Path) -> None:
    """A map of an hour ago, which the recorder was given first."""
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic(JOINTS, TYPES[JOINTS], [LATCHED])
        bag.write(JOINTS, joint_state(START_NS - 3600 * NANOSECONDS), START_NS)
        bag.write(CAMERA, jpeg(START_NS, picture(0, 64)), START_NS + 1)
    with _stage(ros, tmp_path / "bag", restamp=True).player:
        pass


def test_restamping_leaves_unset_stamps_unset(ros: Ros, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(PLAN, action_sequence(0), START_NS)
    stage = _stage(ros, tmp_path / "bag", restamp=True)
    stage.subscribe(PLAN, message_class(TYPES[PLAN]))
    stage.play(expected=1)
    assert _stamps(stage, PLAN) == [0]


def test_decompressed_pictures_come_on_the_base_topic(ros: Ros, recording: Path) -> None:
    stage = _stage(ros, recording, decompress=True, topics=(CAMERA,))
    stage.subscribe("/camera/image_raw", Image)
    stage.play(expected=10)
    first = deserialize_message(stage.raw("/camera/image_raw")[0], Image)
    assert (first.encoding, first.header.frame_id, to_ns(first.header.stamp)) == ("rgb8", "camera", START_NS)
    assert np.abs(to_rgb(first).astype(int) - picture(0, 64)).mean() < 5  # JPEG


def test_what_was_latched_reaches_those_who_come_later(ros: Ros, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/map_name", "std_msgs/msg/String", [LATCHED])
        bag.write("/map_name", message_type("std_msgs/msg/String")("hall"), START_NS)
    stage = Stage(ros, PlaybackConfig(bag=tmp_path / "bag"))
    with stage.player:
        stage.player.play()
        latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
        stage.subscribe("/map_name", message_class("std_msgs/msg/String"), latched)
        ros.spin_until(lambda: len(stage.received) == 1)


def test_latched_topics_keep_one_message_for_every_recorded_publisher() -> None:
    qos = playback_qos([LATCHED._replace(depth=0)] * 25)  # rosbag2 records an unknown depth as 0
    assert (qos.depth, qos.durability) == (25, QoSDurabilityPolicy.TRANSIENT_LOCAL)
    assert playback_qos([]).durability is QoSDurabilityPolicy.VOLATILE


def test_stop_ends_the_wait_for_the_next_message(ros: Ros, recording: Path) -> None:
    stage = Stage(ros, PlaybackConfig(bag=recording, rate=0.001))
    with stage.player, ThreadPoolExecutor(1) as thread:
        playing = thread.submit(stage.player.play)
        stage.stop.set()
        assert playing.result(timeout=10).seconds < SECONDS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topics": ("/nope",)}, r"topics: /nope was not recorded .*expected some of"),
        ({"start_s": 60.0}, r"start_s: expected less than the 0\.9 s .*found 60"),
    ],
)
def test_nothing_to_play_is_said(ros: Ros, recording: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BagError, match=message), Stage(ros, PlaybackConfig(bag=recording, **options)).player:
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0.0}, "rate: expected more than 0, found 0"),
        ({"rate": float("nan")}, "rate: expected more than 0, found nan"),
        ({"start_s": -1.0}, "start_s: expected 0 or more, found -1"),
        ({"restamp": True, "clock_hz": 10.0}, "expected one of them, found both"),
    ],
)
def test_impossible_playback_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlaybackConfig(bag=Path("any"), **options)


def test_restamping_at_another_speed_is_refused(ros: Ros, recording: Path) -> None:
    with pytest.raises(ValueError, match=r"rate: expected 1 with restamp, found 2.* use_sim_time:=true"):
        Stage(ros, PlaybackConfig(bag=recording, rate=2.0, restamp=True))


def test_a_lap_maps_times() -> None:
    lap = Lap(start_ns=1000, rate=2.0, system_ns=5_000_000_000, monotonic_s=7.0)
    assert lap.due_s(1000 + 3_000_000_000) == 8.5
    assert lap.to_system_ns(1000 + 3_000_000_000) == 6_500_000_000
