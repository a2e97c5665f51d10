"""The recorder over real DDS, and its files read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from rosbags.interfaces import QosDurability, QosReliability
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from astra_ros.data.bag import BagReader, BagWriter
from astra_ros.msg import PredictedFuture
from astra_ros.ros.bag_recorder import Arrival, BagRecorder, subscription_qos
from tests.bag.conftest import Ros

BEST_EFFORT = QoSProfile(depth=50, reliability=QoSReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)


def test_what_was_published_is_in_the_file(ros: Ros, tmp_path: Path) -> None:
    robot = ros.node("robot")
    camera = robot.create_publisher(Image, "/image", BEST_EFFORT)
    joints = robot.create_publisher(JointState, "/joint_states", 50)
    map_name = robot.create_publisher(String, "/map_name", LATCHED)
    map_name.publish(String(data="hall"))  # before anybody listens
    arrivals: list[Arrival] = []
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(
            ros.node("recorder"), writer, ("/image", "joint_states", "/map_name"), on_arrival=arrivals.append
        )
        ros.spin_until(lambda: camera.get_subscription_count() == joints.get_subscription_count() == 1)
        images = [Image(height=1, width=1, step=3, data=[i, i, i]) for i in range(5)]
        states = [JointState(name=["a"], position=[float(i)]) for i in range(9)]
        for image in images:
            camera.publish(image)
        for state in states:
            joints.publish(state)
        ros.spin_until(lambda: len(arrivals) == 15)
        assert recorder.missing() == []
    with BagReader(tmp_path / "bag") as bag:
        by_topic = {topic: [bag.deserialize(m) for m in bag.messages([topic])] for topic in bag.topics}
        qos = {topic.name: topic.qos[0] for topic in bag.topics.values()}
    assert [list(image.data) for image in by_topic["/image"]] == [[i, i, i] for i in range(5)]
    assert [state.position[0] for state in by_topic["/joint_states"]] == list(range(9))
    assert [name.data for name in by_topic["/map_name"]] == ["hall"]
    assert qos["/image"].reliability is QosReliability.BEST_EFFORT
    assert qos["/joint_states"].reliability is QosReliability.RELIABLE
    assert qos["/map_name"].durability is QosDurability.TRANSIENT_LOCAL
    assert all(0 < arrival.sent_ns <= arrival.received_ns for arrival in arrivals)


def test_topics_are_found_while_recording(ros: Ros, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(ros.node("recorder"), writer, ("/late", "/never"))
        assert recorder.missing() == ["/late", "/never"]
        late = ros.node("robot").create_publisher(String, "/late", 10)
        ros.spin_until(lambda: late.get_subscription_count() == 1)
        late.publish(String(data="x"))
        ros.spin_until(lambda: recorder.missing() == ["/never"])


def test_types_choose_topics(ros: Ros, tmp_path: Path) -> None:
    robot = ros.node("robot")
    for name in ("/left", "/right"):
        robot.create_publisher(Image, name, 10)
    robot.create_publisher(String, "/other", 10)
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(ros.node("recorder"), writer, types=("sensor_msgs/msg/Image",))
        ros.spin_until(lambda: set(recorder.tallies) == {"/left", "/right"})


def test_one_best_effort_publisher_makes_the_subscription_best_effort(ros: Ros, tmp_path: Path) -> None:
    robot = ros.node("robot")
    publishers = [robot.create_publisher(String, "/both", qos) for qos in (BEST_EFFORT, QoSProfile(depth=50))]
    ros.spin_until(lambda: len(robot.get_publishers_info_by_topic("/both")) == 2)
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(ros.node("recorder"), writer, ("/both",))
        ros.spin_until(lambda: all(publisher.get_subscription_count() == 1 for publisher in publishers))
        for publisher in publishers:
            publisher.publish(String(data="x"))
        ros.spin_until(lambda: recorder.tallies["/both"].messages == 2)


def test_a_best_effort_publisher_that_comes_later_is_heard_too(ros: Ros, tmp_path: Path) -> None:
    robot = ros.node("robot")
    latched = QoSProfile(depth=50, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    arm = robot.create_publisher(String, "/both", latched)
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(ros.node("recorder"), writer, ("/both",))
        arm.publish(String(data="arm"))
        ros.spin_until(lambda: not recorder.missing())
        late = QoSProfile(
            depth=50,
            reliability=QoSReliabilityPolicy.BEST_EFFORT,
            durability=QoSDurabilityPolicy.TRANSIENT_LOCAL,
        )
        gripper = robot.create_publisher(String, "/both", late)
        ros.spin_until(lambda: gripper.get_subscription_count() == arm.get_subscription_count() == 1)
        for publisher in (gripper, arm):
            publisher.publish(String(data="later"))
        ros.spin_until(lambda: recorder.tallies["/both"].messages >= 3)
        for _ in range(5):
            ros.executor.spin_once(timeout_sec=0.1)
    with BagReader(tmp_path / "bag") as bag:
        assert [bag.deserialize(one).data for one in bag.messages()] == ["arm", "later", "later"]


def test_all_topics_are_those_that_are_not_hidden(ros: Ros, tmp_path: Path) -> None:
    robot = ros.node("robot")
    for name in ("/seen", "/move/_action/feedback", "/_hidden"):
        robot.create_publisher(String, name, 10)
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(ros.node("recorder"), writer)
        ros.spin_until(lambda: "/seen" in recorder.tallies)
        ros.spin_until(lambda: len(robot.get_publishers_info_by_topic("/_hidden")) == 1)
        recorder._discover()
        assert not [topic for topic in recorder.tallies if "/_" in topic]


def test_the_preview_of_a_world_model_is_no_camera(ros: Ros, tmp_path: Path) -> None:
    model = ros.node("model")
    model.create_publisher(PredictedFuture, "/model/predicted_future", 10)
    for topic in ("/model/preview/image", "/other/preview/image"):
        model.create_publisher(Image, topic, 10)
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(ros.node("recorder"), writer, types=("sensor_msgs/msg/Image",))
        ros.spin_until(lambda: bool(recorder.tallies))
        assert set(recorder.tallies) == {"/other/preview/image"}


def test_an_unknown_publisher_is_served_whatever_it_offers() -> None:
    qos = subscription_qos([])
    assert (qos.reliability, qos.durability) == (
        QoSReliabilityPolicy.BEST_EFFORT,
        QoSDurabilityPolicy.VOLATILE,
    )


def test_rates_are_told(ros: Ros, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher = ros.node("robot").create_publisher(String, "/ticks", 10)
    with BagWriter(tmp_path / "bag") as writer:
        recorder = BagRecorder(ros.node("recorder"), writer, ("/ticks",))
        ros.spin_until(lambda: publisher.get_subscription_count() == 1)
        tally = recorder.tallies["/ticks"]
        for number, now_s in enumerate((100.0, 100.1, 100.2), 1):
            publisher.publish(String(data="four"))
            with monkeypatch.context() as patch:
                patch.setattr("astra_ros.ros.bag_recorder.time.monotonic", lambda now_s=now_s: now_s)
                recorder._receive(Arrival("/ticks", "std_msgs/msg/String", b"\0" * 13, 1, 2))
            assert tally.messages == number
    assert tally.rate_hz == pytest.approx(10)
    assert tally.bytes == 39
