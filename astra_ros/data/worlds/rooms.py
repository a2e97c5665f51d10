"""A camera that flies through a room, as if carried: six degrees of freedom; its pose is recorded.

Rows are absolute camera-to-world poses, 3x4, row-major, metres; camera axes x right, y down, z forward (OpenCV).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astra_ros.data.schema import ActionSchema, camera_schema
from astra_ros.data.worlds.base import FRAME_S, NUM_FRAMES, Recording, Style, World
from astra_ros.data.worlds.camera import SceneCamera
from astra_ros.data.worlds.motion import MOTIONS, HeldActions
from astra_ros.data.worlds.room_scene import Room, open_room
from astra_ros.types import ByteArray

SCHEMA: ActionSchema = camera_schema("rooms_camera")

MIN_HEIGHT_M, MAX_HEIGHT_M = 0.9, 2.0
VIEW_M = (
    1.4  # no motion ends with a wall nearer than this straight ahead: a picture of bare wall tells nothing
)
PITCH_RAD, MAX_ROLL_RAD = (-0.5, 0.25), 0.25  # rather down than at the ceiling
# Standard deviations of what is drawn: forward, left, up (m/s); turning left, nose up, roll to the right (rad/s).
_SPREAD = np.array([0.8, 0.5, 0.3, 0.9, 0.4, 0.25])
_LIMITS = np.array([1.6, 1.0, 0.7, 1.8, 0.9, 0.6])
_FROM_OPENCV = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])  # to x forward, y left, z up


@dataclass(frozen=True)
class Viewpoint:
    """Where a camera is (x, y, z, metres, z up) and looks: yaw to the left, pitch up, roll to the right, radians."""

    position: np.ndarray
    yaw: float
    pitch: float = 0.0
    roll: float = 0.0

    def moved(self, velocity: np.ndarray) -> Viewpoint:
        """After one frame at a velocity (6,): forward, left, up along the floor and the vertical; yaw, pitch, roll rates."""
        forward, left, up, *rates = velocity * FRAME_S
        yaw, pitch, roll = np.array([self.yaw, self.pitch, self.roll]) + rates
        heading = (self.yaw + yaw) / 2
        cos, sin = np.cos(heading), np.sin(heading)
        offset = np.array([cos * forward - sin * left, sin * forward + cos * left, up])
        return Viewpoint(self.position + offset, yaw, pitch, roll)

    def rotation(self) -> np.ndarray:
        """(3, 3) camera axes, OpenCV, as columns in the world."""
        (cy, cp, cr), (sy, sp, sr) = (f([self.yaw, self.pitch, self.roll]) for f in (np.cos, np.sin))
        yaw = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
        pitch = np.array([[cp, 0, -sp], [0, 1, 0], [sp, 0, cp]])
        roll = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
        return yaw @ pitch @ roll @ _FROM_OPENCV

    def pose(self) -> np.ndarray:
        """(12,) camera-to-world, 3x4 row-major."""
        return np.concatenate([self.rotation(), self.position[:, None]], axis=1).ravel()


class Wanderer:
    """Velocities (6,) that keep a viewpoint inside the free part of a room and upright within limits."""

    def __init__(self, rng: np.random.Generator, room: Room, style: Style) -> None:
        self._rng, self._room = rng, room
        self._at = Viewpoint(np.zeros(3), 0.0)
        self._velocities = HeldActions(rng, MOTIONS[style], self._draw, self._is_safe, np.ones(6, bool))

    def velocity(self, at: Viewpoint) -> np.ndarray:
        """What to do in the next frame."""
        self._at = at
        return self._velocities.next()

    def _draw(self) -> np.ndarray:
        # Some of the six at a time: combinations and pure motions both occur.
        chosen = self._rng.random(6) < 0.6
        return np.clip(self._rng.normal(0, _SPREAD), -_LIMITS, _LIMITS) * chosen

    def _is_safe(self, velocities: np.ndarray) -> bool:
        at = self._at
        for velocity in velocities:
            at = at.moved(velocity)
            if not is_allowed(self._room, at):
                return False
        return sees_something(self._room, at)


def is_allowed(room: Room, at: Viewpoint) -> bool:
    """Whether a camera may be there, and look so."""
    is_level = PITCH_RAD[0] < at.pitch < PITCH_RAD[1] and abs(at.roll) < MAX_ROLL_RAD
    return is_level and MIN_HEIGHT_M < at.position[2] < MAX_HEIGHT_M and room.is_free(at.position[:2])


def sees_something(room: Room, at: Viewpoint) -> bool:
    """Whether no wall is right ahead."""
    return room.contains(at.position[:2] + VIEW_M * np.array([np.cos(at.yaw), np.sin(at.yaw)]))


def start(rng: np.random.Generator, room: Room, height_m: float) -> Viewpoint:
    """A random viewpoint that is allowed."""
    while True:
        at = Viewpoint(np.array([*room.free_point(), height_m]), rng.uniform(-np.pi, np.pi))
        if sees_something(room, at):
            return at


def look(camera: SceneCamera, at: Viewpoint) -> ByteArray:
    """The picture from a viewpoint."""
    camera.place(
        "eye", at.position, at.rotation() * np.array([1, -1, -1])
    )  # MuJoCo's cameras look along -z, y up
    return camera.picture()


def simulate(seed: int, style: Style) -> Recording:
    """One episode."""
    rng = np.random.default_rng([seed, 2])
    room = open_room(rng)
    at = start(rng, room, rng.uniform(1.2, 1.7))
    wanderer = Wanderer(rng, room, style)
    pixels, rows = [], []
    with SceneCamera(room.compile(), "eye") as camera:
        for _ in range(NUM_FRAMES):
            pixels.append(look(camera, at))
            rows.append(at.pose())
            at = at.moved(wanderer.velocity(at))
    return Recording(pixels, rows)


def activity(seed: int) -> str:
    """The same in every episode."""
    del seed
    return "look around a room"


WORLD = World("rooms_sim", SCHEMA, simulate, activity)
