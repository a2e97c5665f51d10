"""A picture file as the goal of a running world model."""

from __future__ import annotations

from array import array
from pathlib import Path

import rclpy
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
    with ros_session():
        node = rclpy.create_node("astra_goal")
        service = node.create_client(SetGoal, f"{name}/set_goal")
        if not service.wait_for_service(_PATIENCE_S):
            raise TimeoutError(
                f"{name}: expected the service ~/set_goal within {_PATIENCE_S:g} s, found none; start and configure the node"
                f" (astra doctor --node {name} says what it lacks)"
            )
        future = service.call_async(SetGoal.Request(goal=goal))
        rclpy.spin_until_future_complete(node, future, timeout_sec=_PATIENCE_S)
        if not future.done():
            raise TimeoutError(f"{name}: expected an answer within {_PATIENCE_S:g} s, found none")
        if not future.result().success:
            raise ValueError(f"{name}: {future.result().message}")
