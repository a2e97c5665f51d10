"""The task of the simulated robot on wheels for planners: to go where a picture was taken."""

from __future__ import annotations

import numpy as np

from astra_ros.data.rover_sim import AXES, CAMERA_FRAME, LOWER, UPPER, RoverSim, RoverState
from astra_ros.data.sim_robot import PERIODS_PER_STEP, STEP_S, Robot

_LEGS = 2  # of one velocity each
_RESTS = 2  # rows at the end, in which it comes to a stand
# Of the prior's aim: how much of the heading goes with a metre of the place.
_RAD_PER_M = 2.0
_FARTHEST = np.array([0.6, 1.3])
# What is nearer than both is there already.
_LEAST_M, _LEAST_RAD = 0.25, 0.4


class GoTask:
    """Go to where the goal picture was taken, and look that way. Success: within 15 cm and 10 degrees."""

    rows, decisions = 12, 1
    within_m, within_rad = 0.15, np.pi / 18

    def __init__(self, sim: RoverSim) -> None:
        self._sim = sim

    def start(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Chooses a drive that nothing stops, after standing and turning a little for a history."""
        turns = rng.uniform(-1.0, 1.0, 2)
        commands = [np.array([0.0, turn]) for turn in np.repeat(turns, 4 * PERIODS_PER_STEP)]
        here = self._end_of(self._sim.state, np.array(commands))
        while True:
            self._legs = rng.uniform([-0.2, -1.2], _FARTHEST, (_LEGS, len(AXES)))
            drive = self._commands(self.goal_plan())
            end = self._end_of(here, drive)
            stopped, _ = _apart(end, self._end_of(here, drive, is_free=True))
            moved, turned = _apart(here, end)
            if not stopped and (moved > _LEAST_M or turned > _LEAST_RAD):
                self.goal = end
                return commands

    def goal_plan(self) -> np.ndarray:
        return _rows(self._legs)

    def propose(self, rng: np.random.Generator, noise_m: float) -> np.ndarray:
        """Velocities whose legs end so far away from where they should."""
        leg_s = STEP_S * (self.rows - _RESTS) / _LEGS
        spread = noise_m / leg_s / np.sqrt(_LEGS) * np.array([1.0, _RAD_PER_M])
        return np.clip(_rows(self._legs + rng.normal(0.0, spread, self._legs.shape)), LOWER, UPPER)

    def is_success(self) -> bool:
        moved, turned = _apart(self._sim.state, self.goal)
        return bool(moved < self.within_m and turned < self.within_rad)

    def _commands(self, rows: np.ndarray) -> np.ndarray:
        return ROBOT.commands(rows, rows[0])

    def _end_of(self, state: RoverState, commands: np.ndarray, *, is_free: bool = False) -> RoverState:
        """is_free: as if nothing stood in the way."""
        for command in commands:
            state = self._sim.after(state, command, is_free=is_free)
        return state


def _rows(legs: np.ndarray) -> np.ndarray:
    """(rows, 2): each leg as long as the others, and a stand."""
    per_leg = (GoTask.rows - _RESTS) // _LEGS
    return np.concatenate([np.repeat(legs, per_leg, axis=0), np.zeros((_RESTS, len(AXES)))])


def _apart(one: RoverState, other: RoverState) -> tuple[float, float]:
    """Metres and radians."""
    turned = abs((one.yaw - other.yaw + np.pi) % (2 * np.pi) - np.pi)
    return float(np.linalg.norm(one.position - other.position)), float(turned)


ROBOT = Robot(AXES, CAMERA_FRAME, RoverSim, {"go": GoTask}, is_vehicle=True)
