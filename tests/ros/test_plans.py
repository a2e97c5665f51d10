"""ActionSequence → commanded positions per predicted frame."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
import pytest

from astra_ros.actions.spec import ActionSpec
from astra_ros.msg import ActionSequence, PredictedFuture
from astra_ros.ros.plans import NO_PLAN_ID, Commands, Plan, Schedule, commands_for, read_plan
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import to_duration, to_time

S = 1_000_000_000
NOW = 100 * S
MEASURED = np.array([0.0, 1.0], np.float32)
SPEC = ActionSpec(
    space="arm of two joints",
    modality="arm",
    representation="joint_position",
    names=("shoulder", "elbow"),
    units=("rad", "rad"),
    step_dt=0.2,
    mean=(0.0, 0.0),
    std=(1.0, 1.0),
    delta_std=(1.0, 1.0),
    lower=(-2.0, -2.0),
    upper=(2.0, 2.0),
)


def sequence(
    rows: list[list[float]], *, step_dt: float = 0.2, stamp_ns: int = 0, **fields: Any
) -> ActionSequence:
    message = ActionSequence(
        representation=ActionSequence.REPRESENTATION_JOINT_POSITION,
        step_dt=to_duration(step_dt),
        horizon=len(rows),
        names=["shoulder", "elbow"],
        data=array("f", [value for row in rows for value in row]),
    )
    message.id.uuid = np.full(16, 3, np.uint8)
    message.header.stamp = to_time(stamp_ns)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def commands(message: ActionSequence, *, t0_ns: int = NOW, horizon: int = 4) -> Commands:
    return commands_for(read_plan(message, SPEC, 0.8, NOW), t0_ns, MEASURED, horizon, SPEC)


def test_without_a_plan_the_measured_positions_are_held() -> None:
    held = commands_for(None, NOW, MEASURED, 3, SPEC)
    np.testing.assert_array_equal(held.rows, [MEASURED] * 3)
    assert held.plan_id == NO_PLAN_ID
    assert held.flags == PredictedFuture.FLAG_HOLD_STILL
    assert held.is_hold_still


@pytest.mark.parametrize("count", [2, 4, 6])
def test_an_unstamped_plan_at_the_models_pace_is_one_that_begins_at_the_observation(count: int) -> None:
    rows = np.random.default_rng(count).uniform(-3, 3, (count, 2)).round(3).tolist()
    taken, resampled = commands(sequence(rows)), commands(sequence(rows, stamp_ns=NOW))
    np.testing.assert_array_equal(taken.rows, resampled.rows)
    assert taken.flags == resampled.flags


def test_a_plan_at_the_models_pace_is_taken_as_it_is() -> None:
    rows = [[0.1, 1.1], [0.2, 1.2], [0.3, 1.3], [0.4, 1.4]]
    found = commands(sequence(rows))
    np.testing.assert_array_equal(found.rows, np.array(rows, np.float32))
    assert found.plan_id == (3,) * 16
    assert found.flags == 0


def test_columns_are_found_by_name_among_others() -> None:
    message = sequence([[9.0, 1.5, 0.5]] * 4, names=["gripper", "elbow", "shoulder"])
    np.testing.assert_array_equal(commands(message).rows, [[0.5, 1.5]] * 4)


@pytest.mark.parametrize("names", [[], ["shoulder", "elbow"]])
def test_the_models_own_numbers_need_no_names(names: list[str]) -> None:
    native = ActionSequence.REPRESENTATION_MODEL_NATIVE
    message = sequence([[0.5, 1.5]] * 4, representation=native, names=names)
    np.testing.assert_array_equal(commands(message).rows, [[0.5, 1.5]] * 4)


def test_a_faster_plan_is_resampled() -> None:
    rows = [[0.1 * k, 1.0] for k in range(1, 9)]
    found = commands(sequence(rows, step_dt=0.1))
    np.testing.assert_allclose(found.rows[:, 0], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    assert found.flags == 0


def test_a_slower_plan_is_resampled_from_where_the_robot_is() -> None:
    found = commands(sequence([[0.4, 1.0], [0.8, 1.0]], step_dt=0.4))
    np.testing.assert_allclose(found.rows[:, 0], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)


def test_elapsed_rows_are_skipped() -> None:
    rows = [[0.1 * k, 1.0] for k in range(1, 7)]
    found = commands(sequence(rows, stamp_ns=NOW - S * 2 // 5))
    np.testing.assert_allclose(found.rows[:, 0], [0.3, 0.4, 0.5, 0.6], rtol=1e-6)


def test_between_two_rows_the_robot_is_on_its_way() -> None:
    found = commands(sequence([[0.2, 1.0], [0.4, 1.0]], stamp_ns=NOW - S // 10), horizon=1)
    # Row 0 is due 0.1 s after t0, row 1 at 0.3 s, and the frame is at 0.2 s.
    np.testing.assert_allclose(found.rows[:, 0], [0.3], rtol=1e-6)


def test_an_elapsed_row_does_not_pull_the_robot_back() -> None:
    # Row 0 was due 0.5 s before t0, row 1 is due 0.5 s after it.
    found = commands(sequence([[2.0, 1.0], [1.0, 1.0]], step_dt=1.0, stamp_ns=NOW - S * 3 // 2))
    np.testing.assert_allclose(found.rows[:, 0], [0.4, 0.8, 1.0, 1.0], rtol=1e-6)


def test_until_a_plan_starts_the_robot_is_still() -> None:
    found = commands(sequence([[1.0, 1.0]], stamp_ns=NOW + S * 2 // 5))
    np.testing.assert_allclose(found.rows[:, 0], [0.0, 0.0, 1.0, 1.0], rtol=1e-6)


def test_where_a_plan_says_nothing_a_joint_stays_or_is_on_its_way() -> None:
    rows = np.array([[math.nan, math.nan], [0.4, math.nan]], np.float32)
    found = commands_for(Plan(NO_PLAN_ID, NOW, S // 5, rows, NOW), NOW, MEASURED, 3, SPEC)
    np.testing.assert_allclose(found.rows, [[0.2, 1.0], [0.4, 1.0], [0.4, 1.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("num_rows", "flag"), [(3, "FLAG_PLAN_EXTENDED"), (4, None), (5, "FLAG_HORIZON_CLIPPED")]
)
def test_a_plan_of_another_length_is_flagged(num_rows: int, flag: str | None) -> None:
    found = commands(sequence([[0.1 * k, 1.0] for k in range(1, num_rows + 1)]))
    np.testing.assert_allclose(found.rows[:, 0], [0.1, 0.2, 0.3, min(0.4, 0.1 * num_rows)], rtol=1e-6)
    assert found.flags == (getattr(PredictedFuture, flag) if flag else 0)


def test_positions_beyond_the_trained_range_are_limited_and_flagged() -> None:
    found = commands(sequence([[0.5, 5.0]] * 4))
    np.testing.assert_array_equal(found.rows, [[0.5, 2.0]] * 4)
    assert found.flags == PredictedFuture.FLAG_ACTION_CLIPPED


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"representation": ActionSequence.REPRESENTATION_EE_POSE},
            ["representation", "expected 1", "found 4"],
        ),
        ({"representation": ActionSequence.REPRESENTATION_UNKNOWN}, ["representation", "found 0"]),
        (
            {"representation": ActionSequence.REPRESENTATION_MODEL_NATIVE, "names": ["elbow", "shoulder"]},
            ["names: expected shoulder, elbow in this order", "found elbow, shoulder"],
        ),
        (
            {"representation": ActionSequence.REPRESENTATION_MODEL_NATIVE, "names": [], "horizon": 3},
            ["data", "3 * 2 = 6 values", "found 4"],
        ),
        ({"names": ["shoulder"]}, ["names", "missing elbow", "found shoulder"]),
        ({"names": []}, ["names", "found none"]),
        ({"names": ["shoulder", "elbow", "elbow"]}, ["names", "each once"]),
        ({"horizon": 0}, ["horizon", "found 0"]),
        ({"horizon": 3}, ["data", "3 * 2 = 6 values", "found 4"]),
        ({"data": array("f", [1.0, 2.0, 3.0])}, ["data", "2 * 2 = 4 values", "found 3"]),
        ({"data": array("f", [0.0, 1.0, 2.0, math.nan])}, ["data", "nan", "'elbow'", "row 1"]),
        ({"data": array("f", [math.inf, 1.0, 2.0, 3.0])}, ["data", "inf", "'shoulder'", "row 0"]),
        ({"step_dt": 0.0}, ["step_dt", "above 0"]),
        ({"stamp_ns": NOW - 2 * S}, ["header.stamp", "ended 1.600 s ago"]),
        ({"stamp_ns": NOW + 2 * S}, ["header.stamp", "2.000 s from now", "0.8 s"]),
    ],
)
def test_refused_plans(fields: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        read_plan(sequence([[0.1, 0.2], [0.3, 0.4]], **fields), SPEC, 0.8, NOW)
    assert caught.value.cause is Drop.BAD_PLAN
    assert "\n" not in str(caught.value)
    for text in expected:
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("stamp_ns", "t0_ns", "now_ns", "is_usable"),
    [
        (0, NOW, NOW + S, True),
        (0, NOW + 3 * S, NOW + 3 * S, False),  # received too long ago
        (NOW, NOW + S * 3 // 10, NOW + S, True),
        (NOW, NOW + S * 3 // 10, NOW + 3 * S, True),  # received too long ago, but not over
        (NOW, NOW + S * 4 // 10, NOW + S, False),  # over
    ],
)
def test_a_plan_is_used_until_it_ends_or_without_a_stamp_times_out(
    stamp_ns: int, t0_ns: int, now_ns: int, is_usable: bool
) -> None:
    plan = read_plan(sequence([[0.1, 0.2], [0.3, 0.4]], stamp_ns=stamp_ns), SPEC, 0.8, NOW)
    assert plan.is_usable(t0_ns, now_ns, timeout_s=2.0) is is_usable


def received(now_ns: int, starts_ns: int) -> Plan:
    return read_plan(sequence([[0.1, 0.2]] * 20, stamp_ns=starts_ns), SPEC, 10.0, now_ns)


def test_a_plan_for_later_follows_the_one_in_force() -> None:
    schedule, first, later = Schedule(), received(NOW, NOW), received(NOW, NOW + 3 * S)
    schedule.set(first)
    schedule.set(later)
    found = [schedule.at(NOW + seconds * S, NOW + seconds * S, timeout_s=2.0) for seconds in range(8)]
    assert found == [first, first, first, later, later, later, later, None]


def test_plans_that_are_sent_often_and_ahead_follow_each_other() -> None:
    schedule, step = Schedule(), S // 20
    schedule.set(received(NOW, NOW - step))
    for now in range(NOW, NOW + 60 * S, step):
        schedule.set(received(now, now + 2 * step))
        found = schedule.at(now - step, now, timeout_s=2.0)
        assert found is not None
        assert found.stamp_ns == (now - step if now > NOW + 2 * step else NOW - step)


def test_plans_of_which_nobody_asks_do_not_pile_up() -> None:
    schedule = Schedule()
    for now in range(NOW, NOW + 60 * S, S // 20):
        schedule.set(received(now, now + S))
    assert len(schedule._plans) < 50
    for ahead in range(5000):
        schedule.set(received(NOW, NOW + ahead))
    assert len(schedule._plans) <= 256


def test_a_plan_is_kept_for_pictures_that_may_be_older() -> None:
    schedule, first, later = Schedule(), received(NOW, NOW - S), received(NOW + 3 * S, NOW + S)
    for plan in (first, later, received(NOW + 3 * S, NOW + 3 * S)):
        schedule.set(plan, picture_age_ns=4 * S)
    assert schedule.at(NOW, NOW + 3 * S, timeout_s=2.0) is first
    assert schedule.at(NOW + S, NOW + 3 * S, timeout_s=2.0) is later


def test_a_plan_for_later_is_known_before_its_start_when_there_is_no_other() -> None:
    schedule, later = Schedule(), received(NOW, NOW + 3 * S)
    schedule.set(later)
    assert schedule.at(NOW, NOW, timeout_s=2.0) is later


def test_a_plan_that_starts_now_replaces_what_was_to_start_later() -> None:
    schedule, now = Schedule(), received(NOW + S, NOW + S)
    schedule.set(received(NOW, NOW + 3 * S))
    schedule.set(now)
    assert schedule.at(NOW + 4 * S, NOW + 4 * S, timeout_s=2.0) is now
    schedule.clear()
    assert schedule.at(NOW + 4 * S, NOW + 4 * S, timeout_s=2.0) is None


def told(speed: float, received_ns: int) -> Plan:
    return Plan(NO_PLAN_ID, 0, S // 5, np.array([[speed, 0.0]], np.float32), received_ns)


def test_a_command_is_in_force_where_no_plan_is_for_half_a_second() -> None:
    schedule, command, plan = Schedule(), told(0.5, NOW), received(NOW, NOW + S)
    schedule.set_command(command)
    assert schedule.at(NOW, NOW, timeout_s=2.0) is command
    schedule.set(plan)
    assert schedule.at(NOW, NOW + S // 4, timeout_s=2.0) is command  # the plan begins later
    schedule.set_command(told(0.5, NOW + S))
    assert schedule.at(NOW + S, NOW + S, timeout_s=2.0) is plan
    schedule.withdraw()
    found = schedule.at(NOW + S, NOW + S, timeout_s=2.0)
    assert found is not None
    assert found.rows[0, 0] == 0.5
    assert schedule.at(NOW + S, NOW + 7 * S // 4, timeout_s=2.0) is None
    schedule.set_command(command)
    schedule.clear()
    assert schedule.at(NOW, NOW, timeout_s=2.0) is None


RATES = ActionSpec(
    "rover", "drive", "rate", ("x", "turn"), ("m/s", "rad/s"), 0.2, (0.0,) * 2, (1.0,) * 2, (1.0,) * 2, (-2.0,) * 2, (2.0,) * 2
)  # fmt: skip


@pytest.mark.parametrize(
    ("starts_s", "expected"),
    [
        (0.0, [1.0, 0.0, 0.0, 0.0]),
        (-0.1, [0.5, 0.0, 0.0, 0.0]),
        (0.1, [0.5, 0.5, 0.0, 0.0]),  # until then as measured, which is 0
        (0.5, [0.0, 0.0, 0.5, 0.5]),
    ],
)
def test_velocities_are_averaged_over_the_steps_that_they_reach_into(
    starts_s: float, expected: list[float]
) -> None:
    """A plan that goes at 1 m/s for a step and stands for the next."""
    rows = np.array([[1.0, 0.2], [0.0, 0.2]], np.float32)
    plan = Plan(NO_PLAN_ID, round(NOW + starts_s * S), S // 5, rows, NOW)
    found = commands_for(plan, NOW, np.array([0.0, 0.2], np.float32), 4, RATES)
    np.testing.assert_allclose(found.rows, [[one, 0.2] for one in expected], atol=1e-6)
    is_longer = starts_s > 0.4  # than the horizon
    assert found.flags == (
        PredictedFuture.FLAG_HORIZON_CLIPPED if is_longer else PredictedFuture.FLAG_PLAN_EXTENDED
    )
