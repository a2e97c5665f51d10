"""Tasks of the simulated arm for planners."""

from __future__ import annotations

import numpy as np

from astra_ros.data.panda_sim import (
    CAMERA_FRAME,
    FINGER_CLOSED_M,
    FINGER_OPEN_M,
    JOINT_NAMES,
    TABLE_HEIGHT_M,
    PandaSim,
    Way,
)
from astra_ros.data.sim_robot import PERIODS_PER_STEP, Robot

_FAR = np.array([[-0.14, 0.12], [-0.20, 0.20], [TABLE_HEIGHT_M + 0.10, TABLE_HEIGHT_M + 0.30]])
_ABOVE_M = 0.10


class ReachTask:
    """Bring the gripper to where the goal picture shows it. Success: within 5 cm, as metaworld's reach counts it."""

    rows, decisions, radius_m = 8, 2, 0.05

    def __init__(self, sim: PandaSim) -> None:
        self._sim = sim

    def start(self, rng: np.random.Generator) -> list[np.ndarray]:
        where = rng.uniform(*_FAR.T)
        self.yaw = float(rng.uniform(0.2, 1.4))
        away = rng.uniform(*_FAR.T)
        while np.linalg.norm(away - where) < 0.15:
            away = rng.uniform(*_FAR.T)
        self.goal = away
        way = Way(where, FINGER_OPEN_M, self.yaw, 0.3)
        return list(self._sim.imagined_path([way], 8 * PERIODS_PER_STEP))

    def goal_plan(self) -> np.ndarray:
        return self._towards(self.goal, 0.45, 2 * self.rows)

    def propose(self, rng: np.random.Generator, noise_m: float) -> np.ndarray:
        aim = np.clip(self.goal + rng.normal(0.0, noise_m, 3), *_FAR.T)
        return self._towards(aim, float(rng.uniform(0.2, 0.45)), self.rows)

    def is_success(self) -> bool:
        return bool(np.linalg.norm(self._sim.state.gripper - self.goal) <= self.radius_m)

    def _towards(self, aim: np.ndarray, speed: float, rows: int) -> np.ndarray:
        way = Way(aim, FINGER_OPEN_M, self.yaw, speed)
        return _rows(self._sim.imagined_path([way], rows * PERIODS_PER_STEP))


class LiftTask:
    """Grasp cube A from above it and lift it. Success: robosuite says that it is lifted."""

    rows, decisions = 14, 1

    def __init__(self, sim: PandaSim) -> None:
        self._sim = sim

    def start(self, rng: np.random.Generator) -> list[np.ndarray]:
        self.yaw = float(rng.uniform(0.3, 1.3))
        offset = np.r_[rng.uniform(-0.03, 0.03, 2), _ABOVE_M]
        hover = Way(self._sim.state.cubes[0] + offset, FINGER_OPEN_M, self.yaw, 0.4)
        return list(self._sim.imagined_path([hover], 13 * PERIODS_PER_STEP))

    def goal_plan(self) -> np.ndarray:
        return self._grasp(np.zeros(3))

    def propose(self, rng: np.random.Generator, noise_m: float) -> np.ndarray:
        return self._grasp(np.r_[rng.normal(0.0, noise_m, 2), 0.0])

    def is_success(self) -> bool:
        return self._sim.is_lifted

    def _grasp(self, error: np.ndarray) -> np.ndarray:
        at = self._sim.state.cubes[0] + error
        up = at + np.array([0.0, 0.0, 0.12])
        ways = [
            Way(at, FINGER_OPEN_M, self.yaw, 0.25, tolerance_m=0.008),
            Way(at, FINGER_CLOSED_M, self.yaw, 0.25, periods=10, tolerance_m=0.05),
            Way(up, FINGER_CLOSED_M, self.yaw, 0.25),
        ]
        return _rows(self._sim.imagined_path(ways, self.rows * PERIODS_PER_STEP))


def _rows(path: np.ndarray) -> np.ndarray:
    return path[PERIODS_PER_STEP - 1 :: PERIODS_PER_STEP]


ROBOT = Robot(JOINT_NAMES, CAMERA_FRAME, PandaSim, {"reach": ReachTask, "lift": LiftTask})
