"""Answers questions about candidates, piece by piece, on the thread that owns the model."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

import numpy as np

from astra_ros.msg import PredictedFuture
from astra_ros.planning.evaluation import Answer, Evaluation, Future, Question
from astra_ros.planning.goals import GoalDistance
from astra_ros.rollout.candidates import Candidates
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.health import Timing
from astra_ros.ros.live import Forecast, Match
from astra_ros.ros.messages import candidate_future, observation_flags
from astra_ros.ros.observing import require_recent
from astra_ros.ros.parameters import NodeConfig, why_uncalibrated
from astra_ros.ros.plans import Commands, commands_for
from astra_ros.ros.queries import GoalInput, Query, QueryRefusal, Status, horizon_of
from astra_ros.ros.stamps import to_duration
from astra_ros.ros.standing_goal import StandingGoal
from astra_ros.ros.tickets import Progress, Reply, Ticket
from astra_ros.srv import EvaluateActions
from astra_ros.types import FloatArray, Prediction

_TOO_LATE = (
    "the deadline passed before everything was done: see `evaluated`, and send fewer candidates or rows"
)
_TOO_LATE_TO_DECODE = (
    "the deadline passed before all frames were decoded: ask for fewer futures (top_k) or frames"
)


@dataclass(frozen=True)
class _Judged:
    """What a question's futures have in common. commands: one per candidate."""

    query: Query
    match: Match
    commands: list[Commands]
    timing: Timing
    novelty: float


class Evaluator:
    """distance_to: a goal that a question brings along. now_ns: the node's clock. log_error: several lines."""

    def __init__(
        self,
        model: WorldModel,
        distance_to: Callable[[GoalInput], GoalDistance],
        standing_goal: StandingGoal,
        now_ns: Callable[[], int],
        log_error: Callable[[str], None],
    ) -> None:
        self._model = model
        self._candidates = Candidates(model.backend)
        self._distance_to = distance_to
        self._standing_goal = standing_goal
        self._now_ns = now_ns
        self._log_error = log_error
        # What a frame of the last reply took to be decoded and packed: a deadline must leave room for that.
        self._frame_s = _decoding_s(model)

    def prepare(self) -> None:
        """Spares the first question the opening and checking of the candidates' graphs. Raises BundleError."""
        for _ in self._candidates.prepare():
            pass

    def answer(self, ticket: Ticket, match: Match | None, config: NodeConfig) -> Iterator[None]:
        """Replies before it ends, unless it is closed. match: the newest observation."""
        try:
            yield from self._answer(ticket, match, config)
        except QueryRefusal as refusal:
            ticket.reply(Reply(refusal.status, str(refusal)))
        # Whatever went wrong with this question, the next one is answered.
        except Exception as error:  # noqa: BLE001
            self._log_error(traceback.format_exc())
            line = f"evaluation failed: {type(error).__name__}: {error}; the traceback is in the node's log"
            ticket.reply(Reply(Status.ERROR, " ".join(line.split())))

    def _answer(self, ticket: Ticket, match: Match | None, config: NodeConfig) -> Iterator[None]:
        started_s, query = time.monotonic(), ticket.query
        match, age_s = require_recent(match, config, self._now_ns())
        commands = self._commands(query, match)
        # All that needs the observation, now: while the question is answered, it may leave the memory.
        past, novelty = self._model.past(match.frame.stamp_ns), self._model.novelty(match.frame.stamp_ns)
        evaluation = Evaluation(self._candidates, past, self._question(query, commands, config))
        preprocess_s, inference_s = match.frame.preprocess_s + time.monotonic() - started_s, 0.0
        num_done, resumed_s = 0, time.monotonic()
        for _ in evaluation.run():
            inference_s += time.monotonic() - resumed_s
            if evaluation.num_done != num_done:
                num_done = evaluation.num_done
                ticket.report(Progress(num_done, len(commands), *evaluation.best()))
            # A live prediction may take far longer than a chunk: it comes first only while there is more to evaluate.
            if ticket.ending or evaluation.is_complete:
                break
            yield
            resumed_s = time.monotonic()
        answer = evaluation.answer()
        timing = Timing(age_s, preprocess_s, inference_s, 0.0, 0.0)
        judged = _Judged(query, match, commands, timing, novelty)
        futures = yield from self._messages(ticket, answer, judged, config)
        status, line = ticket.ending or _outcome(answer, len(futures))
        if status is Status.STALE_OBSERVATION:
            raise QueryRefusal(status, line)
        latency_s = time.monotonic() - query.received_s
        observed = observation_flags(age_s, novelty, config)
        flags = tuple(one.flags | observed for one in commands)
        ticket.reply(Reply(status, line, answer, match.frame.stamp_ns, futures, latency_s, flags))

    def _commands(self, query: Query, match: Match) -> list[Commands]:
        manifest, t0_ns = self._model.manifest, match.frame.stamp_ns
        horizon = horizon_of(query.plans, t0_ns, manifest)
        return [commands_for(plan, t0_ns, match.measured, horizon, manifest.action) for plan in query.plans]

    def _question(self, query: Query, commands: list[Commands], config: NodeConfig) -> Question:
        plans, trust = np.stack([one.rows for one in commands]), self._model.trust
        is_fitted = not why_uncalibrated(config, self._model.manifest, self._model.backend.precision)
        return Question(
            plans=plans,
            goal_distance=self._distance_to(query.goal) if query.goal else self._standing_goal.distance(),
            seed=query.seed,
            top_k=query.top_k,
            num_samples=config.uncertainty_samples,
            expected_error=trust.expected_error if trust and is_fitted else None,
            uncertainty_weight=config.uncertainty_weight,
            goal_frames=config.goal_frames,
            num_steps=0 if query.denoising_steps else config.ranking_steps,
            deadline_s=self._evaluate_until_s(query, plans),
        )

    def _evaluate_until_s(self, query: Query, plans: FloatArray) -> float | None:
        """Leaves room for decoding, but no more than half of the time: without an evaluation there is nothing to decode."""
        if query.deadline_s is None:
            return None
        num_frames = _num_frames(query, plans.shape[1]) * min(query.top_k, len(plans))
        left_s = query.deadline_s - time.monotonic()
        return query.deadline_s - min(num_frames * self._frame_s, left_s / 2)

    def _is_time_for(self, query: Query, horizon: int) -> bool:
        """A future's frames, if any, will be decoded before the deadline."""
        needed_s = _num_frames(query, horizon) * self._frame_s
        return not needed_s or query.deadline_s is None or time.monotonic() + needed_s <= query.deadline_s

    def _messages(
        self, ticket: Ticket, answer: Answer, judged: _Judged, config: NodeConfig
    ) -> Generator[None, None, tuple[PredictedFuture, ...]]:
        """Of the futures that there is time to decode. What must end now has the frames of the best one."""
        query, messages = judged.query, list[PredictedFuture]()
        for future in answer.futures:
            if _num_frames(query, len(future.latents)):
                if not query.is_over_at(time.monotonic()):
                    yield
                # Over before a frame is decoded: that says nothing of how long decoding takes.
                if query.is_over_at(time.monotonic()) or (messages and ticket.ending):
                    break
            if not self._is_time_for(query, len(future.latents)):
                self._frame_s /= 2  # or one that took long once would keep all later ones from being decoded
                break
            messages.append(self._message(future, answer, judged, config))
        return tuple(messages)

    def _message(
        self, future: Future, answer: Answer, judged: _Judged, config: NodeConfig
    ) -> PredictedFuture:
        """Decodes the frames that were asked for."""
        started_s, query = time.monotonic(), judged.query
        num_frames = _num_frames(query, len(future.latents))
        latents = future.latents[len(future.latents) - num_frames :]
        frames = self._model.backend.decode(latents)
        prediction = Prediction(frames, latents, query.seed, judged.timing.inference, judged.novelty)
        forecast = Forecast(judged.match.frame, judged.commands[future.plan], prediction, judged.timing)
        message = candidate_future(
            forecast, future, answer, self._model.backend, replace(config, compress_frames=query.compressed)
        )
        now_s = time.monotonic()
        if num_frames:
            self._frame_s = (now_s - started_s) / num_frames
        message.total_latency = to_duration(now_s - query.received_s)
        return message


def _decoding_s(model: WorldModel) -> float:
    """Of one frame; the model is warm."""
    shape, started_s = model.manifest.latents, time.monotonic()
    model.backend.decode(np.zeros((1, shape.channels, shape.height, shape.width), np.float32))
    return time.monotonic() - started_s


def _outcome(answer: Answer, num_futures: int) -> tuple[Status, str]:
    """num_futures: that are in the reply."""
    if not answer.is_complete:
        return Status.PARTIAL, _TOO_LATE
    if num_futures < len(answer.futures):
        return Status.PARTIAL, _TOO_LATE_TO_DECODE
    return Status.OK, ""


def _num_frames(query: Query, horizon: int) -> int:
    """Frames of one returned future, counted from its end."""
    if query.frames == EvaluateActions.Request.FRAMES_NONE:
        return 0
    return horizon if query.frames == EvaluateActions.Request.FRAMES_ALL else 1
