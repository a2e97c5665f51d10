"""A world model node, asked from another process as if it were a function.

Calls block, so they belong to a thread that does not spin the node they are made with.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping, Sequence
from copy import copy
from threading import Event
from typing import Any, TypeAlias

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.client import Client
from rclpy.node import Node
from rclpy.qos import QoSProfile
from std_msgs.msg import Header
from unique_identifier_msgs.msg import UUID

from astra_ros.actions.spec import ActionSpec
from astra_ros.msg import ActionSequence, Goal, ModelInfo
from astra_ros.planning.refine import RefineConfig, refine
from astra_ros.planning.sampling import Costs, Planned
from astra_ros.planning.weighing import weigh
from astra_ros.rollout.proposals import Proposed
from astra_ros.ros import qos
from astra_ros.ros.moveit import plan_rows, rank_plans, to_request
from astra_ros.ros.parameters import MAX_CANDIDATES
from astra_ros.ros.plans import REPRESENTATIONS
from astra_ros.ros.stamps import to_ns
from astra_ros.srv import EvaluateActions, ProposeActions
from astra_ros.types import NANOSECONDS, FloatArray

# After its deadline an answer may still be on its way.
_PATIENCE_S = 60.0
# Of a joint that never moved, whose range is one number.
_LEAST_STD = 1e-6

Reply: TypeAlias = EvaluateActions.Response


class WorldModelError(RuntimeError):
    """The node does not answer, or not with scores. One line: what it said, or what to start.

    status: Response.STATUS_* of its refusal; None when there was none.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class WorldModelClient:
    """node: spun by somebody else. name: of the world model node."""

    def __init__(self, node: Node, name: str = "world_model") -> None:
        self._node, self._name = node, name
        group = ReentrantCallbackGroup()
        self._service = node.create_client(EvaluateActions, f"{name}/evaluate_actions", callback_group=group)
        self._proposing = node.create_client(ProposeActions, f"{name}/propose_actions", callback_group=group)
        self._info: ModelInfo | None = None
        self._info_sent_ns = 0
        self._informed = Event()
        profile: QoSProfile = qos.latched()
        node.create_subscription(
            ModelInfo, f"{name}/model_info", self._on_info, profile, callback_group=group
        )

    def info(self, timeout_s: float = 10.0) -> ModelInfo:
        """What the node has loaded. Raises WorldModelError when it is not there."""
        deadline_s = time.monotonic() + timeout_s
        # In slices: a program that is told to end meanwhile does.
        while not self._informed.wait(min(0.1, max(deadline_s - time.monotonic(), 0.0))):
            if time.monotonic() >= deadline_s or not self._node.context.ok():
                raise WorldModelError(
                    f"{self._name}: expected ~/model_info within {timeout_s:g} s, found none; start and configure the node"
                    " (ros2 launch astra_ros world_model.launch.py)"
                )
        assert self._info is not None, "set before the event"
        return self._info

    def spec(self) -> ActionSpec:
        """Of the actions it understands, for samplers."""
        return action_spec(self.info())

    def ask(self, plans: FloatArray, goal: Goal | None = None, **fields: Any) -> Reply:
        """The reply about plans (n, horizon, a). goal: None = the standing one. fields: others of the request.

        Raises WorldModelError when there is none, or one that is neither OK nor PARTIAL, and TypeError for an unknown field.
        """
        _require_few(plans)
        return self._answer(to_request(to_candidates(plans, self.info()), goal, **fields))

    def rank(
        self,
        plans: Sequence[Any],
        goal: Goal | None = None,
        *,
        measured: Mapping[str, float] | None = None,
        until_s: float | None = None,
        **fields: Any,
    ) -> Reply:
        """As `ask`, for plans of MoveIt or ros2_control. The reply's `ranking` are their indices, best first, at least one.

        measured: positions of joints that the plans leave out, such as a gripper. until_s: cuts off what comes later.
        Raises as `ask`; WorldModelError also when no plan got a score, because the deadline came first or there is no goal.
        Raises TrajectoryError, which names the plan.
        """
        _require_few(plans)
        reply = self._answer(
            rank_plans(plans, self.info(), goal, measured=measured, until_s=until_s, **fields)
        )
        self.costs_in(reply)
        return reply

    def refine(
        self,
        plans: Sequence[Any],
        goal: Goal | None = None,
        *,
        measured: Mapping[str, float] | None = None,
        until_s: float | None = None,
        config: RefineConfig | None = None,
        seed: int = 0,
    ) -> Planned:
        """A better plan than any of these, as the model sees it: mixtures of the best of them (`planning.refine`).

        plans, measured, until_s: as for `rank`. Raises as `rank`, and ValueError for fewer than two plans.
        """
        rows = plan_rows(plans, self.info(), measured=measured, until_s=until_s)
        _require_few(rows)
        return refine(self.costs(goal, seed), rows, self.spec(), config or RefineConfig(), seed)

    def propose(self, rows: int, goal: Goal | None = None, count: int = 0) -> Proposed:
        """Plans of the model's own that may lead to the goal in so many rows, likeliest first; nobody has judged them yet.

        goal: None = the standing one. count: of plans; 0 = all that the model has (`info().max_proposals`).
        Raises WorldModelError, also for a model that was not taught any.
        """
        self.info()  # so that its first one is not taken for another configuration's
        request = ProposeActions.Request(goal=goal or Goal(), rows=rows, count=count)
        reply = self._call(self._proposing, request)
        if reply.status != ProposeActions.Response.STATUS_OK:
            raise WorldModelError(f"{self._name}: status {reply.status}: {reply.message}", reply.status)
        plans = np.array([plan.data for plan in reply.candidates], np.float32)
        return Proposed(plans.reshape(len(plans), rows, -1), np.array(reply.probabilities, np.float32))

    def plan(self, rows: int, goal: Goal | None = None, *, count: int = 0, seed: int = 0) -> Planned:
        """A way to the goal in so many rows: of the model's proposals one that is near and likely (`planning.weighing`).

        goal, count: as for `propose`. Raises as `propose` and `costs`.
        """
        return weigh(self.costs(goal, seed), self.propose(rows, goal, count))

    def _answer(self, request: EvaluateActions.Request) -> Reply:
        reply: Reply = self._call(self._service, request, to_ns(request.deadline) / NANOSECONDS)
        if reply.status not in (Reply.STATUS_OK, Reply.STATUS_PARTIAL):
            raise WorldModelError(f"{self._name}: status {reply.status}: {reply.message}", reply.status)
        return reply

    def costs(self, goal: Goal | None = None, seed: int = 0) -> Costs:
        """For optimisers: plans (n, horizon, a) → goal distances (the node's `goal_frames`) plus uncertainty's share (n,), NaN = not evaluated.

        Raises WorldModelError, also when no goal is set.
        """
        return lambda plans: self.costs_in(self.ask(plans, goal, seed=seed, top_k=0))

    def costs_in(self, reply: Reply) -> FloatArray:
        """The costs (n,) of the plans of one reply, as `costs` gives them. Raises WorldModelError."""
        if not any(reply.evaluated):
            raise WorldModelError(
                f"{self._name}: expected scores, found nothing evaluated: {reply.message or 'the deadline came first'}",
                reply.status,
            )
        scores = np.asarray(reply.scores, np.float32)
        if np.isnan(scores).all():
            raise WorldModelError(
                f"{self._name}: expected scores, found none; set a goal (~/set_goal), or, where one is set, mend the goal_distance that"
                " finds no number"
            )
        return -scores

    def _call(self, service: Client, request: Any, deadline_s: float = 0.0) -> Any:
        """Without a deadline it waits as long as the node is there."""
        if not service.wait_for_service(10.0):
            raise WorldModelError(
                f"{self._name}: expected the service {service.srv_name}, found none; start and configure the node"
                " (ros2 launch astra_ros world_model.launch.py)"
            )
        done, info_sent_ns = Event(), self._info_sent_ns
        future = service.call_async(request)
        future.add_done_callback(lambda _future: done.set())
        began_s = time.monotonic()
        while not done.wait(0.1):
            if line := self._no_answer(deadline_s, time.monotonic() - began_s, info_sent_ns):
                service.remove_pending_request(future)
                raise WorldModelError(f"{self._name}: {line}")
        return future.result()

    def _no_answer(self, deadline_s: float, waited_s: float, info_sent_ns: int) -> str:
        """Why there will be none; empty: it may come. Without a deadline it takes as long as it takes.

        info_sent_ns: of the newest ModelInfo when the question was asked.
        """
        if not self._node.context.ok():
            return "no answer came before this program was told to end"
        if not self._service.service_is_ready():
            return "expected an answer, found the node gone meanwhile; start it again"
        # One that was killed and started again is never gone: its service outlives it for as long as DDS takes to notice.
        if self._info_sent_ns != info_sent_ns:
            return "expected an answer, found the node configured anew meanwhile; ask again"
        patience_s = deadline_s + _PATIENCE_S
        if deadline_s and waited_s > patience_s:
            return f"expected an answer within {patience_s:g} s, found none; look at the node's log, and ask again"
        return ""

    def _on_info(self, message: ModelInfo, metadata: dict[str, int]) -> None:
        # Not its own stamp, which is 0 for all where simulated time has not begun; and it may arrive twice.
        if not _differs_in_interval_only(self._info, message):
            self._info_sent_ns = metadata["source_timestamp"]
        self._info = message
        self._informed.set()


def _differs_in_interval_only(before: ModelInfo | None, after: ModelInfo) -> bool:
    """The node's uncertainty_samples was set; it was not configured anew, and goes on with its questions."""
    if before is None or before.uncertainty_interval == after.uncertainty_interval:
        return False
    same = copy(after)
    same.uncertainty_interval = before.uncertainty_interval
    return bool(same == before)


def _require_few(plans: Sequence[Any] | FloatArray) -> None:
    if len(plans) > MAX_CANDIDATES:
        raise WorldModelError(
            f"plans: expected at most {MAX_CANDIDATES} (the bound of EvaluateActions), found {len(plans)}; ask in several"
            " requests"
        )


def action_spec(info: ModelInfo) -> ActionSpec:
    """What a sampler needs. Raises WorldModelError for a representation that this version does not know."""
    kinds = {number: name for name, number in REPRESENTATIONS.items()}
    if info.action_representation not in kinds:
        raise WorldModelError(
            f"ModelInfo.action_representation: expected one of {sorted(kinds)}, found {info.action_representation};"
            " use the astra_ros of the node"
        )
    lower, upper = (np.array(bound, np.float64) for bound in (info.action_lower, info.action_upper))
    return ActionSpec(
        space=info.model_id,
        modality=info.action_modality,
        representation=kinds[info.action_representation],
        names=tuple(info.action_names),
        units=tuple(info.action_units),
        step_dt=to_ns(info.step_dt) / NANOSECONDS,
        mean=tuple((lower + upper) / 2),
        std=tuple(np.maximum((upper - lower) / 2, _LEAST_STD)),
        delta_std=tuple(info.action_step_std),
        lower=tuple(lower),
        upper=tuple(upper),
    )


def to_candidates(plans: FloatArray, info: ModelInfo) -> list[ActionSequence]:
    """Plans (n, horizon, a) in the model's order, from the observation on; plan k has k in its id, little-endian."""
    return [
        to_plan(rows, info, plan_id=(*index.to_bytes(4, "little"), *(0,) * 12))
        for index, rows in enumerate(np.asarray(plans, np.float32))
    ]


def to_plan(rows: FloatArray, info: ModelInfo, *, plan_id: Sequence[int] = (0,) * 16) -> ActionSequence:
    """Rows (horizon, a) as the node takes them."""
    return ActionSequence(
        header=Header(),
        id=UUID(uuid=np.array(plan_id, np.uint8)),
        representation=info.action_representation,
        step_dt=info.step_dt,
        horizon=len(rows),
        names=list(info.action_names),
        data=array(
            "f", np.ascontiguousarray(rows, np.float32).tobytes()
        ),  # number by number is ten times slower
    )
