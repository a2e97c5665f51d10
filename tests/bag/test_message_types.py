"""Stamps inside serialized messages, and agreement of our files with rosidl."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header, String

from astra_ros.data.bag import BagReader, typestore
from astra_ros.msg import ActionSequence, PredictedFuture
from astra_ros.ros.message_types import UnknownMessageTypeError, message_class, restamp, stamp_ns
from tests.recordings import PLAN, START_NS, action_sequence, write_recording

OWN_TYPES = ("ActionSequence", "Goal", "ModelInfo", "PredictedFuture")


def _stamped(seconds: int) -> Header:
    return Header(stamp=Time(sec=seconds, nanosec=5), frame_id="camera")


def _later(before_ns: int) -> int:
    return before_ns + 100_000_000_007


def test_a_leading_header_is_moved_and_nothing_else() -> None:
    image = Image(header=_stamped(3), height=1, width=2, encoding="rgb8", step=6, data=[1, 2, 3, 4, 5, 6])
    raw = bytes(serialize_message(image))
    assert stamp_ns("sensor_msgs/msg/Image", raw) == 3_000_000_005
    moved = restamp("sensor_msgs/msg/Image", raw, _later)
    # Compared with itself: what pads the fields may be anything.
    assert moved[:4] + moved[12:] == raw[:4] + raw[12:]
    assert deserialize_message(moved, Image).header.stamp == Time(sec=103, nanosec=12)


def test_nested_headers_move_too() -> None:
    future = PredictedFuture(
        header=_stamped(3),
        actions=ActionSequence(header=_stamped(0)),
        frames=[Image(header=_stamped(4)), Image(header=_stamped(5))],
        compressed_frames=[CompressedImage(header=_stamped(6))],
    )
    future.actions.header.stamp = Time()
    moved = deserialize_message(
        restamp("astra_ros/msg/PredictedFuture", bytes(serialize_message(future)), _later), PredictedFuture
    )
    assert moved.header.stamp.sec == 103
    assert [image.header.stamp.sec for image in moved.frames] == [104, 105]
    assert moved.compressed_frames[0].header.stamp.sec == 106
    assert moved.actions.header.stamp == Time()  # not set: "starts at the observation"


def test_a_header_in_a_nested_message_is_found() -> None:
    assert stamp_ns("geometry_msgs/msg/TransformStamped", bytes(serialize_message(TransformStamped()))) == 0


@pytest.mark.parametrize(
    ("type_name", "message"), [("std_msgs/msg/String", String(data="x")), ("sensor_msgs/msg/Image", Image())]
)
def test_without_a_stamp_nothing_changes(type_name: str, message: object) -> None:
    raw = bytes(serialize_message(message))
    assert restamp(type_name, raw, _later) == raw


def test_big_endian_recordings_are_moved_in_their_own_order() -> None:
    big = bytes(
        typestore().serialize_cdr(
            action_sequence(START_NS), "astra_ros/msg/ActionSequence", little_endian=False
        )
    )
    assert stamp_ns("astra_ros/msg/ActionSequence", big) == START_NS
    moved = typestore().deserialize_cdr(
        restamp("astra_ros/msg/ActionSequence", big, _later), "astra_ros/msg/ActionSequence"
    )
    assert moved.header.stamp.sec == START_NS // 10**9 + 100  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("type_name", "line"),
    [
        ("foo_msgs/msg/Bar", "is not installed.*pip install ros-jazzy-foo-msgs"),
        ("sensor_msgs/msg/Bar", "is not installed.*pip install ros-jazzy-sensor-msgs"),
        ("nonsense", "expected PACKAGE/msg/NAME, found nonsense"),
        ("sensor_msgs/srv/SetCameraInfo", "expected PACKAGE/msg/NAME, found sensor_msgs/srv/SetCameraInfo"),
    ],
)
def test_an_unknown_type_names_what_to_install(type_name: str, line: str) -> None:
    with pytest.raises(UnknownMessageTypeError, match=line):
        message_class(type_name)


def test_rclpy_reads_what_a_bag_holds(tmp_path: Path) -> None:
    with BagReader(write_recording(tmp_path / "bag", seconds=1)) as bag:
        plan = deserialize_message(next(bag.messages([PLAN])).raw, ActionSequence)
    expected = action_sequence(START_NS)
    np.testing.assert_array_equal(plan.data, expected.data)
    np.testing.assert_array_equal(plan.id.uuid, expected.id.uuid)
    assert list(plan.names) == expected.names


@pytest.mark.parametrize("name", OWN_TYPES)
def test_type_hashes_are_those_of_rosidl(name: str) -> None:
    """The hash decides whether two ROS programs accept each other's topic; other tools find it in our files."""
    description = Path(sysconfig.get_path("data")) / "share" / "astra_ros" / "msg" / f"{name}.json"
    hashes = {
        entry["type_name"]: entry["hash_string"]
        for entry in json.loads(description.read_text())["type_hashes"]
    }
    assert typestore().hash_rihs01(f"astra_ros/msg/{name}") == hashes[f"astra_ros/msg/{name}"]
