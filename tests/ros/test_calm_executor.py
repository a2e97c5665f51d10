"""A callback that waits for a thread is not handed out thousands of times, and is called once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from unittest.mock import patch

import pytest
import rclpy
from rclpy.context import Context

from astra_ros.ros.calm_executor import CalmExecutor

WATCHED_S, LIMIT_S = 0.3, 10.0


def _keep_awake(executor: CalmExecutor) -> None:
    """As messages and the ends of other callbacks do."""
    until_s = time.monotonic() + WATCHED_S
    while time.monotonic() < until_s:
        executor.wake()
        time.sleep(0.0002)


@pytest.fixture
def executor() -> Iterator[CalmExecutor]:
    context = Context()
    rclpy.init(context=context)
    yield CalmExecutor(2, context=context)
    context.try_shutdown()


def test_what_no_thread_can_begin_is_not_handed_out_again_and_again(executor: CalmExecutor) -> None:
    gate, came, begun = Event(), Event(), Barrier(3)
    called: list[str] = []

    def blocking() -> None:
        begun.wait(LIMIT_S)
        gate.wait(LIMIT_S)

    def third() -> None:
        called.append("third")
        came.set()

    with (
        ThreadPoolExecutor(1) as spinning,
        patch.object(executor._executor, "submit", wraps=executor._executor.submit) as submit,
    ):
        for _ in range(2):
            executor.create_task(blocking)
        spinning.submit(executor.spin)
        begun.wait(LIMIT_S)
        executor.create_task(third)
        _keep_awake(executor)
        before, submitted = list(called), submit.call_count
        gate.set()
        assert came.wait(LIMIT_S)
        executor.shutdown()
    assert before == []
    assert submitted < 100  # rclpy's own: as often as it wakes
    assert called == ["third"]
