"""A vehicle's velocity: where messages have it, and what it is over a step."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from astra_ros.actions.velocities import UNITS, VELOCITY_MESSAGES, mean_levels, mean_velocities
from astra_ros.types import FloatArray

MS = 1_000_000
START_NS = 1_700_000_000 * 1000 * MS
TWIST = SimpleNamespace(
    linear=SimpleNamespace(x=1.0, y=2.0, z=3.0), angular=SimpleNamespace(x=4.0, y=5.0, z=6.0)
)
ACKERMANN = SimpleNamespace(steering_angle=0.3, speed=2.0)
MESSAGES: dict[str, Any] = {
    "nav_msgs/msg/Odometry": SimpleNamespace(twist=SimpleNamespace(twist=TWIST)),
    "geometry_msgs/msg/TwistStamped": SimpleNamespace(twist=TWIST),
    "geometry_msgs/msg/Twist": TWIST,
    "ackermann_msgs/msg/AckermannDriveStamped": SimpleNamespace(drive=ACKERMANN),
    "ackermann_msgs/msg/AckermannDrive": ACKERMANN,
}


def means(
    told: Mapping[int, float], steps: list[tuple[int, int]], *, is_measured: bool = False
) -> list[float]:
    """told: velocities by time; steps: from and to; all times in ms."""
    at, values = zip(*told.items(), strict=True)
    begins, ends = (START_NS + np.array(column) * MS for column in zip(*steps, strict=True))
    velocities: FloatArray = np.array(values, np.float32)[:, None]
    found = mean_velocities(
        START_NS + np.array(at, np.int64) * MS, velocities, begins, ends, is_measured=is_measured
    )
    assert found.dtype == np.float32
    return found[:, 0].tolist()


@pytest.mark.parametrize("name", VELOCITY_MESSAGES)
def test_axes_are_read_in_the_order_asked_for(name: str) -> None:
    kind = VELOCITY_MESSAGES[name]
    values = dict(zip(kind.axes, kind.reader(kind.axes)(MESSAGES[name]).tolist(), strict=True))
    expected = [1, 2, 3, 4, 5, 6] if "linear.x" in kind.axes else [0.3, 2.0]
    assert [*values.values()] == pytest.approx(expected)
    backwards = kind.usual[::-1]
    found = kind.reader(backwards)(MESSAGES[name])
    assert found.tolist() == [values[axis] for axis in backwards]
    assert kind.reader(kind.axes[:1])(MESSAGES[name]).shape == (1,)
    assert {*kind.axes} <= {*UNITS}


def test_an_axis_that_a_message_has_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"axes: expected some of steering_angle, speed, found linear\.x"):
        VELOCITY_MESSAGES["ackermann_msgs/msg/AckermannDrive"].reader(("linear.x", "speed"))


def test_only_odometry_is_measured() -> None:
    assert [name for name, kind in VELOCITY_MESSAGES.items() if kind.is_measured] == ["nav_msgs/msg/Odometry"]


def test_measured_velocities_change_evenly_between_two() -> None:
    told = {0: 0.0, 100: 1.0, 200: 1.0}
    assert means(told, [(0, 100), (0, 200), (100, 200)], is_measured=True) == pytest.approx([0.5, 0.75, 1.0])


def test_measured_ones_stay_before_the_first_and_after_the_last() -> None:
    told = {0: 2.0, 100: 4.0}
    assert means(told, [(-200, 0), (100, 1300), (-100, 0)], is_measured=True) == pytest.approx([2, 4, 2])


def test_a_command_is_in_force_until_the_next() -> None:
    told = {0: 1.0, 150: 3.0}
    assert means(told, [(0, 100), (100, 200), (200, 300)]) == pytest.approx([1, 2, 3])


def test_a_command_ends_after_half_a_second_and_the_vehicle_stands_before_the_first() -> None:
    told = {0: 1.0, 2000: 4.0}
    found = means(told, [(-200, 0), (400, 600), (600, 1900), (1900, 2100), (2400, 2600), (2600, 9000)])
    assert found == pytest.approx([0, 0.5, 0, 2, 2, 0])


def test_commands_that_come_fast_add_up_to_nothing_more() -> None:
    told = dict.fromkeys(range(0, 1000, 7), 1.0)
    assert means(told, [(100, 300), (301, 302)]) == pytest.approx([1, 1])


def test_levels_hold_beyond_their_changes() -> None:
    levels = np.array([[1.0], [2.0], [3.0]], np.float32)
    begins, ends = np.array([-50, 5, 10, 30]), np.array([-40, 15, 20, 90])
    found = mean_levels(np.array([10, 20]), levels, begins, ends)
    assert found[:, 0].tolist() == pytest.approx([1, 1.5, 2, 3])
