"""Run by the simulators' Python: `probe.py FILE.npz` asks the worlds what only they can tell, without a dataset between.

same_<world>: digests of an episode, of the same one again, and of another seed's.
view_<motion>, pose_<motion>: a room's picture and camera pose before ("still") and after one frame of a motion.
command_velocities: (6, 6), what each key and mouse axis alone does to the viewpoint.
disc_commands: (200, 2), what a disc was told in each period of an episode; disc_commanded, disc_measured: its rows.
car_states: (x, y, heading) one frame after the origin under CAR_ACTIONS; car_views: a road before and after each of them.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from typing import Any
from unittest.mock import patch

import numpy as np

from astra_ros.data.pusht_sim import PushTSim
from astra_ros.data.worlds import pusht
from astra_ros.data.worlds.base import World
from astra_ros.data.worlds.camera import SceneCamera, upright
from astra_ros.data.worlds.catalog import NAMES
from astra_ros.data.worlds.command import velocity_of
from astra_ros.data.worlds.driving import drive
from astra_ros.data.worlds.driving_scene import driving_scene
from astra_ros.data.worlds.road import LANE_M, Road
from astra_ros.data.worlds.room_scene import open_room
from astra_ros.data.worlds.rooms import Viewpoint, look

NUM_FRAMES = 5
MOTIONS = {
    "still": (0, 0, 0, 0, 0, 0),
    "forward": (2, 0, 0, 0, 0, 0),
    "left": (0, 2, 0, 0, 0, 0),
    "up": (0, 0, 2, 0, 0, 0),
    "yaw_left": (0, 0, 0, 1, 0, 0),
    "nose_up": (0, 0, 0, 0, 1, 0),
    "roll_right": (0, 0, 0, 0, 0, 2),
}
CAR_ACTIONS = ((0.0, 0.0), (0.0, 3.0), (0.0, 9.0), (1.0, 9.0), (-1.0, 9.0))


def main(path: str) -> None:
    found: dict[str, Any] = {"command_velocities": np.array([velocity_of(row) for row in np.eye(6)])}
    for name in NAMES:
        found[f"same_{name}"] = np.array([_digest(name, seed) for seed in (4, 4, 5)])
    room = open_room(np.random.default_rng(3))
    start = Viewpoint(np.array([-0.5 * room.half[0], 0.0, 1.5]), 0.0)
    with SceneCamera(room.compile(), "eye") as camera:
        for name, velocity in MOTIONS.items():
            at = start.moved(np.array(velocity, float))
            found[f"view_{name}"], found[f"pose_{name}"] = look(camera, at), at.pose().reshape(3, 4)
    found["car_states"], found["car_views"] = _drives()
    found["disc_commands"], found["disc_commanded"], found["disc_measured"] = _pushes()
    np.savez(path, **found)


def _pushes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the disc was told, period by period, and what its episode says of that."""
    told, step = [], PushTSim.step

    def listening(sim: PushTSim, command: np.ndarray) -> None:
        told.append(command)
        step(sim, command)

    with patch.object(pusht, "NUM_FRAMES", 100), patch.object(PushTSim, "step", listening):
        episode = pusht.WORLD.episode(0, "abrupt")
    return np.array(told), episode.commanded, episode.measured


def _drives() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    road = Road(rng)
    start = road.at(0, -LANE_M)
    with SceneCamera(driving_scene(rng, road, num_cars=0), "front") as camera:
        views = []
        for state in (start, *(drive(start, np.array(action)) for action in CAR_ACTIONS)):
            camera.place("ego", np.array([*state[:2], 0.0]), upright(state[2]))
            views.append(camera.picture())
    return np.array([drive(np.zeros(3), np.array(action)) for action in CAR_ACTIONS]), np.array(views)


def _digest(name: str, seed: int) -> str:
    module: Any = importlib.import_module(f"astra_ros.data.worlds.{name}")
    module.NUM_FRAMES = NUM_FRAMES
    world: World = module.WORLD
    episode = world.episode(seed, "abrupt")
    return hashlib.sha256(episode.pixels.tobytes() + episode.measured.tobytes()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1])
