"""What a simulated robot has to offer so that planners can be tried on it: a simulation, and tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from astra_ros.types import ByteArray

CONTROL_HZ = 20
STEP_S = 0.2
PERIODS_PER_STEP = round(STEP_S * CONTROL_HZ)


class Simulation(Protocol):
    """One episode; the same seed gives the same episode."""

    @property
    def measured(self) -> np.ndarray:
        """(a,) joint positions, or a vehicle's velocity."""

    def step(self, command: np.ndarray) -> object:
        """Hold a command (a,) for one control period (1 / CONTROL_HZ seconds)."""

    def render(self) -> ByteArray:
        """(size, size, 3) uint8 RGB of the present state."""

    def save(self) -> Any:
        """Everything that moves, for `restore`."""

    def restore(self, saved: Any) -> None:
        """Back to a state of this episode."""

    def close(self) -> None: ...


class Task(Protocol):
    """Where an episode starts, what is to be seen at its end, and what succeeds.

    Plans are (rows, a) commanded positions or velocities, one row per step. The prior that proposes them sees the goal badly: it aims
    where the goal is, give or take `noise_m`. A planner improves on it by choosing.
    """

    rows: int
    decisions: int

    def start(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Choose the goal. Returns commands (a,) that lead to the start."""

    def goal_plan(self) -> np.ndarray:
        """Rows that lead to the goal, for its picture."""

    def propose(self, rng: np.random.Generator, noise_m: float) -> np.ndarray:
        """(rows, a): one plan of the prior."""

    def is_success(self) -> bool: ...


@dataclass(frozen=True)
class Robot:
    """names: of its joints, or axes. simulate: of a seed. tasks: by name, each made of a simulation of this robot.

    is_vehicle: it is told velocities, each of which is in force during its step; else positions.
    """

    names: tuple[str, ...]
    camera_frame: str
    simulate: Callable[[int], Simulation]
    tasks: Mapping[str, Callable[[Any], Task]]
    is_vehicle: bool = False

    def commands(self, rows: np.ndarray, before: np.ndarray) -> np.ndarray:
        """(rows, a) → (periods, a)."""
        return np.repeat(rows, PERIODS_PER_STEP, axis=0) if self.is_vehicle else commands_of(rows, before)


@dataclass(frozen=True)
class Outcome:
    """Of a plan: the last picture, and whether the task is done."""

    picture: ByteArray
    is_success: bool


def commands_of(rows: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(rows, a) → (periods, a): every row is reached at the end of its step, evenly from the command before (a,)."""
    knots = np.concatenate([before[None], rows])
    share = np.arange(1, len(rows) * PERIODS_PER_STEP + 1) / PERIODS_PER_STEP
    return np.stack([np.interp(share, np.arange(len(knots)), joint) for joint in knots.T], axis=1)
