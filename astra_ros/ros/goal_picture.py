"""A picture file as the goal of a running world model."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from pathlib import Path
from threading import Event

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from astra_ros.msg import Goal
from astra_ros.ros.session import ros_session
from astra_ros.srv import SetGoal

_PATIENCE_S = 10.0


def picture_goal(file: Path) -> Goal:
    """Of a JPEG or PNG file, which the node decodes. Raises OSError."""
    picture = CompressedImage(format=file.suffix.lstrip("."), data=array("B", file.read_bytes()))
    return Goal(type=Goal.TYPE_COMPRESSED_IMAGE, compressed_image=picture)


def set_goal(name: str, goal: Goal) -> None:
    """Make it the standing goal of the node of that full name.

    Raises TimeoutError when the node does not answer, ValueError with its line when it refuses.
    """
    with ros_session() as stop:
        node = rclpy.create_node("astra_goal")
        service = node.create_client(SetGoal, f"{name}/set_goal")
        if not _spun_until(node, service.service_is_ready, stop):
            raise TimeoutError(
                f"{name}: expected the service ~/set_goal within {_PATIENCE_S:g} s, found none; start and configure the node"
                f" (astra doctor --node {name} says what it lacks)"
            )
        future = service.call_async(SetGoal.Request(goal=goal))
        if not _spun_until(node, future.done, stop):
            raise TimeoutError(f"{name}: expected an answer within {_PATIENCE_S:g} s, found none")
        if not future.result().success:
            raise ValueError(f"{name}: {future.result().message}")


def _spun_until(node: Node, is_so: Callable[[], bool], stop: Event) -> bool:
    """Whether it became so in time. Raises KeyboardInterrupt when the user had enough."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not is_so() and time.monotonic() < deadline_s:
        if stop.is_set():
            raise KeyboardInterrupt
        rclpy.spin_once(node, timeout_sec=0.1)
    return is_so()
