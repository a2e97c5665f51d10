"""The interfaces are what they were, and they reach another process whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
import rclpy
from rclpy.action import ActionClient
from rclpy.node import Node

from astra_ros.action import PredictFutures
from astra_ros.srv import EvaluateActions
from tests.package import interface_fields
from tests.package.echo_node import LATCHED, MESSAGES
from tests.package.filled_messages import filled

TIMEOUT_S = 30.0


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
    assert sorted(flags) == [1 << bit for bit in range(len(flags))]


@pytest.fixture(scope="module")
def client(ros_domain: int) -> Iterator[Node]:
    """A node here, while the echo node runs in another process."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    echo = subprocess.Popen([sys.executable, "-m", "tests.package.echo_node"])
    node = Node("client", context=context)
    yield node
    echo.terminate()
    assert echo.wait(TIMEOUT_S) == 0
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def spin_until(client: Node) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    executor = rclpy.executors.SingleThreadedExecutor(context=client.context)
    executor.add_node(client)

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + TIMEOUT_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"nothing within {TIMEOUT_S:g} s"
            executor.spin_once(timeout_sec=0.1)
        return value

    yield wait
    executor.shutdown()


@pytest.mark.parametrize("message_class", MESSAGES, ids=lambda message_class: message_class.__name__)
def test_message_comes_back_whole_from_another_process(
    client: Node, spin_until: Callable[[Callable[[], Any]], Any], message_class: Any
) -> None:
    received: list[Any] = []
    there = client.create_publisher(message_class, f"there/{message_class.__name__}", LATCHED)
    client.create_subscription(message_class, f"back/{message_class.__name__}", received.append, LATCHED)
    sent = filled(message_class)
    assert sent != message_class()
    there.publish(sent)
    spin_until(lambda: received)
    assert received == [sent]


def test_service_is_answered_by_another_process(
    client: Node, spin_until: Callable[[Callable[[], Any]], Any]
) -> None:
    service = client.create_client(EvaluateActions, "evaluate")
    spin_until(service.service_is_ready)
    future = service.call_async(filled(EvaluateActions.Request))
    spin_until(future.done)
    expected = filled(EvaluateActions.Response)
    expected.message = "as sent"
    assert future.result() == expected


def test_action_is_carried_out_by_another_process(
    client: Node, spin_until: Callable[[Callable[[], Any]], Any]
) -> None:
    feedback: list[Any] = []
    action = ActionClient(client, PredictFutures, "predict")
    spin_until(action.server_is_ready)
    accepted = action.send_goal_async(filled(PredictFutures.Goal), feedback.append)
    spin_until(accepted.done)
    result = accepted.result().get_result_async()
    spin_until(lambda: result.done() and feedback)
    assert result.result().result.message == "as sent"
    assert feedback[0].feedback == filled(PredictFutures.Feedback)
    action.destroy()
