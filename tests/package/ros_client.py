"""A ROS 2 program of its own beside the processes under test."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor

TIMEOUT_S = 60.0


class RosClient:
    """A node that is spun by the test itself until something has happened. `close` it."""

    def __init__(self) -> None:
        self._context = rclpy.Context()
        rclpy.init(args=[], context=self._context)
        self.node = rclpy.create_node("client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)

    def spin_until(self, condition: Callable[[], Any]) -> Any:
        """The condition's first true value. Fails the test when there is none in time."""
        deadline = time.monotonic() + TIMEOUT_S
        while not (value := condition()):
            assert time.monotonic() < deadline, f"nothing within {TIMEOUT_S:g} s"
            self._executor.spin_once(timeout_sec=0.1)
        return value

    def call(self, service_class: Any, name: str, request: Any) -> Any:
        """The response of a service, once that is there."""
        service = self.node.create_client(service_class, name)
        self.spin_until(service.service_is_ready)
        future = service.call_async(request)
        self.spin_until(future.done)
        self.node.destroy_client(service)
        return future.result()

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()
