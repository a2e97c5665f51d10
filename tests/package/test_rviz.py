"""The shipped .rviz: rviz itself comes from no registry, so its classes, topics and QoS are checked one by one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2")
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible

from tests.package.launch_file import evaluate, start
from tests.package.ros_client import RosClient

CONFIG = yaml.safe_load((Path(__file__).resolve().parents[2] / "config" / "world_model.rviz").read_text())
IMAGE = "rviz_default_plugins/Image"
CLASSES = {
    "",  # the root group
    "rviz_common/Displays",
    "rviz_common/Time",
    "rviz_default_plugins/MoveCamera",
    "rviz_default_plugins/Orbit",
    "rviz_default_plugins/TF",
    IMAGE,
}


def nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of the configuration."""
    if isinstance(tree, dict):
        yield tree
    for child in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from nodes(child)


DISPLAYS = [node for node in nodes(CONFIG["Visualization Manager"]["Displays"]) if "Topic" in node]


def test_classes_are_rviz_s_own() -> None:
    assert {node["Class"] for node in nodes(CONFIG) if "Class" in node} == CLASSES


def test_shows_the_preview() -> None:
    assert [(display["Class"], display["Topic"]["Value"]) for display in DISPLAYS] == [
        (IMAGE, "/world_model/preview/image")
    ]


@pytest.fixture
def configured_node(ros_client: RosClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AMENT_PREFIX_PATH", sys.prefix)
    (node,) = evaluate()["nodes"]
    process = start(node, tmp_path)
    configure = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert ros_client.call(ChangeState, "/world_model/change_state", configure).success
    yield
    process.kill()
    process.wait()


@pytest.mark.usefixtures("configured_node")
@pytest.mark.parametrize(
    "topic", [display["Topic"] for display in DISPLAYS], ids=lambda topic: topic["Value"]
)
def test_node_publishes_what_is_shown(topic: dict[str, Any], ros_client: RosClient) -> None:
    (publisher,) = ros_client.spin_until(lambda: ros_client.node.get_publishers_info_by_topic(topic["Value"]))
    assert publisher.topic_type == "sensor_msgs/msg/Image"
    wanted = QoSProfile(
        depth=topic["Depth"],
        reliability=ReliabilityPolicy[topic["Reliability Policy"].upper().replace(" ", "_")],
        durability=DurabilityPolicy[topic["Durability Policy"].upper().replace(" ", "_")],
    )
    # A warning is what unknown history depths give; an error is an image that never arrives.
    assert qos_check_compatible(publisher.qos_profile, wanted)[0] != QoSCompatibility.ERROR
