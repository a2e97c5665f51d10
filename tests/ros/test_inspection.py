"""What the doctor sees of a topic that several nodes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

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
    doctor.create_timer(0.1, lambda: publisher.publish(Image()))
    yield doctor
    for node in (left, right, camera, doctor):
        node.destroy_node()


@pytest.mark.parametrize(("name", "is_heard"), [("/left/world_model", True), ("/right/world_model", False)])
def test_it_tells_a_node_from_its_namesake(doctor: Node, name: str, is_heard: bool) -> None:
    inspector = _Inspector(doctor, name)
    inspector._listen(TOPIC, TYPE)
    assert inspector._spin_until(lambda: inspector._facts(TOPIC, TYPE).messages > 0, 20.0)
    facts = inspector._facts(TOPIC, TYPE)
    assert (facts.incompatible == "") is is_heard
    assert facts.node.startswith(f"{name} ")
    assert ", /" not in facts.node
