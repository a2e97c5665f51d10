"""world_model.launch.py run for real: the nodes that it describes, and where there is `ros2 launch`, by that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.utilities import get_rmw_implementation_identifier

from astra_ros.msg import PredictedFuture
from tests.package.launch_file import LAUNCH_FILE, evaluate, start
from tests.package.ros_client import TIMEOUT_S, RosClient


@pytest.fixture
def demo(
    ros_domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """The processes of the demo by their names, in the namespace `robot`."""
    monkeypatch.setenv("AMENT_PREFIX_PATH", sys.prefix)
    nodes = evaluate(demo="true", rviz="false", namespace="robot")["nodes"]
    processes = {node["name"]: start(node, tmp_path) for node in nodes}
    yield processes
    for process in processes.values():
        process.kill()
        process.wait()


def test_demo_predicts_for_the_recorded_plan_and_ends_well(
    demo: dict[str, subprocess.Popen[str]], ros_client: RosClient
) -> None:
    received: list[Any] = []
    topic = "/robot/world_model/predicted_future"
    ros_client.node.create_subscription(PredictedFuture, topic, received.append, 1)
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert ros_client.call(ChangeState, "/robot/world_model/change_state", request).success
    ros_client.spin_until(
        lambda: any(not future.flags & PredictedFuture.FLAG_HOLD_STILL for future in received)
    )
    for process in demo.values():
        process.send_signal(signal.SIGINT)
    assert {name: process.wait(TIMEOUT_S) for name, process in demo.items()} == {
        "world_model": 0,
        "bag_player": 0,
    }


MAKE_A_NODE = """
import pathlib, rclpy
before = set(pathlib.Path("/dev/shm").iterdir())
rclpy.init()
node = rclpy.create_node("publisher")
print(max(path.stat().st_size for path in set(pathlib.Path("/dev/shm").iterdir()) - before))
"""


def test_shipped_fast_dds_profile_makes_room_for_large_images(
    ros_domain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if get_rmw_implementation_identifier() != "rmw_fastrtps_cpp":
        pytest.skip("the profile is Fast DDS's, and another middleware is in use")
    monkeypatch.setenv("AMENT_PREFIX_PATH", sys.prefix)
    (node,) = evaluate()["nodes"]
    env = {**os.environ, **dict(node["env_vars"])}
    made = subprocess.run(
        [sys.executable, "-c", MAKE_A_NODE], env=env, check=True, capture_output=True, text=True
    )
    assert int(made.stdout) > 16 * 2**20


INCLUDED = """<launch><group>
  <push-ros-namespace namespace="{pushed}"/>
  <include file="{file}">
    <arg name="namespace" value="launched"/><arg name="num_threads" value="1"/><arg name="horizon" value="8"/>
  </include>
</group></launch>
"""


@pytest.mark.skipif(
    find_spec("ros2launch") is None, reason="needs `ros2 launch`: source a ROS 2 installation"
)
@pytest.mark.parametrize("pushed", ["", "fleet"])
def test_ros2_launch_brings_the_node_to_active(pushed: str, ros_client: RosClient, tmp_path: Path) -> None:
    path = tmp_path / "fleet.launch.xml"
    path.write_text(INCLUDED.format(pushed=pushed, file=LAUNCH_FILE))
    launch = subprocess.Popen(["ros2", "launch", path])
    name = str(Path("/", pushed, "launched", "world_model"))

    def is_active() -> bool:
        state = ros_client.call(GetState, f"{name}/get_state", GetState.Request())
        return bool(state.current_state.id == State.PRIMARY_STATE_ACTIVE)

    try:
        ros_client.spin_until(is_active)
    finally:
        launch.send_signal(signal.SIGINT)  # SIGTERM would leave the nodes running
        assert launch.wait(TIMEOUT_S) == 0
