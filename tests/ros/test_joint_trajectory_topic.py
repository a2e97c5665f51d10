"""What MoveIt and ros2_control send is a plan as well."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from astra_ros.msg import PredictedFuture
from tests.ros.rig import HORIZON, JOINTS, POSITIONS, Rig, trajectory

ARM = JOINTS[:7]


def test_a_trajectory_of_some_joints_is_the_plan_and_the_others_stay(rig: Rig) -> None:
    rig.serve()
    wanted = 0.5 * POSITIONS[:7]
    rig.trajectory.publish(trajectory([(2.0, wanted.tolist())], ARM))
    rig.spin_until(lambda: "joint_trajectory.received" in rig.counters())
    future = rig.serve()
    rows = np.array(future.actions.data).reshape(HORIZON, len(JOINTS))
    assert not future.flags & PredictedFuture.FLAG_HOLD_STILL
    share = np.arange(1, HORIZON + 1)[:, None] / HORIZON
    np.testing.assert_allclose(rows[:, :7], POSITIONS[:7] + share * (wanted - POSITIONS[:7]), atol=1e-5)
    np.testing.assert_allclose(rows[:, 7], POSITIONS[7], atol=1e-6)


def test_unknown_joints_are_refused(rig: Rig) -> None:
    rig.trajectory.publish(trajectory([(1.0, [0.0])], ("wheel",)))
    status = rig.status(DiagnosticStatus.WARN, "joint_trajectory")
    assert "found wheel; plan for the group that the model was trained on" in status.message
    assert rig.drops() == {"bad_action_sequence": 1}
