"""The task of the disc that pushes a T (gym-pusht) for planners."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astra_ros.data.pusht_sim import (
    CAMERA_FRAME,
    JOINT_NAMES,
    LOWER_M,
    UPPER_M,
    PushTSim,
    TableState,
    behind,
)
from astra_ros.data.sim_robot import Robot, commands_of

_APPROACH_ROWS = 3
_MOVED_M = 0.04  # by the T at least


class PushTask:
    """Push the T to where the goal picture shows it, and be where it shows the disc.

    Success as in the field (DINO-WM, arXiv 2411.04983): positions of disc and T together within 20 units, of the 512 that
    the table is wide, and the T within 20 degrees. gym-pusht's own 95 % coverage is half that of the T, and no disc.
    """

    rows, decisions = 14, 1
    within_m, within_rad = 0.020, np.pi / 9

    def __init__(self, sim: PushTSim) -> None:
        self._sim = sim

    def start(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Chooses a push that moves the T and puts the zone where the T ends."""
        while True:
            tee = np.r_[rng.uniform(0.15, 0.36, 2), rng.uniform(-np.pi, np.pi)]
            self._sim.restore(TableState.at_rest(np.array([UPPER_M, UPPER_M]), tee, zone=tee))
            self._draw_push(rng, self._sim.tee_centre)
            if not self._is_inside():
                continue
            beside = self.begin + rng.uniform(-0.02, 0.02, 2)
            before = TableState.at_rest(beside, tee, zone=tee)
            self._sim.restore(before)
            commands = list(commands_of(np.tile(self.begin, (8, 1)), beside))
            after = self._end_of([*commands, *commands_of(self.goal_plan(), self.begin)])
            if np.linalg.norm(after.tee[:2] - tee[:2]) > _MOVED_M:
                self.goal = after
                self._sim.restore(replace(before, zone=after.tee))
                return commands

    def goal_plan(self) -> np.ndarray:
        return _push(self.begin, self.end)

    def propose(self, rng: np.random.Generator, noise_m: float) -> np.ndarray:
        begin, end = (at + rng.normal(0.0, noise_m, 2) for at in (self.begin, self.end))
        return np.clip(_push(begin, end), LOWER_M, UPPER_M)

    def is_success(self) -> bool:
        now, goal = self._sim.save(), self.goal
        apart = np.linalg.norm(np.r_[now.disc - goal.disc, now.tee[:2] - goal.tee[:2]])
        turned = abs((now.tee[2] - goal.tee[2] + np.pi) % (2 * np.pi) - np.pi)
        return bool(apart < self.within_m and turned < self.within_rad)

    def _draw_push(self, rng: np.random.Generator, centre: np.ndarray) -> None:
        angle = rng.uniform(-np.pi, np.pi)
        forward = np.array([np.cos(angle), np.sin(angle)])
        self.begin = behind(centre, forward, rng.uniform(-0.04, 0.04))
        self.end = self.begin + rng.uniform(0.11, 0.19) * forward

    def _is_inside(self) -> bool:
        path = np.stack([self.begin, self.end])
        return bool((path > LOWER_M).all() and (path < UPPER_M).all())

    def _end_of(self, commands: list[np.ndarray]) -> TableState:
        for command in commands:
            self._sim.step(command)
        return self._sim.save()


def _push(begin: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(rows, 2): to the beginning, evenly to the end, and a moment's rest there."""
    pushing = np.linspace(begin, end, PushTask.rows - _APPROACH_ROWS)[1:]
    return np.concatenate([np.tile(begin, (_APPROACH_ROWS, 1)), pushing, end[None]])


ROBOT = Robot(JOINT_NAMES, CAMERA_FRAME, PushTSim, {"push": PushTask})
