"""A synthetic robot's recording: what a test knows exactly, in real rosbag2 files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from astra_ros.data.bag import BagWriter, message_type
from astra_ros.data.bag_messages import odometry, velocity_command
from astra_ros.types import NANOSECONDS, ByteArray

CAMERA, JOINTS, PLAN = "/camera/image_raw/compressed", "/joint_states", "/action_sequence"
ODOMETRY, COMMANDS, AXES = "/odom", "/cmd_vel", ("linear.x", "angular.z")
JOINT_NAMES = (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1")
START_NS = 1_700_000_000 * NANOSECONDS
CAMERA_HZ, JOINT_HZ, PLAN_HZ = 10, 20, 5
_MS = 1_000_000


def write_recording(folder: Path, seconds: float, size_px: int = 64) -> Path:
    """A square moves to the right; joint i holds i + time. Camera, joints and plans, in the order of their stamps."""
    with BagWriter(folder) as bag:
        for tick in range(round(seconds * JOINT_HZ)):
            stamp_ns = START_NS + tick * NANOSECONDS // JOINT_HZ
            bag.write(JOINTS, joint_state(stamp_ns), stamp_ns)
            if tick % (JOINT_HZ // PLAN_HZ) == 0:
                bag.write(PLAN, action_sequence(stamp_ns), stamp_ns)
            if tick % (JOINT_HZ // CAMERA_HZ) == 0:
                bag.write(CAMERA, jpeg(stamp_ns, picture(tick, size_px)), stamp_ns)
    return folder


def write_drive(
    folder: Path,
    seconds: float,
    velocity: Callable[[float], tuple[float, float]],
    *,
    commands: Mapping[int, tuple[float, float]] | None = None,
    command: Callable[[int, np.ndarray], Any] = velocity_command,
    odometry_until_s: float = np.inf,
    received_later_s: float = 0.0,
) -> Path:
    """A vehicle: camera at 10 Hz, odometry at 50 Hz. velocity: forward and turning, by seconds. commands: by milliseconds."""
    messages: list[tuple[int, str, Any]] = []
    for ms in range(0, round(1000 * min(seconds, odometry_until_s)), 20):
        sensed = odometry(START_NS + ms * _MS, np.zeros(2), 0.0, np.array(velocity(ms / 1000)))
        messages.append((ms, ODOMETRY, sensed))
    for ms, told in (commands or {}).items():
        messages.append((ms, COMMANDS, command(START_NS + ms * _MS, np.array(told))))
    seen_ms = range(0, round(1000 * seconds), 100)
    messages += [(ms, CAMERA, jpeg(START_NS + ms * _MS, picture(ms // 50, 64))) for ms in seen_ms]
    with BagWriter(folder) as bag:
        for ms, topic, message in sorted(messages, key=lambda one: one[0]):
            bag.write(topic, message, START_NS + ms * _MS + round(received_later_s * NANOSECONDS))
    return folder


def write_pictures(
    folder: Path, ticks: Iterable[int], size_px: int = 64, names: tuple[str, ...] = JOINT_NAMES
) -> Path:
    """Pictures at those of 20 ticks a second, joint states at all."""
    taken = set(ticks)
    with BagWriter(folder) as bag:
        for tick in range(max(taken) + 1):
            stamp_ns = START_NS + tick * 50_000_000
            bag.write(JOINTS, joint_state(stamp_ns, names), stamp_ns)
            if tick in taken:
                bag.write(CAMERA, jpeg(stamp_ns, picture(tick, size_px)), stamp_ns)
    return folder


def picture(tick: int, size_px: int) -> ByteArray:
    rgb = np.full((size_px, size_px, 3), 80, np.uint8)
    left = tick % (size_px - 16)
    rgb[24:40, left : left + 16] = (220, 40, 40)
    return rgb


def header(stamp_ns: int, frame_id: str = "") -> Any:
    time = message_type("builtin_interfaces/msg/Time")(*divmod(stamp_ns, NANOSECONDS))
    return message_type("std_msgs/msg/Header")(stamp=time, frame_id=frame_id)


def joint_state(stamp_ns: int, names: tuple[str, ...] = JOINT_NAMES) -> Any:
    seconds = (stamp_ns - START_NS) / NANOSECONDS
    position = np.arange(len(names)) + seconds
    none = np.zeros(0)
    return message_type("sensor_msgs/msg/JointState")(header(stamp_ns), list(names), position, none, none)


def jpeg(stamp_ns: int, rgb: ByteArray) -> Any:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=92)
    data = np.frombuffer(stream.getvalue(), np.uint8)
    return message_type("sensor_msgs/msg/CompressedImage")(
        header(stamp_ns, "camera"), "rgb8; jpeg compressed bgr8", data
    )


def action_sequence(stamp_ns: int, horizon: int = 10) -> Any:
    plan = message_type("astra_ros/msg/ActionSequence")
    rows = np.arange(horizon * len(JOINT_NAMES), dtype=np.float32) / 100
    return plan(
        header=header(stamp_ns),
        id=message_type("unique_identifier_msgs/msg/UUID")(np.arange(16, dtype=np.uint8)),
        representation=plan.REPRESENTATION_JOINT_POSITION,
        step_dt=message_type("builtin_interfaces/msg/Duration")(0, 200_000_000),
        horizon=horizon,
        names=list(JOINT_NAMES),
        data=rows,
    )
