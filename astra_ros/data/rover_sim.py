"""A robot on two wheels that drives through a furnished home: velocity commands in, a camera and odometry out.

Kinematic: wheels do not slip, speed follows a command as fast as the drive can, and a bumper stops it before furniture.
Needs the simulator environment (`requirements/sim.txt`); no ROS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from astra_ros.data.sim_robot import CONTROL_HZ
from astra_ros.data.worlds.base import FRAME_HZ, Style
from astra_ros.data.worlds.camera import SceneCamera
from astra_ros.data.worlds.motion import MOTIONS, HeldActions
from astra_ros.data.worlds.room_scene import open_room
from astra_ros.data.worlds.rooms import Viewpoint, look
from astra_ros.types import ByteArray

# As in geometry_msgs/Twist.
AXES, UNITS = ("linear.x", "angular.z"), ("m/s", "rad/s")
CAMERA_FRAME = "camera_color_optical_frame"
LOWER, UPPER = np.array([-0.3, -1.5]), np.array([0.6, 1.5])
ACCELERATION = np.array([1.5, 5.0])  # m/s², rad/s²
CAMERA_HEIGHT_M, CAMERA_PITCH_RAD = 0.6, -0.1
HOME = 1  # the same for all episodes, as a robot's home is
VIEW_M = 0.8  # nobody drives so near to a wall that nothing else is seen
_SPREAD, _FORWARD_M_S = np.array([0.25, 0.7]), 0.2
_PERIODS_PER_FRAME = CONTROL_HZ // FRAME_HZ
_STOP = np.zeros((round(CONTROL_HZ * UPPER[0] / ACCELERATION[0]), 2))  # commands after which it stands


@dataclass(frozen=True)
class RoverState:
    """position: (2,) m. yaw: rad, to the left. velocity: (2,) as AXES. is_stopped: by the bumper."""

    position: np.ndarray
    yaw: float
    velocity: np.ndarray
    is_stopped: bool = False

    @property
    def ahead(self) -> np.ndarray:
        """Unit vector (2,)."""
        return np.array([np.cos(self.yaw), np.sin(self.yaw)])


class RoverSim:
    """One episode, at rest at a place in the home that the seed chooses; the same seed gives the same episode."""

    def __init__(self, seed: int, home: int = HOME) -> None:
        self._room = open_room(np.random.default_rng([home, 2]))
        self._camera = SceneCamera(self._room.compile(), "eye")
        self.state = self._start(np.random.default_rng(seed))

    @property
    def measured(self) -> np.ndarray:
        """(2,) the velocity of the last control period, as the wheels' encoders tell it."""
        return self.state.velocity

    def step(self, command: np.ndarray) -> None:
        """Hold a command (2,) for one control period (1 / CONTROL_HZ seconds)."""
        self.state = self.after(self.state, command)

    def after(self, state: RoverState, command: np.ndarray, *, is_free: bool = False) -> RoverState:
        """What one control period makes of a state. is_free: as if nothing stood in the way."""
        most = ACCELERATION / CONTROL_HZ
        change = np.clip(np.clip(command, LOWER, UPPER) - state.velocity, -most, most)
        velocity = state.velocity + change
        heading = state.yaw + velocity[1] / CONTROL_HZ / 2
        position = state.position + velocity[0] / CONTROL_HZ * np.array([np.cos(heading), np.sin(heading)])
        is_stopped = not (is_free or self._room.is_free(position))
        if is_stopped:
            position, velocity = state.position, velocity * [0.0, 1.0]
        return RoverState(position, state.yaw + velocity[1] / CONTROL_HZ, velocity, is_stopped)

    def has_view(self, state: RoverState) -> bool:
        """Whether no wall is right ahead."""
        return self._room.contains(state.position + VIEW_M * state.ahead)

    def render(self) -> ByteArray:
        """(size, size, 3) uint8 RGB of the present state."""
        position = np.array([*self.state.position, CAMERA_HEIGHT_M])
        return look(self._camera, Viewpoint(position, self.state.yaw, CAMERA_PITCH_RAD))

    def save(self) -> RoverState:
        """Everything that moves, for `restore`."""
        return self.state

    def restore(self, saved: RoverState) -> None:
        """Back to a state of this episode."""
        self.state = saved

    def close(self) -> None:
        self._camera.__exit__()

    def _start(self, rng: np.random.Generator) -> RoverState:
        while True:
            place = rng.uniform(-self._room.half, self._room.half)
            state = RoverState(place, rng.uniform(-np.pi, np.pi), np.zeros(2))
            if self._room.is_free(place) and self.has_view(state):
                return state


class RoverDriver:
    """Drives about at random: commands change abruptly, or as if they had mass. All randomness comes from `seed`."""

    def __init__(self, sim: RoverSim, seed: int, style: Style) -> None:
        self._sim, self._rng = sim, np.random.default_rng([seed, 1])
        inert = np.ones(len(AXES), bool)
        self._held = HeldActions(self._rng, MOTIONS[style], self._draw, self._is_safe, inert)

    def commands(self) -> Iterator[np.ndarray]:
        """Endless, (2,) each, one per control period; the simulation lives through each before the next is asked for."""
        while True:
            command = self._held.next()
            for _ in range(_PERIODS_PER_FRAME):
                yield command

    def _draw(self) -> np.ndarray:
        """Straight on, turning on the spot, and arcs."""
        chosen = self._rng.random(2) < [0.8, 0.7]
        return np.clip(self._rng.normal([_FORWARD_M_S, 0.0], _SPREAD), LOWER, UPPER) * chosen

    def _is_safe(self, commands: np.ndarray) -> bool:
        state = self._sim.state
        for command in np.concatenate([np.repeat(commands, _PERIODS_PER_FRAME, axis=0), _STOP]):
            state = self._sim.after(state, command)
            if state.is_stopped:
                return False
        return self._sim.has_view(state)
