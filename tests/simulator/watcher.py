"""What a robot's programs see of it, for tests of simulated ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import Image

TIMEOUT_S = 90.0


class Watcher:
    """Looks through the camera, and spins until something has happened."""

    def __init__(self, domain: int) -> None:
        rclpy.init(domain_id=domain) if not rclpy.ok() else None
        self.node, self._executor = Node("watcher"), SingleThreadedExecutor()
        self.images: list[Image] = []
        self.node.create_subscription(Image, "image", self.images.append, 50)
        self._executor.add_node(self.node)

    def spin_until(self, condition: Callable[[], Any]) -> None:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline_s, "nothing in time"
            self._executor.spin_once(timeout_sec=0.05)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()
