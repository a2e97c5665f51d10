"""What the node knows about itself: counters, latencies, and the problems that are current.

Written to by the callbacks and by the worker, read by the diagnostics: thread-safe.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from threading import Lock

import numpy as np

from astra_ros.ros.hindsight import Comparison, psnr
from astra_ros.ros.refusal import Drop, Refusal

# The cause of a problem that stands: of each publisher it is told once.
INCOMPATIBLE_QOS = "incompatible_qos"
# A problem that stays is logged again after this long.
LOG_PERIOD_S = 10.0
# Predictions that the latencies shown are taken over, and messages that rates are.
_PREDICTION_WINDOW, _INPUT_WINDOW = 256, 32
# Joint states of other joints are another driver's on the same topic, and no problem, if the model's came so recently [s].
_RECENT_S = 2.0
# How far ahead the predictions are whose error is shown [s].
_SHOWN_AHEAD_S = 1.0


@dataclass(frozen=True)
class Problem:
    """cause: short name; the line says what to do. last_s: monotonic time when it was last met."""

    cause: str
    line: str
    is_error: bool
    last_s: float


@dataclass(frozen=True)
class Timing:
    """Of one prediction, seconds.

    observation_age: stamp to start of inference, node's clock. latency: arrival of the picture to publishing,
    preprocess and inference: parts of it, monotonic clock. joint_skew: picture to nearest joint state.
    """

    observation_age: float
    preprocess: float
    inference: float
    latency: float
    joint_skew: float


@dataclass(frozen=True)
class Snapshot:
    """problem: the worst that is current, the latest of equals. values: everything that is counted, for people."""

    problem: Problem | None
    values: dict[str, str]


@dataclass
class _Input:
    """received: monotonic times [s] of the last good messages."""

    count: int = 0
    received: deque[float] = field(default_factory=lambda: deque(maxlen=_INPUT_WINDOW))

    def rate_hz(self, now_s: float) -> float:
        """Falls towards 0 when messages stop."""
        return (len(self.received) - 1) / (now_s - self.received[0]) if len(self.received) > 1 else 0.0


class Health:
    """log: writes one line of the log. on_change: called after a problem came, changed its cause, or went."""

    def __init__(self, log: Callable[[Problem], None], on_change: Callable[[], None]) -> None:
        self._log = log
        self._on_change = on_change
        self._lock = Lock()
        # By source and whether it stands: what passes does not hide for ever what stands.
        self._problems: dict[tuple[str, bool], Problem] = {}
        self._logged_s: dict[tuple[str, str], float] = {}
        self._drops: Counter[Drop] = Counter()
        self._inputs: dict[str, _Input] = {}
        self._timings: deque[Timing] = deque(maxlen=_PREDICTION_WINDOW)
        self._comparisons: deque[Comparison] = deque(maxlen=_PREDICTION_WINDOW)
        self._num_predictions = 0
        self._predicting_for = "nothing yet"

    def count(self, cause: Drop, number: int = 1) -> None:
        """Drops that are nobody's fault."""
        with self._lock:
            self._drops[cause] += number

    def refuse(self, source: str, refusal: Refusal, *, consequence_of: str = "") -> None:
        """Count a refused input and show its line until its source is accepted.

        consequence_of: a source; while that one has a problem, this refusal adds no second line.
        """
        with self._lock:
            self._drops[refusal.cause] += 1
        is_consequence = self.has_problem(consequence_of)
        is_stray = refusal.cause is Drop.OTHER_JOINTS and self.silence_s(source) < _RECENT_S
        if not (is_consequence or is_stray):
            self.report(source, refusal.cause, str(refusal))

    def report(
        self, source: str, cause: str, line: str, *, is_error: bool = False, is_standing: bool = False
    ) -> bool:
        """Show a problem until its source is accepted or resolved. Returns whether its line was logged this time."""
        now_s = time.monotonic()
        with self._lock:
            before = self._problems.get((source, is_standing))
            problem = Problem(cause, line, is_error, now_s)
            self._problems[source, is_standing] = problem
            must_log = now_s - self._logged_s.get((source, cause), -LOG_PERIOD_S) >= LOG_PERIOD_S
            if must_log:
                self._logged_s[source, cause] = now_s
        if must_log:
            self._log(problem)
        if before is None or before.cause != cause:
            self._on_change()
        return must_log

    def accept(self, source: str) -> None:
        """Count a good input; its source's problem is over."""
        with self._lock:
            stats = self._inputs.setdefault(source, _Input())
            stats.count += 1
            stats.received.append(time.monotonic())
        self._end(source, is_standing=False)
        self._end(source, is_standing=True)

    def served(self, timing: Timing, goes_on: str = "") -> None:
        """A prediction was published. goes_on: how the robot was taken to, without a plan."""
        with self._lock:
            self._timings.append(timing)
            self._num_predictions += 1
            self._predicting_for = goes_on or "plan"
        self.resolve("prediction")

    def unwatched(self) -> None:
        """A picture was observed, but nobody takes predictions: what was wrong with them is over."""
        with self._lock:
            self._predicting_for = "nobody"
        for source in ("prediction", "goal_distance"):
            self.resolve(source)

    def compared(self, comparisons: Sequence[Comparison]) -> None:
        """The future has arrived for some predictions."""
        with self._lock:
            self._comparisons.extend(
                one for one in comparisons if abs(one.seconds_ahead - _SHOWN_AHEAD_S) < 1e-6
            )

    def resolve(self, source: str) -> None:
        """What is wrong with a source is over, unless it stands."""
        self._end(source, is_standing=False)

    def gone(self, source: str) -> None:
        """Nobody publishes it any more: what stood against it is over."""
        self._end(source, is_standing=True)

    def expire(self, source: str, age_s: float) -> None:
        """A problem that was not met again for so long is over: its source went silent."""
        with self._lock:
            problem = self._problems.get((source, False))
        if problem and time.monotonic() - problem.last_s > age_s:
            self.resolve(source)

    def resolve_all(self, *, keep_standing: bool = False) -> None:
        """Start afresh; the counters stay. keep_standing: what told of them goes on, and will not tell again."""
        with self._lock:
            standing = {key: one for key, one in self._problems.items() if key[1]}
            self._problems = standing if keep_standing else {}
            self._logged_s.clear()

    def has_problem(self, source: str) -> bool:
        return self.problem(source) is not None

    def problem(self, source: str) -> Problem | None:
        """The current one; one that stands before one that passes."""
        with self._lock:
            return self._problems.get((source, True)) or self._problems.get((source, False))

    def silence_s(self, source: str) -> float:
        """Seconds since the source's last good input; infinite before the first."""
        with self._lock:
            stats = self._inputs.get(source)
            return time.monotonic() - stats.received[-1] if stats else float("inf")

    def snapshot(self) -> Snapshot:
        with self._lock:
            worst = max(
                self._problems.values(), key=lambda problem: (problem.is_error, problem.last_s), default=None
            )
            values = {**self._prediction_values(), **self._hindsight_values()}
            return Snapshot(worst, {**values, **self._drop_values(), **self._input_values()})

    def _end(self, source: str, *, is_standing: bool) -> None:
        with self._lock:
            problem = self._problems.pop((source, is_standing), None)
        if problem:
            self._on_change()

    def _prediction_values(self) -> dict[str, str]:
        values = {"predictions": str(self._num_predictions), "predicting_for": self._predicting_for}
        for part in (quantity.name for quantity in fields(Timing)):
            seconds = [getattr(timing, part) for timing in self._timings]
            for percent in (50, 95):
                values[f"{part}_p{percent}_ms"] = (
                    f"{1e3 * np.percentile(seconds, percent):.1f}" if seconds else ""
                )
        return values

    def _hindsight_values(self) -> dict[str, str]:
        found = self._comparisons
        errors = {
            "predicted_psnr_1s_db": [one.predicted for one in found],
            "copied_psnr_1s_db": [one.copied for one in found],
        }
        return {
            key: f"{psnr(float(np.mean(values))):.2f}" if values else "" for key, values in errors.items()
        }

    def _drop_values(self) -> dict[str, str]:
        return {f"drops.{cause}": str(self._drops[cause]) for cause in Drop}

    def _input_values(self) -> dict[str, str]:
        now_s = time.monotonic()
        values = {}
        for source, stats in sorted(self._inputs.items()):
            values[f"{source}.received"] = str(stats.count)
            values[f"{source}.rate_hz"] = f"{stats.rate_hz(now_s):.1f}"
            values[f"{source}.silence_s"] = f"{now_s - stats.received[-1]:.2f}"
        return values
