"""Tasks of the simulated arm for planners: where an episode starts, what is to be seen at its end, and what succeeds.

Plans are (rows, 8) commanded joint positions, one per step of the world model. The prior that proposes them sees the goal
badly: it aims where the goal is, give or take `noise_m`. A planner improves on it by choosing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from astra_ros.data.panda_sim import (
    CONTROL_HZ,
    FINGER_CLOSED_M,
    FINGER_OPEN_M,
    TABLE_HEIGHT_M,
    PandaSim,
    Way,
)
from astra_ros.types import ByteArray

STEP_S = 0.2
PERIODS_PER_STEP = round(STEP_S * CONTROL_HZ)
_FAR = np.array([[-0.14, 0.12], [-0.20, 0.20], [TABLE_HEIGHT_M + 0.10, TABLE_HEIGHT_M + 0.30]])
_ABOVE_M = 0.10


@dataclass(frozen=True)
class Outcome:
    """Of a plan: the last picture, where the gripper is (3,), and whether the task is done."""

    picture: ByteArray
    gripper: np.ndarray
    is_success: bool


class ReachTask:
    """Bring the gripper to where the goal picture shows it. Success: within 5 cm, as metaworld's reach counts it."""

    rows, decisions, radius_m = 8, 2, 0.05

    def start(self, sim: PandaSim, rng: np.random.Generator) -> list[np.ndarray]:
        """Choose the goal. Returns commands (8,) that lead to the start."""
        where = rng.uniform(*_FAR.T)
        self.yaw = float(rng.uniform(0.2, 1.4))
        away = rng.uniform(*_FAR.T)
        while np.linalg.norm(away - where) < 0.15:
            away = rng.uniform(*_FAR.T)
        self.goal = away
        return list(sim.imagined_path([Way(where, FINGER_OPEN_M, self.yaw, 0.3)], 8 * PERIODS_PER_STEP))

    def goal_plan(self, sim: PandaSim) -> np.ndarray:
        """Rows that lead to the goal, for its picture."""
        return self._towards(sim, self.goal, 0.45, 2 * self.rows)

    def propose(self, sim: PandaSim, rng: np.random.Generator, noise_m: float) -> np.ndarray:
        """(rows, 8): one plan of the prior."""
        aim = np.clip(self.goal + rng.normal(0.0, noise_m, 3), *_FAR.T)
        return self._towards(sim, aim, float(rng.uniform(0.2, 0.45)), self.rows)

    def is_success(self, sim: PandaSim) -> bool:
        return bool(np.linalg.norm(sim.state.gripper - self.goal) <= self.radius_m)

    def _towards(self, sim: PandaSim, aim: np.ndarray, speed: float, rows: int) -> np.ndarray:
        return _rows(sim.imagined_path([Way(aim, FINGER_OPEN_M, self.yaw, speed)], rows * PERIODS_PER_STEP))


class LiftTask:
    """Grasp cube A from above it and lift it. Success: robosuite says that it is lifted."""

    rows, decisions = 14, 1

    def start(self, sim: PandaSim, rng: np.random.Generator) -> list[np.ndarray]:
        self.yaw = float(rng.uniform(0.3, 1.3))
        offset = np.r_[rng.uniform(-0.03, 0.03, 2), _ABOVE_M]
        hover = Way(sim.state.cubes[0] + offset, FINGER_OPEN_M, self.yaw, 0.4)
        return list(sim.imagined_path([hover], 13 * PERIODS_PER_STEP))

    def goal_plan(self, sim: PandaSim) -> np.ndarray:
        return self._grasp(sim, np.zeros(3))

    def propose(self, sim: PandaSim, rng: np.random.Generator, noise_m: float) -> np.ndarray:
        return self._grasp(sim, np.r_[rng.normal(0.0, noise_m, 2), 0.0])

    def is_success(self, sim: PandaSim) -> bool:
        return sim.is_lifted

    def _grasp(self, sim: PandaSim, error: np.ndarray) -> np.ndarray:
        at = sim.state.cubes[0] + error
        up = at + np.array([0.0, 0.0, 0.12])
        ways = [
            Way(at, FINGER_OPEN_M, self.yaw, 0.25, tolerance_m=0.008),
            Way(at, FINGER_CLOSED_M, self.yaw, 0.25, periods=10, tolerance_m=0.05),
            Way(up, FINGER_CLOSED_M, self.yaw, 0.25),
        ]
        return _rows(sim.imagined_path(ways, self.rows * PERIODS_PER_STEP))


Task: TypeAlias = ReachTask | LiftTask
TASKS: dict[str, type[Task]] = {"reach": ReachTask, "lift": LiftTask}


def commands_of(rows: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(rows, 8) → (periods, 8): every row is reached at the end of its step, evenly from the command before (8,)."""
    knots = np.concatenate([before[None], rows])
    share = np.arange(1, len(rows) * PERIODS_PER_STEP + 1) / PERIODS_PER_STEP
    return np.stack([np.interp(share, np.arange(len(knots)), joint) for joint in knots.T], axis=1)


def _rows(path: np.ndarray) -> np.ndarray:
    return path[PERIODS_PER_STEP - 1 :: PERIODS_PER_STEP]
