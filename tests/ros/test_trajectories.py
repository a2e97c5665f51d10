"""What MoveIt and ros2_control send, as candidates."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from trajectory_msgs.msg import JointTrajectory

from astra_ros.msg import ActionSequence, Goal, ModelInfo
from astra_ros.ros import moveit
from astra_ros.ros.moveit import rank_plans
from astra_ros.ros.stamps import to_duration, to_time
from astra_ros.ros.trajectories import TrajectoryError, read_trajectory, to_action_sequence
from astra_ros.srv import EvaluateActions
from astra_ros.types import FloatArray
from tests.ros.rig import trajectory

JOINTS = ("shoulder", "elbow")
INFO = ModelInfo(action_names=list(JOINTS), step_dt=to_duration(0.2))


def rows(sequence: ActionSequence) -> np.ndarray:
    return np.array(sequence.data).reshape(sequence.horizon, len(sequence.names))


def test_points_are_resampled_and_the_last_is_held_to_the_end_of_its_step() -> None:
    sequence = to_action_sequence(trajectory([(0.0, [0.0, 0.0]), (0.5, [1.0, -1.0])], JOINTS), INFO)
    np.testing.assert_allclose(rows(sequence), [[0.4, -0.4], [0.8, -0.8], [1.0, -1.0]], atol=1e-6)
    assert sequence.step_dt == INFO.step_dt
    assert sequence.representation == ActionSequence.REPRESENTATION_JOINT_POSITION


@pytest.mark.parametrize(("end_s", "horizon"), [(0.0, 1), (0.2, 1), (0.6, 3), (0.61, 4)])
def test_the_horizon_covers_the_trajectory(end_s: float, horizon: int) -> None:
    points = [(0.0, [0.0, 0.0])] * bool(end_s) + [(end_s, [1.0, 1.0])]
    assert to_action_sequence(trajectory(points, JOINTS), INFO).horizon == horizon


def test_joints_are_put_in_order_and_the_others_held() -> None:
    swapped = trajectory([(0.2, [1.0, 2.0])], ("elbow", "shoulder"))
    np.testing.assert_array_equal(rows(to_action_sequence(swapped, INFO)), [[2, 1]])
    only_elbow = trajectory([(0.2, [1.0])], ("elbow",))
    np.testing.assert_array_equal(
        rows(to_action_sequence(only_elbow, INFO, measured={"shoulder": 0.5})), [[0.5, 1]]
    )


def test_joint_states_of_more_than_the_model_has_are_fine() -> None:
    only_elbow = trajectory([(0.2, [1.0])], ("elbow",))
    measured = {"wheel": 7.0, "shoulder": 0.5, "elbow": 0.0}
    np.testing.assert_array_equal(rows(to_action_sequence(only_elbow, INFO, measured=measured)), [[0.5, 1]])
    with pytest.raises(TrajectoryError, match="found wheel"):
        to_action_sequence(trajectory([(0.2, [1.0])], ("wheel",)), INFO, measured=measured)


def test_the_stamp_carries_over() -> None:
    stamped = trajectory([(0.2, [1.0, 2.0])], JOINTS)
    stamped.header.stamp = to_time(7)
    assert to_action_sequence(stamped, INFO).header.stamp == to_time(7)


def test_a_point_later_than_now_is_reached_from_where_the_joints_are() -> None:
    """As a joint trajectory controller does."""
    later = trajectory([(0.4, [1.0])], ("elbow",))
    moved = to_action_sequence(later, INFO, measured={"shoulder": 0.5, "elbow": 0.0})
    np.testing.assert_allclose(rows(moved), [[0.5, 0.5], [0.5, 1.0]], atol=1e-6)
    np.testing.assert_allclose(
        rows(to_action_sequence(later, INFO, measured={"shoulder": 0.5})), [[0.5, 1.0]] * 2
    )


S = 1_000_000_000
NOW = 100 * S
AT_REST = np.array([0.4, 0.5], np.float32)


def plan_rows(message: JointTrajectory, stamp_ns: int, measured: FloatArray | None = AT_REST) -> FloatArray:
    message.header.stamp = to_time(stamp_ns)
    plan = read_trajectory(message, JOINTS, S // 5, measured, NOW)
    assert (plan.stamp_ns, plan.step_ns, plan.received_ns) == (stamp_ns or NOW, S // 5, NOW)
    return plan.rows


def test_a_plan_leaves_the_other_joints_to_those_who_move_them() -> None:
    rows = plan_rows(trajectory([(0.4, [1.0])], ("elbow",)), 0)
    np.testing.assert_allclose(rows, [[np.nan, 0.75], [np.nan, 1.0]])


def test_a_plan_that_comes_late_goes_on_from_where_the_joints_are() -> None:
    late = plan_rows(trajectory([(5.0, [1.0, 0.5])], JOINTS), NOW - 2 * S)
    np.testing.assert_allclose(late[9:12, 0], [0.4, 0.44, 0.48], atol=1e-6)
    # The first point is over: the controller is on its way from there.
    begun = plan_rows(trajectory([(1.0, [0.0, 0.5]), (3.0, [1.0, 0.5])], JOINTS), NOW - 2 * S)
    np.testing.assert_allclose(begun[9:12, 0], [0.5, 0.6, 0.7], atol=1e-6)


def test_the_way_of_a_plan_from_where_nobody_has_measured_is_open() -> None:
    rows = plan_rows(trajectory([(0.5, [1.0]), (0.6, [2.0])], ("elbow",)), 0, measured=None)
    np.testing.assert_array_equal(rows, [[np.nan, np.nan], [np.nan, np.nan], [np.nan, 2.0]])


def test_a_plan_of_joints_that_the_model_does_not_know_is_refused() -> None:
    with pytest.raises(TrajectoryError, match="found wrist; plan for the group"):
        plan_rows(trajectory([(0.2, [1.0])], ("wrist",)), 0)


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (trajectory([], JOINTS), "points: expected at least 1"),
        (trajectory([(2e9, [1.0, 1.0])], JOINTS), "expected an end within 600 s, found 2e"),
        (trajectory([(0.2, [1.0])], JOINTS), r"points\[0\].positions: expected 2 values"),
        (
            trajectory([(0.2, [1.0, 1.0]), (0.2, [1.0, 1.0])], JOINTS),
            "time_from_start: expected times that rise",
        ),
        (trajectory([(0.2, [1.0, np.nan])], JOINTS), "finite numbers, found nan for 'elbow'"),
        (trajectory([(0.2, [1.0, 1.0])], ("shoulder", "wrist")), "found wrist"),
        (trajectory([(0.2, [1.0])], ("shoulder",)), "missing elbow; give their positions as measured="),
        (trajectory([(0.2, [1.0, 1.0])], ("elbow", "elbow")), "every joint once"),
        (trajectory([(0.2, [])], ()), "every joint once, found none"),
    ],
)
def test_what_cannot_be_a_plan_is_refused(broken: JointTrajectory, line: str) -> None:
    with pytest.raises(TrajectoryError, match=line):
        to_action_sequence(broken, INFO)


def test_plans_of_moveit_become_one_request() -> None:
    """Stand-ins with the fields of moveit_msgs, which is not on PyPI."""
    one, two = trajectory([(0.2, [1.0, 1.0])], JOINTS), trajectory([(0.4, [2.0, 2.0])], JOINTS)
    robot_trajectory = SimpleNamespace(joint_trajectory=one)
    response = SimpleNamespace(trajectory=SimpleNamespace(joint_trajectory=two))
    goal = Goal(type=Goal.TYPE_TEXT)
    of_moveit_py = SimpleNamespace(get_robot_trajectory_msg=lambda: robot_trajectory)
    plans = [robot_trajectory, response, one, of_moveit_py, SimpleNamespace(trajectory=of_moveit_py)]
    request = rank_plans(plans, INFO, goal, top_k=3)
    assert isinstance(request, EvaluateActions.Request)
    assert [candidate.horizon for candidate in request.candidates] == [1, 2, 1, 1, 1]
    assert [candidate.id.uuid[0] for candidate in request.candidates] == [0, 1, 2, 3, 4]
    assert (request.goal, request.top_k) == (goal, 3)


def test_long_plans_are_ranked_by_where_they_are_by_then() -> None:
    plans = [
        trajectory([(0.2, [1.0, 1.0]), (2.0, [10.0, 10.0])], JOINTS),
        trajectory([(0.4, [2.0, 2.0])], JOINTS),
    ]
    long, short = rank_plans(plans, INFO, until_s=0.6).candidates
    assert (long.horizon, short.horizon) == (3, 2)
    np.testing.assert_allclose(np.array(long.data).reshape(3, 2), [[1, 1], [2, 2], [3, 3]], atol=1e-6)
    with pytest.raises(TrajectoryError, match=r"until_s: expected a step of 0.2 s or more, found 0.1 s"):
        rank_plans(plans, INFO, until_s=0.1)


def test_a_plan_that_is_elsewhere_at_once_is_refused() -> None:
    """Of joints that change by 0.1 and 0.2 from step to step."""
    info = ModelInfo(action_names=list(JOINTS), step_dt=to_duration(0.2), action_step_std=[0.1, 0.2])
    there = trajectory([(0.0, [1.0, 0.5]), (0.4, [1.0, 0.6])], JOINTS)
    rank_plans([there], info, measured={"shoulder": 0.9, "elbow": 0.3})
    rank_plans([there], info, measured={})
    line = r"^plans\[1\].points\[0\].positions: expected elbow within 0.3 of where it is, 0, found 0.5 at time 0; plan from"
    with pytest.raises(TrajectoryError, match=line):
        rank_plans(
            [trajectory([(0.4, [1.0, 0.6])], JOINTS), there], info, measured={"shoulder": 1.0, "elbow": 0.0}
        )


def test_a_deadline_may_be_seconds() -> None:
    request = rank_plans([trajectory([(0.2, [1.0, 1.0])], JOINTS)], INFO, deadline=1.5)
    assert (request.deadline.sec, request.deadline.nanosec) == (1, 500_000_000)


@pytest.mark.parametrize("until_s", [float("nan"), float("inf")])
def test_a_time_without_end_is_no_time(until_s: float) -> None:
    with pytest.raises(TrajectoryError, match="until_s: expected a finite number of seconds"):
        rank_plans([trajectory([(0.2, [1.0, 1.0])], JOINTS)], INFO, until_s=until_s)


def test_a_field_that_requests_have_not_is_refused() -> None:
    """ROS' own constructor takes it and drops it."""
    with pytest.raises(
        TypeError, match=r"num_samples: expected a field of EvaluateActions.Request, candidates, goal"
    ):
        rank_plans([trajectory([(0.2, [1.0, 1.0])], JOINTS)], INFO, num_samples=4)


def test_plans_of_different_lengths_are_one_array_for_optimisers() -> None:
    plans = [
        trajectory([(0.6, [3.0, 6.0])], JOINTS),
        trajectory([(0.2, [1.0])], ("elbow",)),
    ]
    rows = moveit.plan_rows(plans, INFO, measured={"shoulder": 5.0})
    assert rows.dtype == np.float32
    assert rows.shape == (2, 3, 2)
    np.testing.assert_allclose(rows[0, -1], [3, 6])
    np.testing.assert_allclose(rows[1], [[5, 1], [5, 1], [5, 1]])
    assert moveit.plan_rows([], INFO).shape == (0, 0, 2)


def test_a_broken_plan_is_named() -> None:
    with pytest.raises(TrajectoryError, match=r"^plans\[1\].joint_names: .* found wrist"):
        rank_plans(
            [trajectory([(0.2, [1.0, 1.0])], JOINTS), trajectory([(0.2, [1.0])], ("wrist",))],
            INFO,
            measured={"shoulder": 0.0},
        )
    with pytest.raises(TrajectoryError, match=r"^plans\[0\].type: .* found str"):
        rank_plans(["a plan"], INFO)
