"""PushT (gym-pusht), the field's planar pushing task: a disc that goes where it is told pushes a T over a table.

Half a metre seen from above: what is a unit there is a millimetre here, so that the disc is a robot with two joints in metres.
Needs the simulator environment (`requirements/sim.txt`); no ROS.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass

import numpy as np

from astra_ros.data.sim_robot import CONTROL_HZ
from astra_ros.types import ByteArray

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
with warnings.catch_warnings():  # pygame's, about pkg_resources
    warnings.simplefilter("ignore", UserWarning)
    import pygame.surfarray
    from gym_pusht.envs.pusht import PushTEnv

JOINT_NAMES = ("pusht_x", "pusht_y")
JOINT_UNITS = ("m", "m")
CAMERA_FRAME = "table_camera_optical_frame"
UNITS_PER_M = 1000.0
# Where the disc, 3 cm wide, does not touch a wall.
LOWER_M, UPPER_M = 0.03, 0.48
# From the T's centre to a disc that does not touch it, whichever way it lies.
CLEAR_M = 0.105
# Drawn in 512 pixels and averaged down.
SIZE_PX = 256
_DRAWN_PX = 512


@dataclass(frozen=True)
class TableState:
    """disc: (2,) m. tee: (3,) m, m, rad: the middle of the bar's outer edge, and the angle. zone: (3,) where it should be.

    velocities: (5,) m/s and rad/s, of disc and T. x goes right and y down in the picture.
    """

    disc: np.ndarray
    tee: np.ndarray
    zone: np.ndarray
    velocities: np.ndarray

    @classmethod
    def at_rest(cls, disc: np.ndarray, tee: np.ndarray, zone: np.ndarray) -> TableState:
        return cls(disc, tee, zone, np.zeros(5))


class PushTSim:
    """One episode; the same seed gives the same episode."""

    def __init__(self, seed: int, size_px: int = SIZE_PX) -> None:
        self._env = PushTEnv()
        self._env.control_hz = CONTROL_HZ
        self._size_px = size_px
        rng = np.random.default_rng(seed)
        tee, zone = (np.r_[rng.uniform(0.15, 0.36, 2), rng.uniform(-np.pi, np.pi)] for _ in range(2))
        self.restore(TableState.at_rest(rng.uniform(LOWER_M, UPPER_M, 2), tee, zone))

    @property
    def measured(self) -> np.ndarray:
        """(2,) m, of the disc."""
        return self.save().disc

    @property
    def tee_centre(self) -> np.ndarray:
        """(2,) m: the centre of gravity, round which the T turns."""
        block = self._env.block
        return np.array(block.local_to_world(block.center_of_gravity)) / UNITS_PER_M

    def step(self, command: np.ndarray) -> None:
        """Pull the disc towards a place (2,) m for one control period (1 / CONTROL_HZ seconds)."""
        self._env.step(UNITS_PER_M * command)

    def render(self) -> ByteArray:
        """(size, size, 3) uint8 RGB of the present state."""
        drawn = pygame.surfarray.array3d(self._env._draw())  # noqa: SLF001 - render() resamples without averaging
        n = _DRAWN_PX // self._size_px
        blocks = drawn.transpose(1, 0, 2).reshape(self._size_px, n, self._size_px, n, 3)
        return blocks.mean(axis=(1, 3)).round().astype(np.uint8)

    def save(self) -> TableState:
        """Everything that moves, for `restore`."""
        agent, block = self._env.agent, self._env.block
        return TableState(
            np.array(agent.position) / UNITS_PER_M,
            np.array([*(np.array(block.position) / UNITS_PER_M), block.angle]),
            np.array([*(self._env.goal_pose[:2] / UNITS_PER_M), self._env.goal_pose[2]]),
            np.array([*agent.velocity, *block.velocity, block.angular_velocity * UNITS_PER_M]) / UNITS_PER_M,
        )

    def restore(self, saved: TableState) -> None:
        """A fresh table in that state: contacts that the engine remembers would make equal plans end differently."""
        env = self._env
        env.reset(seed=0)
        env._setup()  # noqa: SLF001 - reset lets one step pass, this does not
        env.goal_pose = saved.zone * [UNITS_PER_M, UNITS_PER_M, 1.0]
        env.agent.position = tuple(UNITS_PER_M * saved.disc)
        env.block.angle = float(saved.tee[2])
        env.block.position = tuple(UNITS_PER_M * saved.tee[:2])
        speeds = saved.velocities * [*[UNITS_PER_M] * 4, 1.0]
        env.agent.velocity, env.block.velocity = tuple(speeds[:2]), tuple(speeds[2:4])
        env.block.angular_velocity = float(speeds[4])
        for body in (env.agent, env.block):
            env.space.reindex_shapes_for_body(body)  # or they are drawn where they were

    def close(self) -> None:
        self._env.close()


def behind(centre: np.ndarray, forward: np.ndarray, aside_m: float) -> np.ndarray:
    """(2,) m: where a push begins that goes `forward` (a unit vector), past the T's centre at a distance of `aside_m` to its right."""
    return centre - CLEAR_M * forward + aside_m * np.array([-forward[1], forward[0]])
