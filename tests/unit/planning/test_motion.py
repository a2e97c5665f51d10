"""From one plan to the next without a jump."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.planning.motion import Departure, Motion

BEGIN_NS, STEP_NS = 1_000, 100
POINTS = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0], [4.0, 5.0]], np.float32)
MOTION = Motion(BEGIN_NS, STEP_NS, POINTS)
LIMIT = np.array([0.5, 0.5], np.float32)


@pytest.mark.parametrize(
    ("now_ns", "expected"), [(900, 0.0), (1_000, 0.0), (1_050, 0.5), (1_250, 3.0), (9_000, 4.0)]
)
def test_between_two_rows_the_robot_is_on_its_way(now_ns: int, expected: float) -> None:
    np.testing.assert_allclose(MOTION.at(now_ns), [expected, 5.0])


@pytest.mark.parametrize("row", [0, 1, 3, 7])
def test_a_motion_told_from_later_on_is_the_same(row: int) -> None:
    later = MOTION.since(row)
    assert later.points.shape == POINTS.shape
    for now_ns in range(BEGIN_NS + row * STEP_NS, BEGIN_NS + (row + 4) * STEP_NS, 30):
        np.testing.assert_array_equal(later.at(now_ns), MOTION.at(now_ns))


def test_the_joint_that_is_farthest_off_is_named() -> None:
    assert MOTION.astray(np.array([0.9, 5.4]), LIMIT, 1_100) is None
    assert MOTION.astray(np.array([0.4, 5.7]), LIMIT, 1_100) == 1
    assert MOTION.astray(np.array([0.2, 5.7]), LIMIT, 1_100) == 0


def test_a_joint_that_others_move_is_where_it_is() -> None:
    held = MOTION.holding((1,), np.array([9.0, 7.0], np.float32))
    np.testing.assert_array_equal(held.points, [[0, 7], [1, 7], [2, 7], [4, 7]])
    assert held.astray(np.array([1.0, 7.0]), LIMIT, 1_100) is None


def test_a_plan_amid_a_motion_begins_with_what_is_carried_out_meanwhile() -> None:
    departure = Departure(MOTION, committed=2, held=(1,))
    np.testing.assert_array_equal(departure.anchor, [2, 5])
    np.testing.assert_array_equal(departure.first_guess, [[4, 5]])
    (plan,) = departure.whole(np.array([[[2.5, 6.0]]], np.float32))
    np.testing.assert_array_equal(plan, [[1, 5], [2, 5], [2.5, 5]])
    new = departure.followed_by(plan, now_ns=1_190)
    for now_ns in (1_190, 1_200):  # when a controller gets it, and on to the end of that row
        np.testing.assert_array_equal(new.at(now_ns), MOTION.at(now_ns))


def test_a_plan_from_rest_begins_when_the_search_has_ended() -> None:
    departure = Departure(Motion.standing(POINTS[0], 3, BEGIN_NS, STEP_NS))
    np.testing.assert_array_equal(departure.first_guess, np.tile(POINTS[0], (3, 1)))
    plan = POINTS[1:]
    np.testing.assert_array_equal(departure.whole(plan[None])[0], plan)
    new = departure.followed_by(plan, now_ns=5_000)
    np.testing.assert_array_equal(new.at(5_000), POINTS[0])
    np.testing.assert_array_equal(new.at(5_100), POINTS[1])
