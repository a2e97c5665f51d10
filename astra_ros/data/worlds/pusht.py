"""The disc that pushes a T (gym-pusht): pushes from all sides, and wandering; abruptly broken off, or smooth."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing

import numpy as np

from astra_ros.data.pusht_sim import JOINT_NAMES, JOINT_UNITS, LOWER_M, UPPER_M, PushTSim, behind
from astra_ros.data.schema import ActionSchema
from astra_ros.data.sim_robot import CONTROL_HZ
from astra_ros.data.worlds.base import FRAME_HZ, NUM_FRAMES, SIZE_PX, Recording, Style, World

SCHEMA = ActionSchema("pusht", "arm", "joint_position", JOINT_NAMES, JOINT_UNITS)

PUSH_SHARE = 0.7  # of the goals
SPEED_M_S = (0.05, 0.30)  # drawn once per goal
BROKEN_OFF_HZ = 0.5  # of abrupt episodes
LAG_S = 0.3  # of smooth ones
MAX_LEAD_M = 0.08  # of the command before the disc
NEAR_M = 0.01
MIDDLE_M = (0.15, 0.36)
_PERIODS_PER_FRAME = CONTROL_HZ // FRAME_HZ


class Pilot:
    """Yields commands (2,) m, one per control period."""

    def __init__(self, sim: PushTSim, rng: np.random.Generator, style: Style) -> None:
        self._sim, self._rng, self._style = sim, rng, style
        self._command, self._velocity = sim.measured, np.zeros(2)

    def commands(self) -> Iterator[np.ndarray]:
        """Endless."""
        while True:
            goals = self._push() if self._rng.random() < PUSH_SHARE else [self._anywhere()]
            speed = self._rng.uniform(*SPEED_M_S)
            for goal in goals:
                is_broken_off = yield from self._go(goal, speed)
                if is_broken_off:
                    yield from self._dash()
                    break

    def _push(self) -> list[np.ndarray]:
        """To a side of the T, and through it, towards anywhere in the middle, so that the T stays on the table."""
        towards = self._rng.uniform(*MIDDLE_M, 2) - self._sim.tee_centre
        forward = towards / np.linalg.norm(towards)
        begin = behind(self._sim.tee_centre, forward, self._rng.uniform(-0.05, 0.05))
        return [begin, begin + self._rng.uniform(0.08, 0.22) * forward]

    def _anywhere(self) -> np.ndarray:
        return self._rng.uniform(LOWER_M, UPPER_M, 2)

    def _go(self, goal: np.ndarray, speed: float) -> Generator[np.ndarray, None, bool]:
        """To the goal, or as near as the walls allow. Returns whether it was broken off."""
        goal = np.clip(goal, LOWER_M, UPPER_M)
        for _ in range(5 * CONTROL_HZ):
            offset = goal - self._command
            if np.linalg.norm(offset) < NEAR_M:
                break
            if self._style == "abrupt" and self._rng.random() < BROKEN_OFF_HZ / CONTROL_HZ:
                return True
            yield self._advance(_limited(6.0 * offset, speed))
        return False

    def _dash(self) -> Iterator[np.ndarray]:
        """A stop, or anywhere at full speed: 0.2 to 0.8 s."""
        towards = self._anywhere() - self._command
        velocity = _limited(10.0 * towards, SPEED_M_S[1]) * (self._rng.random() < 0.7)
        for _ in range(round(self._rng.uniform(0.2, 0.8) * CONTROL_HZ)):
            yield self._advance(velocity)

    def _advance(self, velocity: np.ndarray) -> np.ndarray:
        gain = 1.0 if self._style == "abrupt" else 1 - np.exp(-1 / (LAG_S * CONTROL_HZ))
        self._velocity = self._velocity + gain * (velocity - self._velocity)
        disc = self._sim.measured
        wanted = np.clip(self._command + self._velocity / CONTROL_HZ, disc - MAX_LEAD_M, disc + MAX_LEAD_M)
        self._command = np.clip(wanted, LOWER_M, UPPER_M)
        return self._command


def simulate(seed: int, style: Style) -> Recording:
    """One episode. Rows: where the disc was, and where it was told to be by then."""
    pixels, rows, commanded = [], [], []
    with closing(PushTSim(seed, SIZE_PX)) as sim:
        commands, command = Pilot(sim, np.random.default_rng([seed, 5]), style).commands(), sim.measured
        for _ in range(NUM_FRAMES):
            pixels.append(sim.render())
            rows.append(sim.measured)
            commanded.append(command)
            for _ in range(_PERIODS_PER_FRAME):
                command = next(commands)
                sim.step(command)
    return Recording(pixels, rows, commanded)


def _limited(velocity: np.ndarray, speed: float) -> np.ndarray:
    return velocity * min(1.0, speed / max(float(np.linalg.norm(velocity)), 1e-9))


WORLD = World("pusht", SCHEMA, simulate, lambda _seed: "push")
