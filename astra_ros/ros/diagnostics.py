"""/diagnostics: one status with everything the node knows about itself, once a second and on changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.node import Node

from astra_ros.ros.health import Health, Problem

PERIOD_S = 1.0
# Changes that follow each other faster than this wait for the next period.
CHANGE_PERIOD_S = 0.1


class Diagnostics:
    """Publishes in every lifecycle state, so that a failed transition can be seen.

    check: called before each periodic publishing; may report problems. facts: state and model, for the key-values.
    """

    def __init__(self, node: Node, check: Callable[[], None], facts: Callable[[], dict[str, str]]) -> None:
        self.health = Health(log=self._log, on_change=self._on_change)
        self._node = node
        self._check = check
        self._facts = facts
        self._lock = Lock()
        self._told_change_s = -CHANGE_PERIOD_S
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # Not the node's clock: a paused simulation still wants to be diagnosed.
        node.create_timer(PERIOD_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def publish(self) -> None:
        """From any thread."""
        snapshot, facts = self.health.snapshot(), self._facts()
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK,
            name=f"{self._node.get_fully_qualified_name()}: world model",
            message=facts["state"],
            hardware_id=facts.get("model_id", ""),
            values=[KeyValue(key=key, value=value) for key, value in {**facts, **snapshot.values}.items()],
        )
        if snapshot.problem:
            status.level = DiagnosticStatus.ERROR if snapshot.problem.is_error else DiagnosticStatus.WARN
            status.message = snapshot.problem.line
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _on_change(self) -> None:
        """A problem that comes and goes with every message must not flood the topic. From any thread."""
        now_s = time.monotonic()
        with self._lock:
            if now_s - self._told_change_s < CHANGE_PERIOD_S:
                return
            self._told_change_s = now_s
        self.publish()

    def _log(self, problem: Problem) -> None:
        if problem.is_error:
            self._node.get_logger().error(problem.line)
        else:
            self._node.get_logger().warning(problem.line)

    def _tick(self) -> None:
        self._check()
        self.publish()
