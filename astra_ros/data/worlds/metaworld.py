"""A Sawyer arm at eight tasks of Meta-World, driven by the scripted policies that come with it, disturbed or smoothed.

The simulator takes movements of the hand; what is recorded is what its joints did. So `commanded` is `measured`: the
joints at a frame stand for the command that led to it. The gripper's travel is 0 open, 0.04 m closed.

A frame is three control steps (37.5 ms of simulated time) but stamped 0.1 s after the one before: at three eighths of the
simulator's speed the hand moves at 0.3 m/s at most, like that of a real arm.
"""

from __future__ import annotations

import warnings
from contextlib import closing
from typing import Any

import numpy as np

from astra_ros.data.schema import ActionSchema
from astra_ros.data.worlds.base import FRAME_S, NUM_FRAMES, Recording, Style, World
from astra_ros.data.worlds.camera import open_renderer, take_picture
from astra_ros.data.worlds.engine import mujoco

# Meta-World loads MuJoCo, which must have been told how to render.
# isort: split
import metaworld.env_dict
import metaworld.policies

JOINTS = tuple(f"right_j{index}" for index in range(7))
SCHEMA = ActionSchema("metaworld", "arm", "joint_position", (*JOINTS, "gripper"), ("rad",) * 7 + ("m",))
TASKS = (
    "reach", "push", "pick-place", "door-open", "drawer-close", "drawer-open", "button-press-topdown", "window-open",
)  # fmt: skip

STEPS_PER_FRAME = 3
HOLD_S = (0.3, 0.7)
POLICY_SHARE = 0.4  # of the held pieces of abrupt episodes
DONE_FRAMES = 8  # that the policy goes on for after it succeeded; then the arm explores
GOAL_GAIN = 6.0  # per metre, of the way to a random place
LAG_S = 0.3  # of smooth episodes
_WORKSPACE = np.array([[-0.3, 0.3], [0.45, 0.8], [0.08, 0.3]])


class Pilot:
    """Chooses (x, y, z, grip) in [-1, 1]: the policy until its task is done, then random places; with disturbances."""

    def __init__(self, rng: np.random.Generator, task: str, style: Style) -> None:
        self._rng, self._style = rng, style
        self._policy = metaworld.policies.ENV_POLICY_MAP[f"{task}-v3"]()
        self._frames_done = 0
        self._goal, self._grip = self._anywhere(), 1.0
        self._held: np.ndarray | None = None
        self._frames_left = 0
        self._action, self._noise = np.zeros(4), np.zeros(4)
        self._pace = rng.uniform(0.75, 1.0)

    def act(self, sensed: np.ndarray, *, has_succeeded: bool) -> np.ndarray:
        """The action (4,) of the next frame."""
        self._frames_done += has_succeeded
        wanted = (
            self._policy_action(sensed) if self._frames_done < DONE_FRAMES else self._towards_goal(sensed[:3])
        )
        return self._abrupt(wanted) if self._style == "abrupt" else self._smooth(wanted)

    def _policy_action(self, sensed: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():  # it says that its gains are high, in every step
            warnings.simplefilter("ignore", UserWarning)
            return np.clip(self._policy.get_action(sensed), -1, 1)

    def _towards_goal(self, hand: np.ndarray) -> np.ndarray:
        offset = self._goal - hand
        if np.linalg.norm(offset) < 0.03:
            self._goal, self._grip = self._anywhere(), float(self._rng.choice([-1, 1]))
        return np.array([*np.clip(GOAL_GAIN * offset, -1, 1), self._grip])

    def _abrupt(self, wanted: np.ndarray) -> np.ndarray:
        """For a while what is wanted, for a while something else."""
        if self._frames_left == 0:
            self._frames_left = round(self._rng.uniform(*HOLD_S) / FRAME_S)
            is_wanted = self._rng.random() < POLICY_SHARE
            self._held = None if is_wanted else self._disturbance()
        self._frames_left -= 1
        return wanted if self._held is None else self._held

    def _disturbance(self) -> np.ndarray:
        """Full speed in a random direction, or a stop, with the gripper opening or closing."""
        direction = self._rng.uniform(-1, 1, 3) * (self._rng.random() < 0.85)
        fastest = max(float(np.abs(direction).max()), 1e-3)
        return np.array([*direction / fastest, self._rng.choice([-1, 1])])

    def _smooth(self, wanted: np.ndarray) -> np.ndarray:
        """What is wanted, slower and lagging, with slow noise."""
        self._noise = 0.95 * self._noise + self._rng.normal(0, 0.03, 4)
        gain = 1 - np.exp(-FRAME_S / LAG_S)
        self._action += gain * (self._pace * wanted + self._noise - self._action)
        return np.clip(np.array([*self._action[:3], wanted[3]]), -1, 1)

    def _anywhere(self) -> np.ndarray:
        return self._rng.uniform(*_WORKSPACE.T)


def simulate(seed: int, style: Style) -> Recording:
    """One episode. Rows: seven joints and the gripper."""
    task = task_of(seed)
    env = metaworld.env_dict.ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[f"{task}-v3-goal-observable"](seed=seed)
    sensed, _ = env.reset()
    pilot, has_succeeded = Pilot(np.random.default_rng([seed, 3]), task, style), False
    camera, markers_off = _camera(), _without_markers()
    pixels, rows = [], []
    with closing(env), closing(open_renderer(env.model)) as renderer:
        for _ in range(NUM_FRAMES):
            pixels.append(take_picture(renderer, env.data, camera, markers_off))
            rows.append(_joints(env))
            action = pilot.act(sensed, has_succeeded=has_succeeded).astype(np.float32)
            for _ in range(STEPS_PER_FRAME):
                sensed, _, _, _, info = env.step(action)
                has_succeeded |= bool(info["success"])
    return Recording(pixels, rows)


def task_of(seed: int) -> str:
    """Every task in both styles, which alternate from seed to seed."""
    return TASKS[seed // 2 % len(TASKS)]


def _joints(env: Any) -> np.ndarray:
    return np.array([env.data.joint(name).qpos[0] for name in (*JOINTS, "r_close")])


def _camera() -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = (-0.02, 0.58, 0.17)
    camera.distance, camera.azimuth, camera.elevation = 1.28, 122, -27
    return camera


def _without_markers() -> mujoco.MjvOption:
    """Meta-World marks goals with coloured balls, which no real camera would see."""
    option = mujoco.MjvOption()
    option.sitegroup[:] = 0
    return option


WORLD = World("metaworld", SCHEMA, simulate, task_of)
