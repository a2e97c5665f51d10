"""The interfaces are what they were, and they reach another process whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
from rclpy.action import ActionClient

from astra_ros.action import PredictFutures
from astra_ros.srv import EvaluateActions
from tests.package import interface_fields
from tests.package.echo_node import LATCHED, MESSAGES
from tests.package.filled_messages import filled
from tests.package.ros_client import RosClient


@pytest.mark.parametrize("name", interface_fields.PARTS)
def test_fields_are_as_in_the_golden_file(name: str) -> None:
    golden = json.loads(interface_fields.GOLDEN.read_text())
    assert interface_fields.describe(interface_fields.PARTS[name]) == golden[name]


def test_golden_file_has_nothing_else() -> None:
    assert set(json.loads(interface_fields.GOLDEN.read_text())) == set(interface_fields.PARTS)


@pytest.mark.parametrize(
    ("service", "action"),
    [
        (EvaluateActions.Request, PredictFutures.Goal),
        (EvaluateActions.Response, PredictFutures.Result),
    ],
)
def test_action_has_the_fields_constants_and_defaults_of_the_service(service: Any, action: Any) -> None:
    assert interface_fields.describe(action) == interface_fields.describe(service)


def test_flags_are_single_bits_that_do_not_overlap() -> None:
    constants = interface_fields.describe(interface_fields.PARTS["msg/PredictedFuture"])[
        "constants and defaults"
    ]
    flags = [value for name, value in constants.items() if name.startswith("FLAG_")]
    assert flags
    assert all(flag.bit_count() == 1 for flag in flags)
    assert len(set(flags)) == len(flags)


@pytest.fixture(scope="module", autouse=True)
def echo_process(ros_domain: int) -> Iterator[None]:
    echo = subprocess.Popen([sys.executable, "-m", "tests.package.echo_node"])
    yield
    echo.terminate()
    try:
        echo.wait(10)
    except subprocess.TimeoutExpired:  # the middleware hung in its own clean-up; what is under test is over
        echo.kill()
        echo.wait()


@pytest.mark.parametrize("message_class", MESSAGES, ids=lambda message_class: message_class.__name__)
def test_message_comes_back_whole_from_another_process(ros_client: RosClient, message_class: Any) -> None:
    name, node = message_class.__name__, ros_client.node
    received: list[Any] = []
    there = node.create_publisher(message_class, f"there/{name}", LATCHED)
    node.create_subscription(message_class, f"back/{name}", received.append, LATCHED)
    sent = filled(message_class)
    assert sent != message_class()
    there.publish(sent)
    ros_client.spin_until(lambda: received)
    assert received == [sent]


def test_service_is_answered_by_another_process(ros_client: RosClient) -> None:
    expected = filled(EvaluateActions.Response)
    expected.message = "as sent"
    assert ros_client.call(EvaluateActions, "evaluate", filled(EvaluateActions.Request)) == expected


def test_action_is_carried_out_by_another_process(ros_client: RosClient) -> None:
    feedback: list[Any] = []
    action = ActionClient(ros_client.node, PredictFutures, "predict")
    ros_client.spin_until(action.server_is_ready)
    accepted = action.send_goal_async(filled(PredictFutures.Goal), feedback.append)
    ros_client.spin_until(accepted.done)
    result = accepted.result().get_result_async()
    ros_client.spin_until(lambda: result.done() and feedback)
    assert result.result().result.message == "as sent"
    assert feedback[0].feedback == filled(PredictFutures.Feedback)
    action.destroy()
