"""Scripted behaviour for recording: pick and place with noise, random perturbations and exploration.

Abrupt episodes are broken off every few seconds: smooth data teaches a model to extrapolate instead of to obey. Smooth ones are
there to show it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from astra_ros.data.panda_sim import (
    FINGER_CLOSED_M,
    FINGER_OPEN_M,
    JOINT_LOWER,
    JOINT_UPPER,
    TABLE_HEIGHT_M,
    PandaSim,
    limited,
)
from astra_ros.data.sim_robot import CONTROL_HZ
from astra_ros.data.worlds.base import Style

WORKSPACE = np.array([[-0.20, 0.16], [-0.24, 0.24], [TABLE_HEIGHT_M + 0.025, TABLE_HEIGHT_M + 0.33]])
MAX_LEAD_RAD = 0.15


@dataclass(frozen=True)
class ScriptConfig:
    """What the episodes are like.

    pick_share: share of episodes that pick and place; the rest explores.
    disturbances_hz: mean rate of abrupt interruptions; speed_m_s: gripper speed range, drawn once per goal. inertia_s: time
    constant by which the gripper's velocity follows.
    """

    pick_share: float = 0.6
    disturbances_hz: float = 0.25
    noise_m_s: float = 0.06
    speed_m_s: tuple[float, float] = (0.12, 0.45)
    inertia_s: float = 0.0

    @property
    def follows(self) -> float:
        """Of a change of velocity, what is made in one control period."""
        return 1.0 - np.exp(-1.0 / (self.inertia_s * CONTROL_HZ)) if self.inertia_s else 1.0


SCRIPTS: dict[Style, ScriptConfig] = {
    "abrupt": ScriptConfig(),
    "smooth": ScriptConfig(disturbances_hz=0.0, noise_m_s=0.0, inertia_s=0.4),
}


@dataclass
class Goal:
    """Where the gripper should be (m, world), how wide (m), at which yaw, and how close counts as reached."""

    position: np.ndarray
    finger: float
    yaw: float
    tolerance_m: float = 0.015
    dwell_s: float = 0.0


class ScriptedPilot:
    """Yields joint position commands, (8,), one per control period. All randomness comes from `seed`."""

    def __init__(self, sim: PandaSim, seed: int, config: ScriptConfig) -> None:
        self._sim, self._config = sim, config
        self._rng = np.random.default_rng(seed)
        self._command = sim.state.positions.copy()
        self._noise, self._velocity = np.zeros(3), np.zeros(3)

    def commands(self) -> Iterator[np.ndarray]:
        """Endless: goal after goal, broken off by disturbances."""
        behaviour = self._pick_and_place if self._rng.random() < self._config.pick_share else self._explore
        while True:
            for goal in behaviour():
                interrupted = yield from self._pursue(goal)
                if interrupted:
                    yield from self._disturbance()
                    break

    def _pick_and_place(self) -> Iterator[Goal]:
        which = int(self._rng.integers(2))
        yaw, slip = self._rng.uniform(0.3, 1.3), self._rng.normal(0.0, 0.004, 3)
        above = self._cube(which) + _up(self._rng.uniform(0.08, 0.16))
        yield Goal(above, FINGER_OPEN_M, yaw)
        yield Goal(self._cube(which) + slip * [1, 1, 0], FINGER_OPEN_M, yaw, tolerance_m=0.008)
        yield Goal(self._cube(which), FINGER_CLOSED_M, yaw, tolerance_m=0.05, dwell_s=0.35)
        yield Goal(self._sim.state.gripper + _up(self._rng.uniform(0.08, 0.2)), FINGER_CLOSED_M, yaw)
        place = self._cube(1 - which) + _up(0.1) if self._rng.random() < 0.5 else self._anywhere()
        yield Goal(place, FINGER_CLOSED_M, yaw)
        yield Goal(
            place * [1, 1, 0] + _up(TABLE_HEIGHT_M + self._rng.uniform(0.03, 0.1)), FINGER_CLOSED_M, yaw
        )
        yield Goal(self._sim.state.gripper, FINGER_OPEN_M, yaw, tolerance_m=0.05, dwell_s=0.3)
        yield Goal(self._anywhere(), FINGER_OPEN_M, self._rng.uniform(0.0, 1.5))

    def _explore(self) -> Iterator[Goal]:
        near_cube = self._rng.random() < 0.35
        position = (
            self._cube(int(self._rng.integers(2))) + self._rng.normal(0.0, 0.03, 3)
            if near_cube
            else self._anywhere()
        )
        position[2] = max(position[2], WORKSPACE[2, 0])
        finger = FINGER_OPEN_M if self._rng.random() < 0.5 else FINGER_CLOSED_M
        yield Goal(position, finger, self._rng.uniform(-0.2, 1.8), tolerance_m=0.03)

    def _pursue(self, goal: Goal) -> Generator[np.ndarray, None, bool]:
        """Commands until the goal is reached or given up; returns whether a disturbance broke in."""
        speed = self._rng.uniform(*self._config.speed_m_s)
        held = 0
        for _ in range(6 * CONTROL_HZ):
            if self._rng.random() < self._config.disturbances_hz / CONTROL_HZ:
                return True
            offset = goal.position - self._sim.state.gripper
            self._noise = 0.85 * self._noise + self._rng.normal(0.0, self._config.noise_m_s * 0.5, 3)
            follows, wanted = self._config.follows, limited(6.0 * offset, speed) + self._noise
            self._velocity = follows * wanted + (1.0 - follows) * self._velocity
            yield self._advance(self._sim.joint_velocity(self._velocity, goal.yaw), goal.finger)
            held = held + 1 if np.linalg.norm(offset) < goal.tolerance_m else 0
            if held > goal.dwell_s * CONTROL_HZ:
                break
        return False

    def _disturbance(self) -> Iterator[np.ndarray]:
        """A pause, a jog of a few joints, or a dash to a random place: 0.4 to 1.6 s."""
        kind, periods = self._rng.integers(3), int(self._rng.uniform(0.4, 1.6) * CONTROL_HZ)
        jog = self._rng.normal(0.0, 0.5, 7) * (self._rng.random(7) < 0.4)
        target, yaw = self._anywhere(), self._rng.uniform(-0.2, 1.8)
        finger = (
            self._rng.choice([FINGER_OPEN_M, FINGER_CLOSED_M])
            if self._rng.random() < 0.3
            else self._command[7]
        )
        for _ in range(periods):
            if kind == 0:
                yield self._advance(np.zeros(7), finger)
            elif kind == 1:
                yield self._advance(jog, finger)
            else:
                velocity = limited(8.0 * (target - self._sim.state.gripper), self._config.speed_m_s[1])
                yield self._advance(self._sim.joint_velocity(velocity, yaw), finger)

    def _advance(self, joint_velocity: np.ndarray, finger: float) -> np.ndarray:
        """Integrate one control period; the command never runs far ahead of the arm or out of its range."""
        measured = self._sim.state.positions[:7]
        wanted = self._command[:7] + np.clip(joint_velocity, -1.5, 1.5) / CONTROL_HZ
        wanted = np.clip(wanted, measured - MAX_LEAD_RAD, measured + MAX_LEAD_RAD)
        self._command = np.r_[np.clip(wanted, JOINT_LOWER, JOINT_UPPER), finger]
        return self._command.copy()

    def _cube(self, which: int) -> np.ndarray:
        return np.clip(self._sim.state.cubes[which], *WORKSPACE.T)

    def _anywhere(self) -> np.ndarray:
        return self._rng.uniform(*WORKSPACE.T)


def _up(height_m: float) -> np.ndarray:
    return np.array([0.0, 0.0, height_m])
