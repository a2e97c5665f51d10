"""A picture file as the goal of a running world model."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from astra_ros.data.video import decode_picture
from astra_ros.frames.preprocess import stack
from astra_ros.msg import Goal, ModelInfo
from astra_ros.ros import qos
from astra_ros.ros.conversions import to_image
from astra_ros.ros.session import ros_session
from astra_ros.srv import SetGoal

_PATIENCE_S = 10.0


def picture_goal(file: Path) -> Goal:
    """Of a JPEG or PNG file, which the node decodes. Raises OSError."""
    picture = CompressedImage(format=file.suffix.lstrip("."), data=array("B", file.read_bytes()))
    return Goal(type=Goal.TYPE_COMPRESSED_IMAGE, compressed_image=picture)


def pictures_goal(files: Sequence[Path], info: ModelInfo) -> Goal:
    """Of one picture per camera of the model, in the order of `info.camera_names`. Raises OSError, and ValueError for another number."""
    if len(files) != max(1, len(info.camera_names)):
        raise ValueError(
            f"picture: expected {max(1, len(info.camera_names))}, one per camera of the model ({', '.join(info.camera_names)}), found"
            f" {len(files)}"
        )
    seen = [decode_picture(file.read_bytes(), file) for file in files]
    return Goal(
        type=Goal.TYPE_IMAGE, image=to_image(stack(seen, info.image_height, info.image_width), Header())
    )


def set_goal(name: str, files: Sequence[Path]) -> None:
    """Make it the standing goal of the node of that full name. files: a picture, or one per camera of the model.

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
        info = _info(node, name, stop)
        one_camera = len(info.camera_names) <= 1 and len(files) == 1
        goal = picture_goal(files[0]) if one_camera else pictures_goal(files, info)
        future = service.call_async(SetGoal.Request(goal=goal))
        if not _spun_until(node, future.done, stop):
            raise TimeoutError(f"{name}: expected an answer within {_PATIENCE_S:g} s, found none")
        if not future.result().success:
            raise ValueError(f"{name}: {future.result().message}")


def _info(node: Node, name: str, stop: Event) -> ModelInfo:
    found: list[ModelInfo] = []
    node.create_subscription(ModelInfo, f"{name}/model_info", found.append, qos.latched())
    if not _spun_until(node, lambda: bool(found), stop):
        raise TimeoutError(f"{name}: expected ~/model_info within {_PATIENCE_S:g} s, found none")
    return found[-1]


def _spun_until(node: Node, is_so: Callable[[], bool], stop: Event) -> bool:
    """Whether it became so in time. Raises KeyboardInterrupt when the user had enough."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not is_so() and time.monotonic() < deadline_s:
        if stop.is_set():
            raise KeyboardInterrupt
        rclpy.spin_once(node, timeout_sec=0.1)
    return is_so()
