"""What can be asked of the node: ~/reset, ~/set_goal, ~/propose_actions, and ~/evaluate_actions and ~/predict_futures.

Requests are checked here, in the executor's thread, and answered by the worker. Until then their callbacks are suspended
coroutines, which keep neither the executor nor other questions waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rclpy.action.server import ActionServer, CancelResponse, RCLError, ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleNode
from rclpy.service import Service
from rclpy.task import Future
from std_srvs.srv import Trigger

from astra_ros.action import PredictFutures
from astra_ros.backends.manifest import Manifest
from astra_ros.ros.messages import feedback, fill_reply
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.proposing import (
    ProposalReply,
    ProposalTicket,
    fill_proposals,
    read_proposal_query,
)
from astra_ros.ros.queries import GoalInput, QueryRefusal, Request, Status, read_goal, read_query
from astra_ros.ros.tickets import Progress, Reply, Ticket
from astra_ros.ros.worker import Worker
from astra_ros.srv import EvaluateActions, ProposeActions, SetGoal

_NOT_ACTIVE = "the node is not active: activate it first (ros2 lifecycle set NODE activate)"
# rclpy keeps the results of actions, pictures included, for a client that asks again; its default is 15 minutes.
_RESULT_TIMEOUT_S = 10


@dataclass(frozen=True)
class Session:
    """What the services need of the session. reset: forgets the history; False when the node is not active.

    worker: None while the node is not active. set_goal: the standing one; None = none.
    """

    manifest: Manifest
    config: Callable[[], NodeConfig]
    worker: Callable[[], Worker | None]
    reset: Callable[[], bool]
    set_goal: Callable[[GoalInput | None], None]


class Services:
    """The services and the action of one configuration."""

    def __init__(self, node: LifecycleNode, session: Session) -> None:
        self._node = node
        self._session = session
        self._num_waiting = 0
        # A suspended callback occupies its group.
        questions = ReentrantCallbackGroup()
        self._services = [
            node.create_service(Trigger, "~/reset", self._on_reset),
            node.create_service(SetGoal, "~/set_goal", self._on_set_goal),
            node.create_service(
                EvaluateActions, "~/evaluate_actions", self._on_evaluate_actions, callback_group=questions
            ),
            node.create_service(
                ProposeActions, "~/propose_actions", self._on_propose_actions, callback_group=questions
            ),
        ]
        for service in self._services:
            _tolerate_absent_clients(service)
        self._predict_futures = _PatientActionServer(
            node,
            PredictFutures,
            "~/predict_futures",
            self._on_predict_futures,
            callback_group=questions,
            cancel_callback=lambda _goal: CancelResponse.ACCEPT,
            result_timeout=_RESULT_TIMEOUT_S,
        )

    @property
    def is_asked(self) -> bool:
        """Somebody waits for an answer."""
        return self._num_waiting > 0

    def destroy(self) -> None:
        for service in self._services:
            self._node.destroy_service(service)
        self._predict_futures.destroy()

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        was_reset = self._session.reset()
        response.success = was_reset
        response.message = "history and plan forgotten" if was_reset else f"nothing to forget, {_NOT_ACTIVE}"
        return response

    def _on_set_goal(self, request: SetGoal.Request, response: SetGoal.Response) -> SetGoal.Response:
        try:
            self._session.set_goal(read_goal(request.goal, self._session.manifest))
            response.success = True
        except QueryRefusal as refusal:
            response.message = str(refusal)
        return response

    async def _on_evaluate_actions(
        self, request: EvaluateActions.Request, response: EvaluateActions.Response
    ) -> EvaluateActions.Response:
        return fill_reply(response, await self._ask(request))

    async def _on_propose_actions(
        self, request: ProposeActions.Request, response: ProposeActions.Response
    ) -> ProposeActions.Response:
        return fill_proposals(response, await self._propose(request), self._session.manifest.action)

    async def _on_predict_futures(self, goal: ServerGoalHandle) -> PredictFutures.Result:
        # Also what is wrong is accepted: a rejected goal could not say why, an aborted one has a result.
        reply = await self._ask(
            goal.request,
            report=lambda progress: self._publish(goal, progress),
            is_cancelled=lambda: goal.is_cancel_requested,
        )
        if goal.is_cancel_requested:
            goal.canceled()
        elif reply.status in (Status.OK, Status.PARTIAL):
            goal.succeed()
        else:
            goal.abort()
        return fill_reply(PredictFutures.Result(), reply)

    def _publish(self, goal: ServerGoalHandle, progress: Progress) -> None:
        """Unless a signal has ended the context, and nobody can be told."""
        try:
            goal.publish_feedback(feedback(progress))
        except RCLError:
            if self._node.context.ok():
                raise

    async def _ask(
        self,
        request: Request,
        report: Callable[[Progress], None] = lambda _progress: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Reply:
        worker = self._session.worker()
        if worker is None:
            return Reply(Status.NOT_ACTIVE, _NOT_ACTIVE)
        session, now_ns = self._session, self._node.get_clock().now().nanoseconds
        try:
            query = read_query(request, session.manifest, session.config(), now_ns)
        except QueryRefusal as refusal:
            return Reply(refusal.status, str(refusal))
        found: Reply = await self._answer(
            lambda reply: worker.ask(Ticket(query, reply, report, is_cancelled))
        )
        return found

    async def _propose(self, request: ProposeActions.Request) -> ProposalReply:
        worker = self._session.worker()
        if worker is None:
            return ProposalReply(Status.NOT_ACTIVE, _NOT_ACTIVE)
        try:
            query = read_proposal_query(request, self._session.manifest)
        except QueryRefusal as refusal:
            return ProposalReply(refusal.status, str(refusal))
        found: ProposalReply = await self._answer(lambda reply: worker.propose(ProposalTicket(query, reply)))
        return found

    async def _answer(self, submit: Callable[[Callable[[Any], None]], None]) -> Any:
        """What the worker replies. submit: gives it the question, and whom to tell."""
        executor, replied = self._node.executor, Future()

        def reply(found: Any) -> None:
            replied.set_result(found)
            # rclpy looks after its suspended callbacks only when something wakes the executor.
            with suppress(InvalidHandle):
                executor.wake()

        submit(reply)
        self._num_waiting += 1
        try:
            return await replied
        finally:
            self._num_waiting -= 1


class _PatientActionServer(ActionServer):
    """rclpy's, except that a result is sent when it is there, and one which nobody can take any more does not end the process.

    rclpy leaves the sending to a task of the executor, which comes too late where the node is cleaned up next.
    """

    def add_future(self, future: Future) -> None:
        """Not the executor's: what waits for it is called at once."""

    def remove_future(self, future: Future) -> None:
        """There is none."""

    def _send_result_response(self, request_header: Any, future: Future) -> None:
        with suppress(InvalidHandle):
            super()._send_result_response(request_header, future)


def _tolerate_absent_clients(service: Service) -> None:
    """A reply that comes after the client has gone, or after the service has, is dropped instead of ending the process."""
    send = service.send_response

    def send_if_possible(response: Any, header: Any) -> None:
        with suppress(InvalidHandle, RCLError):
            send(response, header)

    service.send_response = send_if_possible
