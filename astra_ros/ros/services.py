"""What can be asked of the node: ~/reset; ~/evaluate_actions and ~/predict_futures answer that they are not served yet."""

from __future__ import annotations

from collections.abc import Callable

from rclpy.action.server import ActionServer, ServerGoalHandle
from rclpy.lifecycle import LifecycleNode
from std_srvs.srv import Trigger

from astra_ros.action import PredictFutures
from astra_ros.srv import EvaluateActions

_NOT_ACTIVE = "the node is not active: activate it first (ros2 lifecycle set NODE activate)"


class Services:
    """The services and the action of one configuration.

    reset: forgets the history; returns False when the node is not active. is_active: the node's state.
    """

    def __init__(self, node: LifecycleNode, reset: Callable[[], bool], is_active: Callable[[], bool]) -> None:
        self._node = node
        self._reset = reset
        self._is_active = is_active
        self._services = [
            node.create_service(Trigger, "~/reset", self._on_reset),
            node.create_service(EvaluateActions, "~/evaluate_actions", self._on_evaluate_actions),
        ]
        self._predict_futures = ActionServer(
            node, PredictFutures, "~/predict_futures", self._on_predict_futures
        )

    def destroy(self) -> None:
        for service in self._services:
            self._node.destroy_service(service)
        self._predict_futures.destroy()

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        was_reset = self._reset()
        response.success = was_reset
        response.message = "history and plan forgotten" if was_reset else f"nothing to forget, {_NOT_ACTIVE}"
        return response

    def _on_evaluate_actions(
        self, _request: EvaluateActions.Request, response: EvaluateActions.Response
    ) -> EvaluateActions.Response:
        response.status, response.message = self._refusal("EvaluateActions", EvaluateActions.Response)
        return response

    def _on_predict_futures(self, goal: ServerGoalHandle) -> PredictFutures.Result:
        result = PredictFutures.Result()
        result.status, result.message = self._refusal("PredictFutures", PredictFutures.Result)
        # An accepted goal that is aborted carries a result; a rejected one could not say why.
        goal.abort()
        return result

    def _refusal(
        self, name: str, reply: type[EvaluateActions.Response | PredictFutures.Result]
    ) -> tuple[int, str]:
        if not self._is_active():
            return reply.STATUS_NOT_ACTIVE, _NOT_ACTIVE
        future = self._node.resolve_topic_name("~/predicted_future")
        plan = self._node.resolve_topic_name("action_sequence")
        return reply.STATUS_NOT_SUPPORTED, (
            f"{name} is not served by this version; publish one ActionSequence on {plan} and read its PredictedFuture"
            f" from {future}"
        )
