"""A room walked through with keys and mouse, as in a game: what is pressed acts at once, and walls are kept clear of.

key_*: 0 or 1. mouse_dx, mouse_dy: radians per second that the mouse turns the view to the right and down, so that a row
means the same at any frame rate.
"""

from __future__ import annotations

import numpy as np

from astra_ros.data.schema import ActionSchema
from astra_ros.data.worlds.base import NUM_FRAMES, Recording, Style, World
from astra_ros.data.worlds.camera import SceneCamera
from astra_ros.data.worlds.motion import MOTIONS, HeldActions
from astra_ros.data.worlds.room_scene import Room, open_room
from astra_ros.data.worlds.rooms import Viewpoint, is_allowed, look, sees_something, start

SCHEMA = ActionSchema(
    "rooms_command",
    "command",
    "rate",
    ("key_forward", "key_back", "key_left", "key_right", "mouse_dx", "mouse_dy"),
    ("1", "1", "1", "1", "rad/s", "rad/s"),
)

WALK_M_S = 1.0
EYE_HEIGHT_M = 1.5
_IS_MOUSE = np.array([False] * 4 + [True] * 2)
_MOUSE_SPREAD, _MOUSE_LIMIT = np.array([0.9, 0.35]), np.array([1.8, 0.9])


def velocity_of(row: np.ndarray) -> np.ndarray:
    """Keys and mouse (6,) → velocity (6,) of a viewpoint; two keys at once are not faster than one."""
    forward, left = row[0] - row[1], row[2] - row[3]
    speed = WALK_M_S / max(1.0, float(np.hypot(forward, left)))
    return np.array([forward * speed, left * speed, 0.0, -row[4], -row[5], 0.0])


class Player:
    """Presses keys and moves the mouse so that the room is not left."""

    def __init__(self, rng: np.random.Generator, room: Room, style: Style) -> None:
        self._rng, self._room = rng, room
        self._at = Viewpoint(np.zeros(3), 0.0)
        self._rows = HeldActions(rng, MOTIONS[style], self._draw, self._is_safe, _IS_MOUSE)

    def row(self, at: Viewpoint) -> np.ndarray:
        """Keys and mouse (6,) of the next frame."""
        self._at = at
        return self._rows.next()

    def _draw(self) -> np.ndarray:
        keys = np.zeros(4)
        if self._rng.random() < 0.7:
            keys[self._rng.choice(2, p=[0.75, 0.25])] = 1
        if self._rng.random() < 0.35:
            keys[2 + self._rng.integers(2)] = 1
        mouse = np.clip(self._rng.normal(0, _MOUSE_SPREAD), -_MOUSE_LIMIT, _MOUSE_LIMIT)
        return np.concatenate([keys, mouse * (self._rng.random(2) < [0.7, 0.4])])

    def _is_safe(self, rows: np.ndarray) -> bool:
        at = self._at
        for row in rows:
            at = at.moved(velocity_of(row))
            if not is_allowed(self._room, at):
                return False
        return sees_something(self._room, at)


def simulate(seed: int, style: Style) -> Recording:
    """One episode. Rows: keys and mouse that acted since the frame before. The room is the one of `rooms` for the seed."""
    rng = np.random.default_rng([seed, 2])
    room = open_room(rng)
    at = start(rng, room, EYE_HEIGHT_M)
    player = Player(rng, room, style)
    pixels, rows = [], []
    with SceneCamera(room.compile(), "eye") as camera:
        for _ in range(NUM_FRAMES):
            pixels.append(look(camera, at))
            rows.append(player.row(at))
            at = at.moved(velocity_of(rows[-1]))
    # What is pressed at a frame leads to the next one.
    return Recording(pixels, [rows[0], *rows[:-1]])


def activity(seed: int) -> str:
    """The same in every episode."""
    del seed
    return "walk through a room"


WORLD = World("command_sim", SCHEMA, simulate, activity)
