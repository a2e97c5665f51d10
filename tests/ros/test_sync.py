"""Joint positions at a picture's stamp."""

from __future__ import annotations

import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sensor_msgs.msg import JointState

from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.sync import JointBuffer, JointReader
from astra_ros.types import FloatArray

MS = 1_000_000
SLOP = 50 * MS
NAMES = ("shoulder", "elbow")


def read(names: list[str], positions: list[float]) -> FloatArray:
    return JointReader(NAMES).read(JointState(name=names, position=positions))


@pytest.mark.parametrize(
    ("names", "positions"),
    [
        (["shoulder", "elbow"], [1.0, 2.0]),
        (["elbow", "shoulder"], [2.0, 1.0]),
        (["wheel", "elbow", "gripper", "shoulder"], [9.0, 2.0, math.nan, 1.0]),
    ],
)
def test_joints_are_found_by_name(names: list[str], positions: list[float]) -> None:
    np.testing.assert_array_equal(read(names, positions), np.array([1, 2], np.float32))


def test_what_a_message_does_not_tell_is_no_number() -> None:
    np.testing.assert_array_equal(read(["gripper", "elbow"], [9.0, 2.0]), np.array([np.nan, 2], np.float32))


def test_a_publisher_may_change_its_order() -> None:
    reader = JointReader(NAMES)
    for _ in range(2):
        np.testing.assert_array_equal(
            reader.read(JointState(name=["elbow", "shoulder"], position=[2.0, 1.0])), [1, 2]
        )
        np.testing.assert_array_equal(
            reader.read(JointState(name=["shoulder", "elbow"], position=[1.0, 2.0])), [1, 2]
        )


def test_two_publishers_of_different_order_are_not_mixed_up() -> None:
    reader = JointReader(NAMES)
    orders = (["elbow", "shoulder"], [2.0, 1.0]), (["shoulder", "elbow"], [1.0, 2.0])
    switch_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            messages = [JointState(name=names, position=positions) for names, positions in orders * 2000]
            for found in threads.map(reader.read, messages):
                np.testing.assert_array_equal(found, [1, 2])
    finally:
        sys.setswitchinterval(switch_s)


@pytest.mark.parametrize(
    ("names", "positions", "expected"),
    [
        (["shoulder", "elbow"], [], ["position", "expected 2 values", "found 0"]),
        (["shoulder", "elbow"], [1.0], ["position", "expected 2 values", "found 1"]),
        (["shoulder", "elbow"], [1.0, math.nan], ["position", "nan", "'elbow'"]),
        (["shoulder", "elbow"], [math.inf, 1.0], ["position", "inf", "'shoulder'"]),
        (["shoulder", "elbow", "elbow"], [1.0, 2.0, 3.0], ["name", "elbow twice"]),
    ],
)
def test_refused_joint_states(names: list[str], positions: list[float], expected: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        read(names, positions)
    assert caught.value.cause is Drop.BAD_JOINT_STATE
    assert "\n" not in str(caught.value)
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize("names", [["gripper"], []])
def test_other_joints_have_a_cause_of_their_own(names: list[str]) -> None:
    with pytest.raises(
        Refusal,
        match=f"expected shoulder, elbow, or some of them, found {names[0] if names else 'none'}; remap",
    ) as caught:
        read(names, [])
    assert caught.value.cause is Drop.OTHER_JOINTS


def buffer_of(*samples: tuple[int, float]) -> JointBuffer:
    buffer = JointBuffer()
    for stamp_ms, position in samples:
        buffer.push(stamp_ms * MS, np.array([position], np.float32))
    return buffer


@pytest.mark.parametrize(
    ("stamp_ms", "position", "skew_ms"),
    [(1000, 0.0, 0), (1010, 0.25, 10), (1020, 0.5, 20), (1040, 1.0, 0), (1060, 1.0, 20), (980, 0.0, 20)],
)
def test_positions_are_interpolated_and_held_at_the_ends(
    stamp_ms: int, position: float, skew_ms: int
) -> None:
    found, skew_ns = buffer_of((1000, 0.0), (1040, 1.0)).at(stamp_ms * MS, SLOP)
    np.testing.assert_allclose(found, [position])
    assert found.dtype == np.float32
    assert skew_ns == skew_ms * MS


@pytest.mark.parametrize(("unit", "is_refused"), [("rad", True), ("m", False)])
def test_between_two_sides_of_a_wrap_is_no_position(unit: str, is_refused: bool) -> None:
    buffer = JointBuffer(("lift", "wheel"), ("m", unit))
    buffer.push(1000 * MS, np.array([0.0, 3.13], np.float32))
    buffer.push(1040 * MS, np.array([0.0, -3.13], np.float32))
    np.testing.assert_allclose(buffer.at(1000 * MS, SLOP)[0], [0, 3.13])
    if not is_refused:
        np.testing.assert_allclose(buffer.at(1020 * MS, SLOP)[0], [0, 0])
        return
    with pytest.raises(
        Refusal, match=r"expected wheel to turn .* found 3\.13 and then -3\.13; it wraps"
    ) as caught:
        buffer.at(1020 * MS, SLOP)
    assert caught.value.cause is Drop.BAD_JOINT_STATE


def test_covers_says_whether_waiting_can_help() -> None:
    buffer = buffer_of((1000, 0.0))
    assert buffer.covers(1000 * MS)
    assert not buffer.covers(1001 * MS)
    assert not JointBuffer().covers(0)


@pytest.mark.parametrize(
    ("samples", "stamp_ms", "expected"),
    [
        ([], 1000, "no joint state received"),
        ([(1000, 0.0)], 1400, "newest 0.400 s older"),
        ([(1000, 0.0)], 500, "oldest 0.500 s newer"),
        (
            [(1000, 0.0), (1400, 1.0)],
            1200,
            "gap of 0.400 s around it; publish faster, or set sync_slop_s:=0.200",
        ),
    ],
)
def test_no_match_says_why(samples: list[tuple[int, float]], stamp_ms: int, expected: str) -> None:
    with pytest.raises(Refusal) as caught:
        buffer_of(*samples).at(stamp_ms * MS, SLOP)
    assert caught.value.cause is Drop.NO_JOINT_STATE
    assert expected in str(caught.value)


def test_a_slightly_older_joint_state_is_refused_and_changes_nothing() -> None:
    buffer = buffer_of((1000, 0.0), (1040, 1.0))
    with pytest.raises(Refusal, match="only one publisher") as caught:
        buffer.push(1020 * MS, np.array([5.0], np.float32))
    assert caught.value.cause is Drop.OUT_OF_ORDER
    assert buffer.at(1020 * MS, SLOP)[0] == 0.5


def test_time_that_starts_again_forgets_what_was() -> None:
    buffer = buffer_of((9000, 0.0), (1000, 1.0))
    assert not buffer.covers(1001 * MS)
    assert buffer.at(1000 * MS, SLOP)[0] == 1.0


def test_old_joint_states_are_dropped() -> None:
    buffer = buffer_of(*((1000 + i, float(i)) for i in range(10_000)))
    (track,) = buffer._tracks.values()
    assert len(track._stamps_ns) == len(track._positions) == 3001


def test_old_joint_states_are_kept_for_pictures_that_may_be_older() -> None:
    buffer = JointBuffer()
    for second in range(60):
        buffer.push(second * 1000 * MS, np.array([float(second)], np.float32), picture_age_ns=20_000 * MS)
    (track,) = buffer._tracks.values()
    assert track._stamps_ns[0] == 39_000 * MS


def test_of_old_joint_states_the_last_before_the_oldest_picture_is_kept() -> None:
    buffer = JointBuffer()
    for second in range(0, 60, 2):
        buffer.push(second * 1000 * MS, np.array([float(second)], np.float32), picture_age_ns=5000 * MS)
    np.testing.assert_allclose(buffer.at(53_000 * MS, 1000 * MS)[0], [53])


def told(shoulder: float = math.nan, elbow: float = math.nan) -> FloatArray:
    return np.array([shoulder, elbow], np.float32)


def test_an_arm_and_its_gripper_each_tell_of_their_own() -> None:
    """At rates and moments of their own; a picture waits for both."""
    buffer = JointBuffer(NAMES, ("rad", "m"))
    for tick in range(10):
        buffer.push((1000 + 10 * tick) * MS, told(shoulder=0.1 * tick))
    with pytest.raises(
        Refusal, match=r"expected joint states of every joint, found none of elbow; start"
    ) as caught:
        buffer.at(1045 * MS, SLOP)
    assert caught.value.cause is Drop.NO_JOINT_STATE
    buffer.push(1030 * MS, told(elbow=1.0))
    assert not buffer.covers(1045 * MS)
    found, skew_ns = buffer.at(1045 * MS, SLOP)
    np.testing.assert_allclose(found, [0.45, 1.0], atol=1e-6)
    assert skew_ns == 15 * MS
    buffer.push(1070 * MS, told(elbow=5.0))
    assert buffer.covers(1045 * MS)
    np.testing.assert_allclose(buffer.at(1045 * MS, SLOP)[0], [0.45, 2.5], atol=1e-6)
    with pytest.raises(Refusal, match=r"found the newest 0\.060 s older"):
        buffer.at(1150 * MS, SLOP)


def test_of_two_that_tell_of_a_joint_the_one_is_used_that_is_there() -> None:
    """Who tells of all joints first; when it stops, the other."""
    buffer = JointBuffer(NAMES)
    buffer.push(1000 * MS, told(shoulder=9.0))
    buffer.push(1001 * MS, told(1.0, 2.0))
    np.testing.assert_array_equal(buffer.at(1001 * MS, SLOP)[0], [1, 2])
    buffer.push(1500 * MS, told(shoulder=3.0))
    buffer.push(1500 * MS, told(elbow=4.0))
    np.testing.assert_array_equal(buffer.at(1500 * MS, SLOP)[0], [3, 4])


def test_time_that_starts_again_forgets_what_every_publisher_said() -> None:
    buffer = JointBuffer(NAMES)
    buffer.push(9000 * MS, told(shoulder=1.0))
    buffer.push(9000 * MS, told(elbow=2.0))
    buffer.push(1000 * MS, told(shoulder=3.0))
    with pytest.raises(Refusal, match="found none of elbow"):
        buffer.at(1000 * MS, SLOP)


def test_of_one_publisher_only_its_own_angles_may_not_wrap() -> None:
    buffer = JointBuffer(NAMES, ("m", "rad"))
    for stamp_ms, elbow in ((1000, 3.13), (1040, -3.13)):
        buffer.push(stamp_ms * MS, told(shoulder=float(stamp_ms)))
        buffer.push(stamp_ms * MS, told(elbow=elbow))
    with pytest.raises(Refusal, match=r"expected elbow to turn .* found 3\.13 and then -3\.13; it wraps"):
        buffer.at(1020 * MS, SLOP)
