"""What a joint trajectory controller is sent on its topic is a plan as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from astra_ros.msg import ActionSequence, PredictedFuture
from astra_ros.ros.stamps import to_ns, to_time
from tests.ros.rig import HORIZON, JOINTS, NANOSECONDS, POSITIONS, Rig, image, joint_state, trajectory
from tests.ros.test_services import call

ARM = JOINTS[:7]
STEP_S, DURATION_S = 0.2, 100.0


def send(rig: Rig, duration_s: float, stamp_ns: int = 0) -> None:
    """The arm's joints to half of where they are."""
    message = trajectory([(duration_s, (0.5 * POSITIONS[:7]).tolist())], ARM)
    message.header.stamp = to_time(stamp_ns)
    rig.trajectory.publish(message)
    rig.spin_until(lambda: "joint_trajectory.received" in rig.counters())


def rows_of(future: PredictedFuture) -> np.ndarray:
    return np.array(future.actions.data).reshape(HORIZON, len(JOINTS))


def serve_at(rig: Rig, positions: np.ndarray) -> PredictedFuture:
    stamp_ns = rig.now_ns()
    rig.joints.publish(joint_state(stamp_ns, positions=positions.astype(float).tolist()))
    rig.image.publish(image(stamp_ns))
    return rig.future_at(stamp_ns)


def test_a_trajectory_of_some_joints_is_the_plan_and_the_others_stay(rig: Rig) -> None:
    rig.serve()
    start_ns = rig.now_ns()
    send(rig, DURATION_S, start_ns)
    future = rig.serve()
    rows = rows_of(future)
    assert not future.flags & PredictedFuture.FLAG_HOLD_STILL
    elapsed_s = (to_ns(future.header.stamp) - start_ns) / NANOSECONDS + STEP_S * np.arange(1, HORIZON + 1)
    # It was begun where the robot was when it was received, at some time before t0.
    share, late = elapsed_s[1:, None] / DURATION_S, (elapsed_s[0] - STEP_S) / DURATION_S
    np.testing.assert_allclose(rows[1:, :7], POSITIONS[:7] * (1 - 0.5 * share), atol=0.5 * late + 1e-5)
    pace = np.diff(rows[1:, :7], axis=0) / POSITIONS[:7]
    np.testing.assert_allclose(pace, -0.5 * STEP_S / DURATION_S, rtol=0.1)
    np.testing.assert_allclose(rows[:, 7], POSITIONS[7], atol=1e-6)


def test_a_point_between_two_steps_of_the_model_is_reached_when_it_says(rig: Rig) -> None:
    rig.serve()
    send(rig, 0.25, rig.now_ns())
    rig.spin_for(0.1)
    rows = rows_of(rig.serve())
    np.testing.assert_allclose(rows[:, :7], np.tile(0.5 * POSITIONS[:7], (HORIZON, 1)), atol=1e-5)


def test_two_that_are_sent_in_one_go_follow_each_other(rig: Rig) -> None:
    start_ns = rig.now_ns()
    for after_s, share in ((0.0, 0.5), (DURATION_S, 1.0)):
        message = trajectory([(DURATION_S, (share * POSITIONS[:7]).tolist())], ARM)
        message.header.stamp = to_time(start_ns + round(after_s * NANOSECONDS))
        rig.trajectory.publish(message)
    rig.spin_until(lambda: rig.counters().get("joint_trajectory.received") == "2")
    # The second alone would have the arm stay until it begins.
    assert (np.abs(rows_of(rig.serve())[-1, :7]) < np.abs(POSITIONS[:7])).all()


def test_without_a_stamp_it_starts_when_it_is_received_and_is_not_replayed(rig: Rig) -> None:
    rig.serve()
    sent_ns = rig.now_ns()
    send(rig, DURATION_S)
    received_ns = rig.now_ns()
    rig.spin_for(0.5)
    future = rig.serve()
    last = rows_of(future)[-1, :7]
    elapsed_s = 2 * DURATION_S * (1 - float(last[0] / POSITIONS[0])) - HORIZON * STEP_S  # at t0
    since_s = [(to_ns(future.header.stamp) - at_ns) / NANOSECONDS for at_ns in (received_ns, sent_ns)]
    assert since_s[0] - 0.01 < elapsed_s < since_s[1] + 0.01


def test_joints_that_it_leaves_out_stay_where_they_are_now(rig: Rig) -> None:
    rig.serve()
    send(rig, DURATION_S)
    closed = POSITIONS.copy()
    closed[7] = 0.0
    np.testing.assert_array_equal(rows_of(serve_at(rig, closed))[:, 7], 0.0)


def test_one_that_comes_before_the_first_joint_states_is_kept(rig: Rig) -> None:
    send(rig, 20.0)
    future = rig.serve()
    assert not future.flags & PredictedFuture.FLAG_HOLD_STILL
    rows = rows_of(future)
    # From where the joints are then, in the time that is left, which is a little less.
    share = (rows[:, :7] / POSITIONS[:7]).mean(axis=1)
    assert (np.diff(share) < 0).all()
    assert 1 - 0.5 * STEP_S / 10 < share[0] <= 1 - 0.5 * STEP_S / 20 + 1e-6
    np.testing.assert_allclose(rows[:, 7], POSITIONS[7], atol=1e-6)


def refused_joint_states(rig: Rig) -> None:
    stamp_ns = to_ns(rig.serve().header.stamp)
    halfway = (0.5 * POSITIONS).astype(float).tolist()
    rig.joints.publish(joint_state(stamp_ns - 1_000_000, positions=halfway))
    rig.spin_until(lambda: rig.drops() == {"out_of_order": 1})


def forgotten_joint_states(rig: Rig) -> None:
    serve_at(rig, 0.5 * POSITIONS)
    call(rig, Trigger, "reset", Trigger.Request())


@pytest.mark.parametrize("are_sent", [refused_joint_states, forgotten_joint_states])
def test_it_does_not_begin_at_joint_states_that_do_not_count(
    rig: Rig, are_sent: Callable[[Rig], None]
) -> None:
    are_sent(rig)
    send(rig, DURATION_S)
    share = rows_of(rig.serve())[:, :7] / POSITIONS[:7]
    np.testing.assert_allclose(share, 1, atol=0.1)


def test_one_for_later_is_kept_until_it_starts(rig: Rig) -> None:
    rig.serve()
    start_ns = rig.now_ns() + 3 * NANOSECONDS  # beyond the horizon of 2 s
    send(rig, DURATION_S, start_ns)
    assert rig.drops() == {}
    rig.spin_until(lambda: rig.now_ns() > start_ns)
    # It begins where the robot is then.
    future = serve_at(rig, 0.8 * POSITIONS)
    assert not future.flags & PredictedFuture.FLAG_HOLD_STILL
    share = rows_of(future)[:, :7] / POSITIONS[:7]
    assert (np.diff(share, axis=0) < 0).all()
    np.testing.assert_allclose(share, 0.8, atol=0.02)


def withdraw_trajectory(rig: Rig) -> None:
    rig.trajectory.publish(JointTrajectory())
    rig.spin_until(lambda: rig.counters()["joint_trajectory.received"] == "2")


def withdraw_plan(rig: Rig) -> None:
    rig.plan.publish(ActionSequence())
    rig.spin_until(lambda: "action_sequence.received" in rig.counters())


@pytest.mark.parametrize("withdraw", [withdraw_trajectory, withdraw_plan])
def test_an_empty_message_withdraws_the_plan(rig: Rig, withdraw: Callable[[Rig], None]) -> None:
    rig.serve()
    send(rig, DURATION_S)
    assert not rig.serve().flags & PredictedFuture.FLAG_HOLD_STILL
    withdraw(rig)
    assert rig.serve().flags & PredictedFuture.FLAG_HOLD_STILL
    assert rig.drops() == {}


def test_a_trajectory_that_was_carried_out_is_over(rig: Rig) -> None:
    rig.serve()
    send(rig, 0.5)
    rig.spin_for(0.7)
    assert rig.serve().flags & PredictedFuture.FLAG_HOLD_STILL


def test_unknown_joints_are_refused(rig: Rig) -> None:
    rig.trajectory.publish(trajectory([(1.0, [0.0])], ("wheel",)))
    status = rig.status(DiagnosticStatus.WARN, "joint_trajectory")
    assert "found wheel; plan for the group that the model was trained on" in status.message
    assert rig.drops() == {"bad_action_sequence": 1}
