"""~/propose_actions: plans towards a goal picture, from the newest observation, for planners to judge and to mix."""

from __future__ import annotations

import traceback
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import numpy as np
from unique_identifier_msgs.msg import UUID

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends.manifest import Manifest
from astra_ros.msg import ActionSequence
from astra_ros.rollout.proposals import LEARN, Proposed
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.live import Match
from astra_ros.ros.observing import require_recent
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import REPRESENTATIONS
from astra_ros.ros.queries import GoalInput, QueryRefusal, Status, read_goal
from astra_ros.ros.stamps import to_duration, to_time
from astra_ros.srv import ProposeActions
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class ProposalQuery:
    """goal: None = the standing one. rows, count: of the plans."""

    goal: GoalInput | None
    rows: int
    count: int


@dataclass(frozen=True)
class ProposalReply:
    """proposed: None unless status is OK. observation_ns: its stamp."""

    status: Status
    message: str = ""
    observation_ns: int = 0
    proposed: Proposed | None = None


@dataclass(frozen=True)
class ProposalTicket:
    """reply: called once, from the worker's thread."""

    query: ProposalQuery
    reply: Callable[[ProposalReply], None]


class ProposalTickets:
    """Those that wait for the worker, first come, first served. submit: from any thread; take and close: the worker's."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[ProposalTicket] = deque()
        self._closed: ProposalReply | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def submit(self, ticket: ProposalTicket) -> None:
        with self._lock:
            refusal = self._closed or (_BUSY if len(self._waiting) == _MAX_WAITING else None)
            if not refusal:
                self._waiting.append(ticket)
        if refusal:
            ticket.reply(refusal)

    def take(self) -> ProposalTicket | None:
        """The next one."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def close(self, status: Status, line: str) -> None:
        """Whoever waits, and whoever comes from now on, is told that."""
        with self._lock:
            self._closed = ProposalReply(status, line)
        while ticket := self.take():
            ticket.reply(self._closed)


_MAX_WAITING = 8
_BUSY = ProposalReply(Status.BUSY, f"{_MAX_WAITING} questions wait already; ask again later")


def read_proposal_query(request: ProposeActions.Request, manifest: Manifest) -> ProposalQuery:
    """Raises QueryRefusal."""
    spec = manifest.proposals
    if spec is None:
        raise QueryRefusal(
            Status.NOT_SUPPORTED,
            f"proposals: expected a bundle that was taught some, found {manifest.model_id}, which was not; {LEARN}",
        )
    for name, least, most, limit in (
        ("rows", 1, spec.horizon, "max_proposal_rows"),
        ("count", 0, spec.count, "max_proposals"),
    ):
        if not least <= (found := getattr(request, name)) <= most:
            line = f"{name}: expected {least} to {most} (ModelInfo.{limit}), found {found}"
            raise QueryRefusal(Status.REJECTED, line)
    return ProposalQuery(read_goal(request.goal, manifest), request.rows, request.count or spec.count)


class Proposer:
    """On the thread that owns the model. standing_goal: what shall be reached where a question brings no goal along."""

    def __init__(
        self,
        model: WorldModel,
        standing_goal: Callable[[], GoalInput | None],
        now_ns: Callable[[], int],
        log_error: Callable[[str], None],
    ) -> None:
        self._model, self._standing_goal = model, standing_goal
        self._now_ns, self._log_error = now_ns, log_error

    def answer(self, query: ProposalQuery, match: Match | None, config: NodeConfig) -> ProposalReply:
        """match: the newest observation."""
        try:
            return self._answer(query, match, config)
        except QueryRefusal as refusal:
            return ProposalReply(refusal.status, str(refusal))
        # Whatever went wrong with this question, the next one is answered.
        except Exception as error:  # noqa: BLE001
            self._log_error(traceback.format_exc())
            line = f"proposing failed: {type(error).__name__}: {error}; the traceback is in the node's log"
            return ProposalReply(Status.ERROR, " ".join(line.split()))

    def _answer(self, query: ProposalQuery, match: Match | None, config: NodeConfig) -> ProposalReply:
        match, _ = require_recent(match, config, self._now_ns())
        goal = query.goal or self._standing_goal()
        if goal is None:
            raise QueryRefusal(
                Status.REJECTED,
                "goal: expected one, or a standing one, found none; send a picture, or set it (~/set_goal, astra goal PICTURE)",
            )
        t0_ns = match.frame.stamp_ns
        found = self._model.propose(t0_ns, self._latents(goal), match.measured, query.rows)
        likeliest = Proposed(found.plans[: query.count], found.probabilities[: query.count])
        return ProposalReply(Status.OK, "", t0_ns, likeliest)

    def _latents(self, goal: GoalInput) -> FloatArray:
        if goal.latents is not None:
            return goal.latents
        assert goal.pixels is not None, "a goal has one of the two"
        return self._model.backend.encode(goal.pixels)


def fill_proposals(
    response: ProposeActions.Response, reply: ProposalReply, action: ActionSpec
) -> ProposeActions.Response:
    """response: empty."""
    response.status, response.message = int(reply.status), reply.message
    response.observation_stamp = to_time(reply.observation_ns)
    if reply.proposed is not None:
        response.candidates = [
            _candidate(index, rows, action) for index, rows in enumerate(reply.proposed.plans)
        ]
        response.probabilities = array("f", reply.proposed.probabilities)
    return response


def _candidate(index: int, rows: FloatArray, action: ActionSpec) -> ActionSequence:
    """index: in the first four bytes of its id, little-endian."""
    plan_id = np.frombuffer(index.to_bytes(16, "little"), np.uint8)
    return ActionSequence(
        id=UUID(uuid=plan_id),
        representation=REPRESENTATIONS[action.representation],
        step_dt=to_duration(action.step_dt),
        horizon=len(rows),
        names=list(action.names),
        data=array("f", np.ascontiguousarray(rows, np.float32).tobytes()),
    )
