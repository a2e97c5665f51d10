"""Questions on their way to an answer: one is being answered, a few wait, and each is answered exactly once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Lock

from astra_ros.msg import PredictedFuture
from astra_ros.planning.evaluation import Answer
from astra_ros.ros.queries import Query, Status

_MAX_WAITING = 8
_CANCELLED = "cancelled by the client"
_WAITED_TOO_LONG = (
    "the deadline passed while other questions or a live prediction came first; ask again, or allow more time"
)
_LIVE_CAME_FIRST = (
    "the deadline passed during a live prediction, before everything was done: see `evaluated`, and allow more time, or send"
    " fewer candidates or rows"
)


@dataclass(frozen=True)
class Reply:
    """answer: None when nothing was evaluated. observation_ns: its stamp. latency_s: from receipt.

    flags: PredictedFuture.FLAG_*, one number per candidate where there is an answer.
    """

    status: Status
    message: str = ""
    answer: Answer | None = None
    observation_ns: int = 0
    futures: tuple[PredictedFuture, ...] = ()
    latency_s: float = 0.0
    flags: tuple[int, ...] = ()


@dataclass(frozen=True)
class Progress:
    """best_index and best_score: so far; 0 and NaN before the first."""

    num_done: int
    num_candidates: int
    best_index: int
    best_score: float


@dataclass(eq=False)
class Ticket:
    """A question and whom to tell. All three are called from the worker's thread or from the one that submits.

    reply: called once. report: after every batch. is_cancelled: polled after every chunk.
    """

    query: Query
    reply: Callable[[Reply], None]
    report: Callable[[Progress], None] = lambda _progress: None
    is_cancelled: Callable[[], bool] = lambda: False
    _ending: tuple[Status, str] | None = field(default=None, init=False)

    def end_early(self, status: Status, line: str) -> None:
        """After the chunk that is being made. From any thread, one at a time; the first reason stays."""
        self._ending = self._ending or (status, line)

    @property
    def ending(self) -> tuple[Status, str] | None:
        """Why it must end now; None: it goes on."""
        return self._ending or ((Status.PARTIAL, _CANCELLED) if self.is_cancelled() else None)


class Tickets:
    """First come, first served, unless the policy says otherwise. advance and close are the worker's, the rest anybody's."""

    def __init__(self, answer: Callable[[Ticket], Iterator[None]]) -> None:
        """answer: works in pieces, and replies before it ends."""
        self._answer = answer
        self._pieces: Iterator[None] = iter(())
        # Everything below is guarded by _lock.
        self._lock = Lock()
        self._current: Ticket | None = None
        self._waiting: deque[Ticket] = deque()
        self._closed: Reply | None = None

    def __bool__(self) -> bool:
        """There is something to do."""
        return bool(self._current or self._waiting)

    def submit(self, ticket: Ticket, preemption: str) -> None:
        """preemption: NodeConfig.preemption."""
        with self._lock:
            refusal, superseded = self._admit(ticket, preemption)
        if refusal:
            ticket.reply(refusal)
        for one in superseded:
            one.reply(Reply(Status.BUSY, "a newer question came before this one began (preemption: preempt)"))

    def advance(self) -> None:
        """The next piece of the question that is being answered, or the first of the next one."""
        self._reply_to_overdue()
        with self._lock:
            if self._current is None and self._waiting:
                self._current = self._waiting.popleft()
                self._pieces = self._answer(self._current)
        for _ in self._pieces:
            return
        with self._lock:
            self._current = None

    def keep_deadlines(self) -> None:
        """While something else has the worker's thread: whoever must not wait any longer has what there is."""
        self._reply_to_overdue()
        with self._lock:
            current = self._current
            is_overdue = current is not None and current.query.is_over_at(time.monotonic())
            if current and is_overdue:
                current.end_early(Status.PARTIAL, _LIVE_CAME_FIRST)
        if is_overdue:
            self.advance()

    def cannot_wait(self, wait_s: float) -> bool:
        """The question that is being answered would not be before its deadline, if it waited so long."""
        with self._lock:
            return self._current is not None and self._current.query.is_over_at(time.monotonic() + wait_s)

    def end_current(self, status: Status, line: str) -> None:
        with self._lock:
            if self._current:
                self._current.end_early(status, line)

    def close(self, status: Status, line: str) -> None:
        """Whoever waits, and whoever comes from now on, is told that."""
        with self._lock:
            self._closed = Reply(status, line)
            unanswered = [*([self._current] if self._current else []), *self._waiting]
            self._current = None
            self._waiting.clear()
        for ticket in unanswered:
            ticket.reply(self._closed)

    def _admit(self, ticket: Ticket, preemption: str) -> tuple[Reply | None, list[Ticket]]:
        """Why not, and who has to go."""
        if self._closed:
            return self._closed, []
        superseded: list[Ticket] = []
        if self:
            if preemption == "reject":
                return Reply(
                    Status.BUSY, "another question is being answered (preemption: reject); ask again"
                ), []
            if preemption == "preempt":
                superseded = list(self._waiting)
                self._waiting.clear()
                if self._current:
                    self._current.end_early(
                        Status.PARTIAL, "a newer question ended this one (preemption: preempt)"
                    )
            elif len(self._waiting) == _MAX_WAITING:
                return Reply(Status.BUSY, f"{_MAX_WAITING} questions wait already; ask again later"), []
        self._waiting.append(ticket)
        return None, superseded

    def _reply_to_overdue(self) -> None:
        """To those that wait, but no longer want to."""
        with self._lock:
            overdue = [(ticket, line) for ticket in self._waiting if (line := _overdue(ticket))]
            for ticket, _ in overdue:
                self._waiting.remove(ticket)
        for ticket, line in overdue:
            count = len(ticket.query.plans)
            ticket.reply(Reply(Status.PARTIAL, line, Answer.nothing(count), flags=(0,) * count))


def _overdue(ticket: Ticket) -> str:
    """Why it must not wait any longer; empty: it may."""
    if ticket.query.is_over_at(time.monotonic()):
        return _WAITED_TOO_LONG
    return _CANCELLED if ticket.is_cancelled() else ""
