"""The thread that owns the world model: the newest observation wins, and what it overtakes is counted.

The callbacks only leave things in the inbox; decoding a picture is theirs, predicting is the worker's, so a slow model delays
neither parameters nor services. Every picture of which what the robot did is known enters the history, also those that come while
a prediction runs; only the newest of them is predicted from, and only while somebody takes predictions. Questions about
candidates are answered in between, a chunk after every picture that is served, or as fast as they go while none comes; each
from the newest picture when it begins, also where that is only predicted from afterwards.
A question whose deadline would pass during a prediction goes on before it; if it passes nevertheless, the reply comes between
two chunks of that prediction.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Thread

from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.health import Health
from astra_ros.ros.inbox import Frame, Inbox
from astra_ros.ros.live import LivePorts, LiveStream, Match
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import Plan
from astra_ros.ros.proposing import (
    ProposalQuery,
    ProposalReply,
    ProposalTicket,
    ProposalTickets,
)
from astra_ros.ros.queries import Status
from astra_ros.ros.refusal import Drop
from astra_ros.ros.tickets import Ticket, Tickets
from astra_ros.types import FloatArray

_FORGOTTEN = "observation: it was forgotten meanwhile (~/reset or a time jump); ask again"
_DEACTIVATED = "the node was deactivated meanwhile"


@dataclass(frozen=True)
class Ports(LivePorts):
    """And what the worker itself needs.

    answer: works on a question, piece by piece, from the newest observation. propose: answers one about proposals, at once. log_error: several lines. is_up: False once the
    context is shut down, when nothing can be published any more.
    """

    answer: Callable[[Ticket, Match | None, NodeConfig], Iterator[None]]
    propose: Callable[[ProposalQuery, Match | None, NodeConfig], ProposalReply]
    log_error: Callable[[str], None]
    is_up: Callable[[], bool]


class _StoppedError(Exception):
    """The worker is to stop while it predicts."""


class Worker:
    """Owns the model from start to stop; before and after, the thread that made the worker does."""

    def __init__(self, model: WorldModel, config: NodeConfig, health: Health, ports: Ports) -> None:
        self._health = health
        self._ports = ports
        self._thread = Thread(target=self._run, name="world_model", daemon=True)
        self._inbox = Inbox(model.manifest.action, config)
        self._live = LiveStream(model, self._inbox, health, ports, self._between_chunks)
        self._tickets = Tickets(self._answer)
        self._proposals = ProposalTickets()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """True when the thread has ended and the model is free again."""
        self._inbox.stop()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def configure(self, config: NodeConfig) -> None:
        """Takes effect at the next prediction."""
        self._inbox.configure(config)

    def add_frame(self, frame: Frame) -> None:
        if not self._inbox.add_frame(frame):
            self._health.count(Drop.SUPERSEDED)

    def add_measured(self, stamp_ns: int, measured: FloatArray) -> None:
        """Raises Refusal for a stamp out of order."""
        self._inbox.add_measured(stamp_ns, measured)

    def set_command(self, command: Plan) -> None:
        """What the robot is told from moment to moment."""
        self._inbox.set_command(command)

    def set_plan(self, plan: Plan | None) -> None:
        """None: none any more."""
        self._inbox.set_plan(plan)

    def ask(self, ticket: Ticket) -> None:
        """Its reply comes from the worker's thread, or at once when it is refused."""
        self._tickets.submit(ticket, self._inbox.config.preemption)
        self._inbox.wake()

    def propose(self, ticket: ProposalTicket) -> None:
        """Its reply comes from the worker's thread, between two chunks of whatever is predicted, or at once when it is refused."""
        self._proposals.submit(ticket)
        self._inbox.wake()

    def forget(self) -> None:
        """No later prediction uses anything that came before this call."""
        self._inbox.forget()
        # After that: a question that begins from here on knows that the observation is gone.
        self._tickets.end_current(Status.STALE_OBSERVATION, _FORGOTTEN)

    def _run(self) -> None:
        # The pictures that came during a prediction are seen before a question begins: it starts from the newest of them, and
        # the one that was predicted from may be too old by then.
        turn = (self._observe, self._serve, self._observe)
        try:
            while self._inbox.wait(self._has_other_work) and all(map(self._try, turn)):
                self._propose()
                self._tickets.advance()
        finally:
            self._tickets.close(Status.NOT_ACTIVE, _DEACTIVATED)
            self._proposals.close(Status.NOT_ACTIVE, _DEACTIVATED)

    def _has_other_work(self) -> bool:
        return self._live.is_due or bool(self._tickets) or bool(self._proposals)

    def _propose(self) -> None:
        """One question, some milliseconds."""
        if ticket := self._proposals.take():
            reply = self._ports.propose(ticket.query, self._newest(), self._inbox.config)
            is_forgotten = self._inbox.must_forget
            ticket.reply(ProposalReply(Status.STALE_OBSERVATION, _FORGOTTEN) if is_forgotten else reply)

    def _observe(self) -> None:
        taken = self._inbox.take()
        if taken.must_forget:
            self._live.forget()
        self._live.observe(taken.frames)

    def _serve(self) -> None:
        """Unless that would cost the question that is being answered its deadline."""
        if not self._tickets.cannot_wait(self._live.took_s):
            self._live.serve()

    def _try(self, step: Callable[[], None]) -> bool:
        """False when nothing can be published any more, or shall be."""
        try:
            step()
        except _StoppedError:
            return False
        # Whatever went wrong with these pictures, the next ones are served.
        except Exception as error:  # noqa: BLE001
            if not self._ports.is_up():
                return False
            self._health.count(Drop.PREDICTION_FAILED)
            line = f"prediction failed: {type(error).__name__}: {error}; the traceback is in the node's log"
            if self._health.report("prediction", Drop.PREDICTION_FAILED, line, is_error=True):
                self._ports.log_error(traceback.format_exc())
        return True

    def _between_chunks(self) -> None:
        """Of a live prediction."""
        if self._inbox.is_stopping:
            raise _StoppedError
        self._tickets.keep_deadlines()
        self._propose()

    def _answer(self, ticket: Ticket) -> Iterator[None]:
        return self._ports.answer(ticket, self._newest(), self._inbox.config)

    def _newest(self) -> Match | None:
        return None if self._inbox.must_forget else self._live.newest
