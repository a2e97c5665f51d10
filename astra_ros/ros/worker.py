"""The thread that owns the world model: the newest observation wins, and what it overtakes is counted.

The callbacks only leave things here; decoding a picture is theirs, predicting is the worker's, so a slow model delays
neither parameters nor services. Every picture that has joint positions enters the history, also those that come while
a prediction runs; only the newest of them is predicted from, and only while somebody takes predictions. Questions about
candidates are answered in between, a chunk after every picture that is served, or as fast as they go while none comes.
A question whose deadline would pass during a prediction goes on before it; if it passes nevertheless, the reply comes between
two chunks of that prediction.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Condition, Thread

from astra_ros.planning.goals import GoalDistance, measured
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.health import Health, Timing
from astra_ros.ros.hindsight import Comparison, Hindsight
from astra_ros.ros.parameters import NodeConfig, resolve_horizon
from astra_ros.ros.plans import Commands, Plan, Schedule, commands_for
from astra_ros.ros.queries import Status
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.sync import JointBuffer
from astra_ros.ros.tickets import Ticket, Tickets
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray, Observation, Prediction

# More pictures than this come during one prediction only from a camera that is far too fast for the history.
_MAX_WAITING = 64
# Whoever allows pictures of any age does not mean to keep everything for them.
_LONGEST_KEPT_NS = 60 * NANOSECONDS
# One usual picture of a hundred is taken for unusual: it is flagged, but nobody is called.
_UNUSUAL_IN_A_ROW = 3


@dataclass(frozen=True)
class Frame:
    """A picture on its way to the model.

    pixels: (h, w, 3) uint8 RGB at the model's size. received_s: monotonic time of arrival. preprocess_s: decode and fit.
    """

    stamp_ns: int
    frame_id: str
    pixels: ByteArray
    received_s: float
    preprocess_s: float


@dataclass(frozen=True)
class Match:
    """A picture in the history. positions: (a,) at its stamp. skew_ns: distance to the nearest joint state."""

    frame: Frame
    positions: FloatArray
    skew_ns: int


@dataclass(frozen=True)
class Forecast:
    """A prediction and what it was made from. timing.latency still lacks making and sending the message.

    goal_distance: (t,) of the frames; None without a goal.
    """

    frame: Frame
    commands: Commands
    prediction: Prediction
    timing: Timing
    goal_distance: FloatArray | None = None


@dataclass(frozen=True)
class Ports:
    """What the worker needs of the node; called from the worker's thread.

    now_ns: node's clock. is_watched: somebody takes predictions. publish: sends a forecast, returns its final timing.
    publish_comparisons: of earlier predictions with a picture. answer: works on a question, piece by piece, from the newest
    observation. goal_distance: of the standing goal, None without one. log_error: several lines. is_up: False once the
    context is shut down, when nothing can be published any more.
    """

    now_ns: Callable[[], int]
    is_watched: Callable[[], bool]
    publish: Callable[[Forecast, NodeConfig], Timing]
    publish_comparisons: Callable[[Sequence[Comparison]], None]
    answer: Callable[[Ticket, Match | None, NodeConfig], Iterator[None]]
    goal_distance: Callable[[], GoalDistance | None]
    log_error: Callable[[str], None]
    is_up: Callable[[], bool]


class _StoppedError(Exception):
    """The worker is to stop while it predicts."""


class Worker:
    """Owns the model from start to stop; before and after, the thread that made the worker does."""

    def __init__(self, model: WorldModel, config: NodeConfig, health: Health, ports: Ports) -> None:
        self._model = model
        self._health = health
        self._ports = ports
        self._thread = Thread(target=self._run, name="world_model", daemon=True)
        self._tickets = Tickets(self._answer)
        self._hindsight = Hindsight(model.manifest.action.step_dt)
        self._num_unusual = 0
        # What the last live prediction took, until it was sent.
        self._live_s = 0.0
        # Everything below is shared and guarded by _changed.
        self._changed = Condition()
        self._config = config
        self._waiting: deque[Frame] = deque()
        self._joints = JointBuffer(model.manifest.action.names, model.manifest.action.units)
        self._plans = Schedule()
        self._newest: Match | None = None
        self._must_forget = False
        self._is_stopping = False

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """True when the thread has ended and the model is free again."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def configure(self, config: NodeConfig) -> None:
        """Takes effect at the next prediction."""
        with self._changed:
            self._config = config

    def add_frame(self, frame: Frame) -> None:
        with self._changed:
            if len(self._waiting) == _MAX_WAITING:
                self._waiting.popleft()
                self._health.count(Drop.SUPERSEDED)
            self._waiting.append(frame)
            self._changed.notify_all()

    def add_joint_positions(self, stamp_ns: int, positions: FloatArray) -> None:
        """Raises Refusal for a stamp out of order."""
        with self._changed:
            self._joints.push(stamp_ns, positions, self._picture_age_ns())
            self._changed.notify_all()

    def set_plan(self, plan: Plan | None) -> None:
        """None: none any more."""
        with self._changed:
            if plan:
                self._plans.set(plan, self._picture_age_ns())
            else:
                self._plans.clear()

    def ask(self, ticket: Ticket) -> None:
        """Its reply comes from the worker's thread, or at once when it is refused."""
        with self._changed:
            preemption = self._config.preemption
        self._tickets.submit(ticket, preemption)
        with self._changed:
            self._changed.notify_all()

    def forget(self) -> None:
        """No later prediction uses anything that came before this call."""
        with self._changed:
            self._waiting.clear()
            self._joints.clear()
            self._plans.clear()
            self._must_forget = True
        # After that: a question that begins from here on knows that the observation is gone.
        self._tickets.end_current(
            Status.STALE_OBSERVATION,
            "observation: it was forgotten meanwhile (~/reset or a time jump); ask again",
        )

    def _picture_age_ns(self) -> int:
        """Joint states and plans are kept for pictures as old as this."""
        return min(round(self._config.max_observation_age_s * NANOSECONDS), _LONGEST_KEPT_NS)

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                if self._tickets.cannot_wait(self._live_s):
                    self._tickets.advance()
                    continue
                if (frames := self._take_frames()) and not self._try_to_serve(frames):
                    return
                self._tickets.advance()
        finally:
            self._tickets.close(Status.NOT_ACTIVE, "the node was deactivated meanwhile")

    def _try_to_serve(self, frames: list[Frame]) -> bool:
        """False when nothing can be published any more, or shall be."""
        try:
            self._serve(frames)
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

    def _serve(self, frames: list[Frame]) -> None:
        started_s = time.monotonic()
        matches = [match for frame in frames if (match := self._observe(frame))]
        if not matches:
            return
        self._newest = matches[-1]
        self._compare(matches)
        self._health.count(Drop.SUPERSEDED, len(matches) - 1)
        if self._ports.is_watched():
            self._show(matches[-1], started_s)
        else:
            self._judge(self._model.novelty(matches[-1].frame.stamp_ns))
            self._live_s = 0.0
            self._health.unwatched()

    def _show(self, match: Match, started_s: float) -> None:
        """Predict and publish."""
        forecast, config = self._predict(match, started_s)
        if self._was_told_to_forget():
            self._health.count(Drop.SUPERSEDED)
            return
        timing = self._ports.publish(forecast, config)
        self._live_s = time.monotonic() - started_s
        self._health.served(timing, is_hold_still=forecast.commands.is_hold_still)
        self._judge(forecast.prediction.novelty)
        frame = forecast.frame
        self._hindsight.remember(frame.stamp_ns, frame.pixels, forecast.prediction.frames)

    def _judge(self, novelty: float) -> None:
        """Predictions from pictures that are unlike training are published, flagged, and not to be relied on."""
        self._num_unusual = self._num_unusual + 1 if novelty > 1 else 0
        if self._num_unusual >= _UNUSUAL_IN_A_ROW:
            line = (
                f"camera: expected pictures like those of training, found one {novelty:.1f} times as far from them as any"
                " usual one; uncover the camera, put it back, or train on this view (docs/training.md)"
            )
            self._health.report("camera_view", "unlike_training", line)
        elif not self._num_unusual:
            self._health.resolve("camera_view")

    def _compare(self, matches: Sequence[Match]) -> None:
        for frame in (match.frame for match in matches):
            if comparisons := self._hindsight.compare(frame.stamp_ns, frame.pixels):
                self._ports.publish_comparisons(comparisons)
                self._health.compared(comparisons)

    def _wait_for_work(self) -> bool:
        """Wait for a question, or for a picture whose joint positions are as good as they get. False: stop."""
        with self._changed:
            while not (self._is_stopping or self._is_ready() or self._tickets):
                self._changed.wait(self._patience_s())
            return not self._is_stopping

    def _take_frames(self) -> list[Frame]:
        with self._changed:
            if self._must_forget:
                self._model.reset()
                self._hindsight.clear()
                self._newest = None
                self._must_forget = False
            frames = []
            while self._is_ready():
                frames.append(self._waiting.popleft())
            return frames

    def _is_ready(self) -> bool:
        """The oldest picture has a joint state on the far side of its stamp, or has waited the slop for one."""
        if not self._waiting:
            return False
        oldest = self._waiting[0]
        return self._joints.covers(oldest.stamp_ns) or time.monotonic() >= self._deadline_s(oldest)

    def _patience_s(self) -> float | None:
        return max(self._deadline_s(self._waiting[0]) - time.monotonic(), 0.0) if self._waiting else None

    def _deadline_s(self, frame: Frame) -> float:
        return frame.received_s + self._config.sync_slop_s

    def _was_told_to_forget(self) -> bool:
        with self._changed:
            return self._must_forget

    def _observe(self, frame: Frame) -> Match | None:
        """Into the history, with the joint positions at its stamp. None: it has none."""
        try:
            with self._changed:
                if self._must_forget:
                    return None
                slop_ns = round(self._config.sync_slop_s * NANOSECONDS)
                positions, skew_ns = self._joints.at(frame.stamp_ns, slop_ns)
        except Refusal as refusal:
            self._health.refuse("sync", refusal, consequence_of="joint_states")
            return None
        self._health.resolve("sync")
        self._model.observe(Observation(frame.stamp_ns, frame.pixels, positions))
        return Match(frame, positions, skew_ns)

    def _predict(self, match: Match, started_s: float) -> tuple[Forecast, NodeConfig]:
        frame, now_ns = match.frame, self._ports.now_ns()
        with self._changed:
            config = self._config
            plan = self._plans.at(frame.stamp_ns, now_ns, config.plan_timeout_s)
        manifest = self._model.manifest
        horizon = resolve_horizon(config, manifest)
        commands = commands_for(plan, frame.stamp_ns, match.positions, horizon, manifest.action)
        preprocess_s = frame.preprocess_s + time.monotonic() - started_s
        prediction = self._model.predict(frame.stamp_ns, commands.rows, config.seed, self._between_chunks)
        timing = Timing(
            observation_age=(now_ns - frame.stamp_ns) / NANOSECONDS,
            preprocess=preprocess_s,
            inference=prediction.inference_time_s,
            latency=time.monotonic() - frame.received_s,
            joint_skew=match.skew_ns / NANOSECONDS,
        )
        return Forecast(frame, commands, prediction, timing, self._goal_distance(prediction)), config

    def _between_chunks(self) -> None:
        """Of a live prediction."""
        with self._changed:
            if self._is_stopping:
                raise _StoppedError
        self._tickets.keep_deadlines()

    def _goal_distance(self, prediction: Prediction) -> FloatArray | None:
        """A plug-in that cannot measure costs the stream its distances, not its pictures."""
        try:
            measure = self._ports.goal_distance()
            distance = measured(measure, prediction.latents[None])[0] if measure else None
        except Exception as error:  # noqa: BLE001
            self._health.report("goal_distance", "goal_distance_failed", f"{type(error).__name__}: {error}")
            return None
        self._health.resolve("goal_distance")
        return distance

    def _answer(self, ticket: Ticket) -> Iterator[None]:
        with self._changed:
            newest, config = None if self._must_forget else self._newest, self._config
        return self._ports.answer(ticket, newest, config)
