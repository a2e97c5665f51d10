"""What the doctor sees of a topic that several nodes share."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from threading import Event

import pytest
import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from astra_ros.ros.gates import CAMERA
from astra_ros.ros.inspection import _Inspector

BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
TOPIC, TYPE = "/image", "sensor_msgs/msg/Image"


@pytest.fixture
def doctor() -> Iterator[Node]:
    """Beside two robots' nodes, of which only the left one can hear the camera."""
    left, right = (Node("world_model", namespace=name) for name in ("left", "right"))
    camera, doctor = Node("camera"), Node("doctor")
    left.create_subscription(Image, TOPIC, lambda _: None, BEST_EFFORT)
    right.create_subscription(Image, TOPIC, lambda _: None, RELIABLE)
    publisher = camera.create_publisher(Image, TOPIC, BEST_EFFORT)
    left.create_publisher(Image, "~/preview/image", RELIABLE)
    doctor.create_timer(0.1, lambda: publisher.publish(Image()))
    yield doctor
    for node in (left, right, camera, doctor):
        node.destroy_node()


@pytest.mark.parametrize(("name", "is_heard"), [("/left/world_model", True), ("/right/world_model", False)])
def test_it_tells_a_node_from_its_namesake(doctor: Node, name: str, is_heard: bool) -> None:
    inspector = _Inspector(doctor, name, Event())
    inspector._listen(TOPIC, TYPE)
    assert inspector._spin_until(lambda: inspector._facts(TOPIC, TYPE).messages > 0, 20.0)
    facts = inspector._facts(TOPIC, TYPE)
    assert (facts.incompatible == "") is is_heard
    assert facts.node.startswith(f"{name} ")
    assert ", /" not in facts.node


def test_a_publisher_of_another_type_is_named(doctor: Node) -> None:
    """ROS matches none, and says nothing."""
    robot = Node("world_model", namespace="rover")
    robot.create_subscription(TwistStamped, "/cmd_vel", lambda _: None, BEST_EFFORT)
    elsewhere = rclpy.Context()  # in one process DDS refuses the second type
    rclpy.init(context=elsewhere, domain_id=rclpy.get_default_context().get_domain_id())
    teleop = Node("teleop", context=elsewhere)
    teleop.create_publisher(Twist, "/cmd_vel", BEST_EFFORT)
    inspector = _Inspector(doctor, "/rover/world_model", Event())
    kind = "geometry_msgs/msg/TwistStamped"
    inspector._listen("/cmd_vel", kind)
    assert inspector._spin_until(lambda: inspector._facts("/cmd_vel", kind).node != "", 20.0)
    assert inspector._spin_until(lambda: inspector._facts("/cmd_vel", kind).incompatible != "", 20.0)
    facts = inspector._facts("/cmd_vel", kind)
    assert (
        "sends geometry_msgs/msg/Twist, and the node takes geometry_msgs/msg/TwistStamped"
        in facts.incompatible
    )
    assert facts.other_types == ("geometry_msgs/msg/Twist",)
    for node in (robot, teleop):
        node.destroy_node()
    rclpy.shutdown(context=elsewhere)


@pytest.mark.parametrize(
    ("name", "previews"),
    [("/left/world_model", set[str]()), ("/right/world_model", {"/left/world_model/preview/image"})],
)
def test_a_node_is_not_its_own_camera(doctor: Node, name: str, previews: set[str]) -> None:
    inspector = _Inspector(doctor, name, Event())
    assert inspector._spin_until(lambda: set(inspector._topics_of(CAMERA)) == {TOPIC, *previews}, 20.0)
    assert inspector._spin_until(
        lambda: doctor.count_publishers("/left/world_model/preview/image") == 1, 20.0
    )
    assert set(inspector._topics_of(CAMERA)) == {TOPIC, *previews}


def test_ctrl_c_ends_a_long_look(doctor: Node) -> None:
    words = [
        sys.executable,
        "-m",
        "astra_ros.cli.main",
        "doctor",
        "--node",
        "left/world_model",
        "--seconds",
        "600",
    ]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        deadline_s = time.monotonic() + 60.0
        while "astra_doctor" not in doctor.get_node_names():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 130
        assert process.communicate()[1] == ""
    finally:
        process.kill()
