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
        (["shoulder"], [1.0], ["name", "missing elbow", "found shoulder"]),
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
        Refusal, match=f"missing shoulder, elbow, found {names[0] if names else 'none'}"
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
    assert len(buffer._stamps_ns) == len(buffer._positions) == 3001


def test_old_joint_states_are_kept_for_pictures_that_may_be_older() -> None:
    buffer = JointBuffer()
    for second in range(60):
        buffer.push(second * 1000 * MS, np.array([float(second)], np.float32), picture_age_ns=20_000 * MS)
    assert buffer._stamps_ns[0] == 39_000 * MS


def test_of_old_joint_states_the_last_before_the_oldest_picture_is_kept() -> None:
    buffer = JointBuffer()
    for second in range(0, 60, 2):
        buffer.push(second * 1000 * MS, np.array([float(second)], np.float32), picture_age_ns=5000 * MS)
    np.testing.assert_allclose(buffer.at(53_000 * MS, 1000 * MS)[0], [53])
