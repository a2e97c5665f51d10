"""Simulated time: ages follow /clock, and a clock that jumps back starts a new history."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rosgraph_msgs.msg import Clock

from astra_ros.msg import PredictedFuture
from astra_ros.ros.stamps import to_ns, to_time
from astra_ros.types import NANOSECONDS
from tests.ros.rig import Rig, action_sequence, image, joint_state

MakeRig = Callable[..., Rig]


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    rig = make_rig(use_sim_time=True, max_observation_age_s=0.5)
    rig.activate()
    return rig


@pytest.fixture
def set_time(rig: Rig) -> Callable[[float], None]:
    clock = rig.robot.create_publisher(Clock, "/clock", 10)

    def set_time(seconds: float) -> None:
        now_ns = round(seconds * NANOSECONDS)
        rig.spin_until(clock.get_subscription_count)
        clock.publish(Clock(clock=to_time(now_ns)))
        rig.spin_until(lambda: rig.now_ns() == rig.node.get_clock().now().nanoseconds == now_ns)

    return set_time


def test_ages_follow_the_simulated_clock(rig: Rig, set_time: Callable[[float], None]) -> None:
    set_time(1000.3)
    stamp_ns = round(1000.1 * NANOSECONDS)
    rig.joints.publish(joint_state(stamp_ns))
    rig.image.publish(image(stamp_ns))
    assert to_ns(rig.future_at(stamp_ns).observation_age) == pytest.approx(0.2 * NANOSECONDS, abs=2)
    set_time(1001.0)
    rig.image.publish(image(stamp_ns + 1))
    assert "found 0.900 s" in rig.status(DiagnosticStatus.WARN, "header.stamp").message


def test_without_a_clock_the_line_names_it(rig: Rig) -> None:
    rig.image.publish(image(5 * NANOSECONDS))
    line = rig.status(DiagnosticStatus.WARN, "/image: header.stamp").message
    assert "no /clock was received" in line


@pytest.mark.parametrize("step_back_s", [0.3, 600.0])
def test_a_jump_back_clears_history_and_plan(
    rig: Rig, set_time: Callable[[float], None], history_lengths: list[int], step_back_s: float
) -> None:
    set_time(1000.0)
    rig.serve()
    set_time(1000.2)
    rig.plan.publish(action_sequence())
    rig.spin_until(lambda: "action_sequence.received" in rig.counters())
    assert not rig.serve().flags & PredictedFuture.FLAG_HOLD_STILL
    set_time(1000.2 - step_back_s)
    assert rig.serve().flags & PredictedFuture.FLAG_HOLD_STILL
    set_time(1000.4 - step_back_s)
    rig.serve()
    assert history_lengths == [1, 2, 1, 2]
    assert rig.drops() == {}
