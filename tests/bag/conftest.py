"""A ROS context of a test's own: this machine only, in a domain that no other process uses."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rclpy.context import Context
    from rclpy.node import Node

DEADLINE_S = 30.0

# Reading and writing bags needs no ROS; these do.
NEED_ROS = ["test_message_types.py", "test_player.py", "test_programs.py", "test_recorder.py"]
collect_ignore = [] if importlib.util.find_spec("rclpy") else NEED_ROS


class Ros:
    """Nodes of one context, and a way to wait for them. environment: for programs in the same domain."""

    def __init__(self, context: Context, environment: dict[str, str]) -> None:
        from rclpy.executors import SingleThreadedExecutor

        self.context, self.environment = context, environment
        self.executor = SingleThreadedExecutor(context=context)
        self._nodes: list[Node] = []

    def node(self, name: str) -> Node:
        from rclpy.node import Node

        node = Node(name, context=self.context)
        self.executor.add_node(node)
        self._nodes.append(node)
        return node

    def spin_until(self, is_done: Callable[[], bool], timeout_s: float = DEADLINE_S) -> None:
        """Fails the test when it does not come true in time."""
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            assert time.monotonic() < deadline_s, f"not within {timeout_s} s"
            self.executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self.executor.shutdown()
        for node in self._nodes:
            node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ros]:
    import domain_coordinator
    from rclpy.context import Context

    with domain_coordinator.domain_id() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        context = Context()
        context.init([])
        ros = Ros(context, dict(os.environ))
        yield ros
        ros.close()
