"""What shall be reached until somebody says otherwise: over the topic and the service, for questions and for the stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from astra_ros.msg import Goal
from astra_ros.planning import goals
from astra_ros.ros import node as node_module
from astra_ros.srv import SetGoal
from tests.ros.rig import HORIZON, Rig, image
from tests.ros.test_questions import Asker, request

PICTURE = Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=3))


def set_goal(rig: Rig, goal: Goal) -> SetGoal.Response:
    client = rig.robot.create_client(SetGoal, "world_model/set_goal")
    rig.spin_until(client.service_is_ready)
    future = client.call_async(SetGoal.Request(goal=goal))
    rig.spin_until(future.done)
    response: Any = future.result()
    return response


def test_questions_and_the_stream_are_measured_against_it(rig: Rig) -> None:
    assert set_goal(rig, PICTURE).success
    future = rig.serve()
    assert len(future.goal_distance) == HORIZON
    asker = Asker(rig)
    standing, own = asker.ask(request()), asker.ask(request(goal=PICTURE))
    assert np.isfinite(standing.scores).all()
    np.testing.assert_array_equal(standing.scores, own.scores)
    other = asker.ask(request(goal=Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=4))))
    assert other.scores.tolist() != own.scores.tolist()
    assert set_goal(rig, Goal()).success
    assert not len(rig.serve().goal_distance)
    assert np.isnan(asker.ask(request()).scores).all()


def test_a_wrong_goal_is_refused_and_the_one_before_stands(rig: Rig) -> None:
    set_goal(rig, PICTURE)
    response = set_goal(rig, Goal(type=Goal.TYPE_TEXT, text="on the shelf"))
    assert not response.success
    assert "send a picture of the goal" in response.message
    assert len(rig.serve().goal_distance) == HORIZON


def test_a_latched_goal_is_taken_before_the_node_is_active(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.goal.publish(PICTURE)
    rig.node.trigger_configure()
    rig.spin_until(lambda: rig.counters().get("goal.received") == "1")
    rig.activate_configured()
    rig.spin_until(rig.image.get_subscription_count)
    assert len(rig.serve().goal_distance) == HORIZON


def test_a_wrong_goal_on_the_topic_is_reported_until_a_right_one_comes(rig: Rig) -> None:
    rig.goal.publish(Goal(type=99))
    status = rig.status(DiagnosticStatus.WARN, "goal.type")
    assert "/goal: goal.type: expected one of Goal.TYPE_*, found 99" in status.message
    assert rig.drops() == {"bad_goal": 1}
    rig.goal.publish(Goal())
    rig.status(DiagnosticStatus.OK, "active")


def test_a_right_goal_through_the_service_ends_the_complaint(rig: Rig) -> None:
    rig.goal.publish(Goal(type=99))
    rig.status(DiagnosticStatus.WARN, "goal.type")
    assert not set_goal(rig, Goal(type=99)).success
    assert rig.node._diagnostics.health.has_problem("goal")
    assert set_goal(rig, PICTURE).success
    assert not rig.node._diagnostics.health.has_problem("goal")


def test_a_wrong_goal_is_not_held_against_the_node_for_ever(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_module, "_REFUSED_GOAL_S", 0.5)
    rig = make_rig()
    rig.goal.publish(Goal(type=99))
    rig.node.trigger_configure()
    rig.status(DiagnosticStatus.WARN, "goal.type")
    rig.status(DiagnosticStatus.OK, "inactive")


def test_a_distance_that_fails_does_not_stop_the_stream(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(goals._OWN, "codec", lambda _backend, _goal: lambda futures: futures[0])
    rig = make_rig()
    rig.activate()
    set_goal(rig, PICTURE)
    assert not len(rig.serve().goal_distance)
    assert "mend the plug-in" in rig.status(DiagnosticStatus.WARN, "goal distance").message
