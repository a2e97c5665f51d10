"""What MoveIt and ros2_control send is a plan as well."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from astra_ros.msg import PredictedFuture
from astra_ros.ros.stamps import to_ns, to_time
from tests.ros.rig import HORIZON, JOINTS, NANOSECONDS, POSITIONS, Rig, trajectory

ARM = JOINTS[:7]
STEP_S, DURATION_S = 0.2, 100.0


def send(rig: Rig, duration_s: float, stamp_ns: int = 0) -> None:
    """The arm's joints to half of where they are."""
    message = trajectory([(duration_s, (0.5 * POSITIONS[:7]).tolist())], ARM)
    message.header.stamp = to_time(stamp_ns)
    rig.trajectory.publish(message)
    rig.spin_until(lambda: "joint_trajectory.received" in rig.counters())


def test_a_trajectory_of_some_joints_is_the_plan_and_the_others_stay(rig: Rig) -> None:
    rig.serve()
    start_ns = rig.now_ns()
    send(rig, DURATION_S, start_ns)
    future = rig.serve()
    rows = np.array(future.actions.data).reshape(HORIZON, len(JOINTS))
    assert not future.flags & PredictedFuture.FLAG_HOLD_STILL
    elapsed_s = (to_ns(future.header.stamp) - start_ns) / NANOSECONDS + STEP_S * np.arange(1, HORIZON + 1)
    # The first row is on the way from where the robot was measured, which did not move.
    share = elapsed_s[1:, None] / DURATION_S
    np.testing.assert_allclose(rows[1:, :7], POSITIONS[:7] * (1 - 0.5 * share), atol=1e-5)
    np.testing.assert_allclose(rows[:, 7], POSITIONS[7], atol=1e-6)


def test_without_a_stamp_it_starts_when_it_is_received_and_is_not_replayed(rig: Rig) -> None:
    rig.serve()
    sent_ns = rig.now_ns()
    send(rig, DURATION_S)
    received_ns = rig.now_ns()
    rig.spin_for(0.5)
    future = rig.serve()
    last = np.array(future.actions.data).reshape(HORIZON, len(JOINTS))[-1, :7]
    elapsed_s = 2 * DURATION_S * (1 - float(last[0] / POSITIONS[0])) - HORIZON * STEP_S  # at t0
    since_s = [(to_ns(future.header.stamp) - at_ns) / NANOSECONDS for at_ns in (received_ns, sent_ns)]
    assert since_s[0] - 0.01 < elapsed_s < since_s[1] + 0.01


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
