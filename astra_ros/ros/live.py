"""The live stream: every picture enters the history, the newest is predicted from, and what was predicted is compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from astra_ros.planning import goals
from astra_ros.planning.goals import GoalDistance
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.health import Health, Timing
from astra_ros.ros.hindsight import Comparison, Hindsight
from astra_ros.ros.inbox import Frame, Inbox
from astra_ros.ros.parameters import NodeConfig, resolve_horizon
from astra_ros.ros.plans import Commands, commands_for
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.vehicle import robot_topic
from astra_ros.types import NANOSECONDS, FloatArray, Observation, Prediction

# One usual picture of a hundred is taken for unusual: it is flagged, but nobody is called.
_UNUSUAL_IN_A_ROW = 3


@dataclass(frozen=True)
class Match:
    """A picture in the history. measured: as Observation has it. skew_ns: distance to the nearest message that tells it."""

    frame: Frame
    measured: FloatArray
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
class LivePorts:
    """What the stream needs of the node; called from the worker's thread.

    now_ns: node's clock. is_watched: somebody takes predictions. publish: sends a forecast, returns its final timing.
    publish_comparisons: of earlier predictions with a picture. goal_distance: of the standing goal, None without one.
    """

    now_ns: Callable[[], int]
    is_watched: Callable[[], bool]
    publish: Callable[[Forecast, NodeConfig], Timing]
    publish_comparisons: Callable[[Frame, Sequence[Comparison]], None]
    goal_distance: Callable[[], GoalDistance | None]


class LiveStream:
    """Used by the thread that owns the model.

    newest: the observation that questions are answered from. took_s: the last prediction, until it was sent.
    is_due: the newest was not predicted from yet.
    """

    def __init__(
        self,
        model: WorldModel,
        inbox: Inbox,
        health: Health,
        ports: LivePorts,
        between_chunks: Callable[[], None],
    ) -> None:
        """between_chunks: called while a prediction is made; what it raises ends that."""
        self._model = model
        self._inbox = inbox
        self._health = health
        self._ports = ports
        self._between_chunks = between_chunks
        self._hindsight = Hindsight(model.manifest.action.step_dt)
        self._num_unusual = 0
        self.newest: Match | None = None
        self.took_s = 0.0
        self._due: Match | None = None
        self._shown_ns: int | None = None  # stamp of the last picture that was predicted from

    def forget(self) -> None:
        self._model.reset()
        self._hindsight.clear()
        self.newest = self._due = self._shown_ns = None

    @property
    def is_due(self) -> bool:
        return self._due is not None

    def observe(self, frames: Sequence[Frame]) -> None:
        """All into the history; the last is due."""
        matches = [match for frame in frames if (match := self._observe(frame))]
        if not matches:
            return
        self._health.count(Drop.SUPERSEDED, len(matches) if self._due else len(matches) - 1)
        self.newest = self._due = matches[-1]
        self._compare(matches)

    def serve(self) -> None:
        """Predict from the picture that is due, if any, while somebody takes predictions."""
        match, self._due = self._due, None
        if match is None:
            return
        if self._ports.is_watched():
            if not self._is_too_soon(match):
                self._show(match)
        else:
            self._judge(self._model.novelty(match.frame.stamp_ns))
            self.took_s = 0.0
            self._health.unwatched()

    def _is_too_soon(self, match: Match) -> bool:
        """After the last prediction, as `max_rate_hz` allows. A camera's period may be a tenth shorter now and then."""
        rate_hz, shown_ns = self._inbox.config.max_rate_hz, self._shown_ns
        if not rate_hz or shown_ns is None:
            return False
        return 0 <= match.frame.stamp_ns - shown_ns < 0.9 * NANOSECONDS / rate_hz

    def _observe(self, frame: Frame) -> Match | None:
        """Into the history, with what the robot did. None: nobody told that."""
        try:
            found = self._inbox.measured_at(frame.stamp_ns)
        except Refusal as refusal:
            self._health.refuse("sync", refusal, consequence_of=robot_topic(self._model.manifest.action))
            return None
        if found is None:
            return None
        measured, skew_ns = found
        self._health.resolve("sync")
        self._model.observe(Observation(frame.stamp_ns, frame.pixels, measured))
        return Match(frame, measured, skew_ns)

    def _compare(self, matches: Sequence[Match]) -> None:
        for frame in (match.frame for match in matches):
            if comparisons := self._hindsight.compare(frame.stamp_ns, frame.pixels):
                self._ports.publish_comparisons(frame, comparisons)
                self._health.compared(comparisons)

    def _show(self, match: Match) -> None:
        """Predict and publish."""
        started_s, self._shown_ns = time.monotonic(), match.frame.stamp_ns
        forecast, config = self._predict(match, started_s)
        if self._inbox.must_forget:
            self._health.count(Drop.SUPERSEDED)
            return
        timing = self._ports.publish(forecast, config)
        self.took_s = time.monotonic() - started_s
        is_arm = self._model.manifest.action.representation == "joint_position"
        goes_on = "hold still" if is_arm else "drive on"
        self._health.served(timing, goes_on if forecast.commands.is_hold_still else "")
        self._judge(forecast.prediction.novelty)
        frame = forecast.frame
        self._hindsight.remember(frame.stamp_ns, frame.pixels, forecast.prediction.frames)

    def _predict(self, match: Match, started_s: float) -> tuple[Forecast, NodeConfig]:
        frame, now_ns = match.frame, self._ports.now_ns()
        plan, config = self._inbox.plan_at(frame.stamp_ns, now_ns)
        manifest = self._model.manifest
        horizon = resolve_horizon(config, manifest)
        commands = commands_for(plan, frame.stamp_ns, match.measured, horizon, manifest.action)
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

    def _goal_distance(self, prediction: Prediction) -> FloatArray | None:
        """A plug-in that cannot measure costs the stream its distances, not its pictures."""
        try:
            measure = self._ports.goal_distance()
            distance = goals.measured(measure, prediction.latents[None])[0] if measure else None
        except Exception as error:  # noqa: BLE001
            self._health.report("goal_distance", "goal_distance_failed", f"{type(error).__name__}: {error}")
            return None
        self._health.resolve("goal_distance")
        return distance

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
