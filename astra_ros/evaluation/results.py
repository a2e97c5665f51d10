"""What the tests of `astra evaluate` find, by dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from astra_ros.evaluation.action_gap import ActionGap
from astra_ros.evaluation.drift import DriftPoint
from astra_ros.evaluation.free_run import FreeRun
from astra_ros.evaluation.intervals import Interval
from astra_ros.evaluation.quality import Quality
from astra_ros.evaluation.recovery import Counterfactual, Recovery
from astra_ros.evaluation.step_curve import StepPoint


@dataclass(frozen=True)
class HeldOutResult:
    """one_second: up to there. long: over ten times the training horizon, or as far as the recordings go (reached_s)."""

    one_second: tuple[Quality, ...]
    long: tuple[Quality, ...]
    reached_s: float


@dataclass(frozen=True)
class ActionsResult:
    """The three tests of obedience. counterfactual: None where the judge cannot read the pictures (why)."""

    gap: ActionGap
    recovery: Recovery
    counterfactual: Counterfactual | None
    why_no_counterfactual: str


@dataclass(frozen=True)
class DriftResult:
    """points: empty where recordings are short (why). free_run: None where it was not asked for."""

    points: tuple[DriftPoint, ...]
    why_no_points: str
    free_run: FreeRun | None


@dataclass(frozen=True)
class StepsResult:
    """points: the model at each number of steps. teacher: metrics of its teacher."""

    points: tuple[StepPoint, ...]
    teacher: dict[str, Interval]


@dataclass(frozen=True)
class Judged:
    """One dataset's result. episodes: held-out ones that were read; bad_episodes: lines about those that could not be."""

    name: str
    space: str
    modality: str
    episodes: int
    bad_episodes: tuple[str, ...]
    result: Any
