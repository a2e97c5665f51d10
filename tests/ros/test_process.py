"""The node as a process of its own, and a client that knows nothing of this repository but the interfaces."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action.client import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import Trigger

from astra_ros.action import PredictFutures
from astra_ros.msg import PredictedFuture
from tests.ros.rig import HORIZON, SENSOR, action_sequence, image, joint_state

START = "from astra_ros.ros.{} import main; main()"
TIMEOUT_S = 60.0


@pytest.fixture
def client() -> Iterator[Node]:
    node = rclpy.create_node("planner")
    yield node
    node.destroy_node()


def start_node(*ros_args: str, module: str = "node") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", START.format(module), "--ros-args", *ros_args]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
    return process.returncode, errors


def wait_for(executor: SingleThreadedExecutor, future: Any) -> Any:
    executor.spin_until_future_complete(future, timeout_sec=TIMEOUT_S)
    assert future.done()
    return future.result()


def change_state(executor: SingleThreadedExecutor, client: Node, *transitions: int) -> None:
    service = client.create_client(ChangeState, "world_model/change_state")
    assert service.wait_for_service(TIMEOUT_S)
    for transition in transitions:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert wait_for(executor, service.call_async(request)).success


def first_prediction(executor: SingleThreadedExecutor, client: Node) -> PredictedFuture:
    """Of the node, which is brought up and has an observation ten times a second from then on."""
    received = rclpy.task.Future()
    client.create_subscription(PredictedFuture, "world_model/predicted_future", received.set_result, SENSOR)
    camera = client.create_publisher(image(0).__class__, "image", SENSOR)
    joints = client.create_publisher(joint_state(0).__class__, "joint_states", SENSOR)

    def observe() -> None:
        stamp_ns = client.get_clock().now().nanoseconds
        joints.publish(joint_state(stamp_ns))
        camera.publish(image(stamp_ns))

    change_state(executor, client, Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    client.create_timer(0.1, observe)
    future: PredictedFuture = wait_for(executor, received)
    return future


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_client_receives_futures_and_the_node_ends_cleanly(
    client: Node, untrained_bundle: Path, number: signal.Signals
) -> None:
    process = start_node(
        "-p", f"bundle:={untrained_bundle}", "-p", "max_observation_age_s:=30.0", "-p", "sync_slop_s:=5.0"
    )
    executor = SingleThreadedExecutor()
    executor.add_node(client)
    try:
        assert len(first_prediction(executor, client).compressed_frames) == HORIZON
    finally:
        # While pictures keep coming: the worker is busy when the signal arrives.
        code, errors = finish(process, number)
        executor.shutdown()
    assert code == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_unconfigured_node_ends_cleanly(client: Node, number: signal.Signals) -> None:
    process = start_node()
    try:
        assert client.create_client(ChangeState, "world_model/change_state").wait_for_service(TIMEOUT_S)
    finally:
        code, errors = finish(process, number)
    assert code == 0, errors
    assert "Traceback" not in errors


def test_a_signal_ends_a_planner_that_waits_for_a_world_model(client: Node) -> None:
    process = start_node("-r", "__node:=hopeful", module="planner")
    executor = SingleThreadedExecutor()
    executor.add_node(client)
    try:
        service = client.create_client(Trigger, "hopeful/plan")
        assert service.wait_for_service(TIMEOUT_S)
        asked = service.call_async(Trigger.Request())
        executor.spin_until_future_complete(asked, timeout_sec=1.0)
        assert not asked.done()
        since_s = time.monotonic()
    finally:
        code, errors = finish(process, signal.SIGINT)
        executor.shutdown()
    assert code == 0, errors
    assert "Traceback" not in errors
    assert time.monotonic() - since_s < 5  # it would wait for ten


def test_a_signal_during_configure_ends_the_node_cleanly(client: Node, untrained_bundle: Path) -> None:
    process = start_node("-p", f"bundle:={untrained_bundle}", "-p", "prepare_candidates:=true")
    assert process.stderr
    try:
        service = client.create_client(ChangeState, "world_model/change_state")
        assert service.wait_for_service(TIMEOUT_S)
        transition = Transition(id=Transition.TRANSITION_CONFIGURE)
        service.call_async(ChangeState.Request(transition=transition))
        while "backend" not in process.stderr.readline():  # the candidates' graphs come next
            assert process.poll() is None
    finally:
        code, errors = finish(process, signal.SIGTERM)
    assert code == 0, errors
    assert "Traceback" not in errors


SIGNALLED = """
import os, signal, time, rclpy
from astra_ros.ros import diagnostics, node
publish = diagnostics.Diagnostics.publish
def late(self):
    os.kill(os.getpid(), signal.SIGTERM)
    while rclpy.ok():
        time.sleep(0.01)
    publish(self)
diagnostics.Diagnostics.publish = late
node.main()
"""


def test_a_signal_while_a_callback_publishes_ends_the_node_cleanly() -> None:
    process = subprocess.run(
        [sys.executable, "-c", SIGNALLED], check=False, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    )
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr


SIGNALLED_AMID_A_QUESTION = """
import os, signal, time, rclpy
from astra_ros.ros import node, services
feedback = services.feedback
def late(progress):
    os.kill(os.getpid(), signal.SIGINT)
    while rclpy.ok():
        time.sleep(0.01)
    return feedback(progress)
services.feedback = late
node.main()
"""


def test_a_signal_before_feedback_is_published_ends_the_node_cleanly(
    client: Node, untrained_bundle: Path
) -> None:
    words = ["--ros-args", "-p", f"bundle:={untrained_bundle}", "-p", "max_observation_age_s:=30.0"]
    words += ["-p", "sync_slop_s:=5.0", "-p", "backend:=onnxruntime"]
    command = [sys.executable, "-c", SIGNALLED_AMID_A_QUESTION, *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    executor = SingleThreadedExecutor()
    executor.add_node(client)
    action = ActionClient(client, PredictFutures, "world_model/predict_futures")
    try:
        first_prediction(executor, client)
        action.wait_for_server(TIMEOUT_S)
        wait_for(executor, action.send_goal_async(PredictFutures.Goal(candidates=[action_sequence()])))
        _, errors = process.communicate(timeout=TIMEOUT_S)
    finally:
        process.kill()
        action.destroy()
        executor.shutdown()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_a_parameter_of_the_wrong_type_ends_with_one_line() -> None:
    process = start_node("-p", "horizon:=soon")
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "horizon" in errors
    assert "Traceback" not in errors


def test_the_node_imports_no_torch() -> None:
    command = "import sys, astra_ros.ros.node; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False, timeout=TIMEOUT_S).returncode == 0
