"""What can be asked of the node beside questions about candidates (test_questions.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rcl_interfaces.srv import GetLoggerLevels
from rclpy.action.client import ActionClient
from std_srvs.srv import Trigger

from astra_ros.action import PredictFutures
from astra_ros.msg import PredictedFuture
from astra_ros.srv import EvaluateActions
from tests.ros.rig import Rig, action_sequence

MakeRig = Callable[..., Rig]


def call(rig: Rig, kind: Any, name: str, request: Any) -> Any:
    client = rig.robot.create_client(kind, f"world_model/{name}")
    rig.spin_until(client.service_is_ready)
    reply = client.call_async(request)
    rig.spin_until(reply.done)
    return reply.result()


def ask(rig: Rig, goal: PredictFutures.Goal) -> Any:
    client = ActionClient(rig.robot, PredictFutures, "world_model/predict_futures")
    rig.spin_until(client.server_is_ready)
    handle = client.send_goal_async(goal)
    rig.spin_until(handle.done)
    result = handle.result().get_result_async()
    rig.spin_until(result.done)
    client.destroy()
    return result.result()


def test_reset_forgets_history_and_plan(rig: Rig, history_lengths: list[int]) -> None:
    rig.plan.publish(action_sequence())
    rig.spin_until(lambda: "action_sequence.received" in rig.counters())
    assert rig.serve().flags == 0
    rig.spin_for(0.2)
    rig.serve()
    reply = call(rig, Trigger, "reset", Trigger.Request())
    assert (reply.success, reply.message) == (True, "history and plan forgotten")
    assert rig.serve().flags == PredictedFuture.FLAG_HOLD_STILL
    assert history_lengths == [1, 2, 1]


def test_reset_of_an_inactive_node_says_so(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.node.trigger_configure()
    reply = call(rig, Trigger, "reset", Trigger.Request())
    assert not reply.success
    assert "not active" in reply.message


def test_an_inactive_node_says_that_first(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.node.trigger_configure()
    service = call(rig, EvaluateActions, "evaluate_actions", EvaluateActions.Request())
    action = ask(rig, PredictFutures.Goal())
    assert service.status == EvaluateActions.Response.STATUS_NOT_ACTIVE
    assert action.result.status == PredictFutures.Result.STATUS_NOT_ACTIVE
    assert "ros2 lifecycle set" in service.message
    assert service.message == action.result.message


def test_log_levels_can_be_asked_for(make_rig: MakeRig) -> None:
    reply = call(
        make_rig(), GetLoggerLevels, "get_logger_levels", GetLoggerLevels.Request(names=["world_model"])
    )
    assert len(reply.levels) == 1
