"""Messages as a real robot's drivers publish them, for recordings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from astra_ros.data.bag import message_type
from astra_ros.types import NANOSECONDS, ByteArray

ODOM_FRAME, BASE_FRAME = "odom", "base_link"
PLAN_STEPS, PLAN_STEP_S = 10, 0.2
_JPEG_QUALITY = 92


def header(stamp_ns: int, frame_id: str = "") -> Any:
    """std_msgs/Header."""
    time = message_type("builtin_interfaces/msg/Time")(
        sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS
    )
    return message_type("std_msgs/msg/Header")(stamp=time, frame_id=frame_id)


def jpeg(stamp_ns: int, frame_id: str, pixels: ByteArray) -> Any:
    """sensor_msgs/CompressedImage."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    data = np.frombuffer(stream.getvalue(), np.uint8)
    return message_type("sensor_msgs/msg/CompressedImage")(
        header=header(stamp_ns, frame_id), format="rgb8; jpeg compressed bgr8", data=data
    )


def plan(stamp_ns: int, rows: np.ndarray, names: Sequence[str], representation: int) -> Any:
    """astra_ros/ActionSequence of the next PLAN_STEPS model steps (PLAN_STEPS, a), as a planner would have announced them."""
    duration = message_type("builtin_interfaces/msg/Duration")
    uuid = message_type("unique_identifier_msgs/msg/UUID")
    return message_type("astra_ros/msg/ActionSequence")(
        header=header(stamp_ns),
        id=uuid(uuid=np.frombuffer(stamp_ns.to_bytes(16, "big"), np.uint8)),
        representation=representation,
        step_dt=duration(sec=0, nanosec=round(PLAN_STEP_S * NANOSECONDS)),
        horizon=len(rows),
        names=list(names),
        data=rows.astype(np.float32).ravel(),
    )


def odometry(stamp_ns: int, position: np.ndarray, yaw: float, velocity: np.ndarray) -> Any:
    """nav_msgs/Odometry of a base on a plane. position: (2,) m. velocity: (2,) forward [m/s], turning left [rad/s]."""
    point, quaternion = message_type("geometry_msgs/msg/Point"), message_type("geometry_msgs/msg/Quaternion")
    x, y = position.tolist()
    pose = message_type("geometry_msgs/msg/Pose")(
        position=point(x=x, y=y, z=0.0),
        orientation=quaternion(x=0.0, y=0.0, z=float(np.sin(yaw / 2)), w=float(np.cos(yaw / 2))),
    )
    unknown = np.zeros(36)
    return message_type("nav_msgs/msg/Odometry")(
        header=header(stamp_ns, ODOM_FRAME),
        child_frame_id=BASE_FRAME,
        pose=message_type("geometry_msgs/msg/PoseWithCovariance")(pose=pose, covariance=unknown),
        twist=message_type("geometry_msgs/msg/TwistWithCovariance")(
            twist=_twist(velocity), covariance=unknown
        ),
    )


def velocity_command(stamp_ns: int, velocity: np.ndarray) -> Any:
    """geometry_msgs/TwistStamped, as diff_drive_controller takes it. velocity: as in `odometry`."""
    return message_type("geometry_msgs/msg/TwistStamped")(
        header=header(stamp_ns, BASE_FRAME), twist=_twist(velocity)
    )


def _twist(velocity: np.ndarray) -> Any:
    vector = message_type("geometry_msgs/msg/Vector3")
    forward, left_turn = velocity.tolist()
    return message_type("geometry_msgs/msg/Twist")(
        linear=vector(x=forward, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=left_turn)
    )
