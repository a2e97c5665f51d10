"""Callbacks in several threads, without the storm in which rclpy's own executor starves them."""

from __future__ import annotations

import time

from rclpy.executors import MultiThreadedExecutor

# A look, and how long one waits at most: all threads may be busy, or a callback may be waiting for a future.
_LOOK_S, _PATIENCE_S = 0.0002, 0.01


class CalmExecutor(MultiThreadedExecutor):
    """After handing out callbacks, waits a moment for threads to begin them before it looks for more.

    rclpy (7.1) hands a callback out again each time it wakes, until a thread has begun it. Its loop holds the interpreter's
    lock, for which the threads wait, and keeps being woken: beside a world model on two cores a timer of ten times a second
    was silent for 2.4 s at a time, with four thousand copies of callbacks in the queue.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """As rclpy's, and then a moment."""
        super().spin_once(timeout_sec)
        deadline_s = time.monotonic() + _PATIENCE_S
        while any(not one.executing() and not one.done() for one in self._futures):
            if time.monotonic() > deadline_s:
                return
            time.sleep(_LOOK_S)
