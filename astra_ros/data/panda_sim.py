"""A Panda arm over a table with two cubes, simulated by robosuite, driven by joint position commands.

Needs the simulator environment (`requirements/sim.txt`); no ROS. Rendering uses EGL or OSMesa on the CPU.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from astra_ros.data.sim_robot import CONTROL_HZ
from astra_ros.types import ByteArray

os.environ.setdefault("MUJOCO_GL", "egl")
# At every reset robosuite warns of all that this robot lacks: a second arm, a torso, legs.
logging.getLogger("robosuite_logs").addFilter(lambda record: record.levelno >= logging.ERROR)

import mujoco  # noqa: E402
import robosuite  # noqa: E402
from robosuite.controllers import load_composite_controller_config  # noqa: E402

ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
FINGER_JOINT = "panda_finger_joint1"
JOINT_NAMES = (*ARM_JOINTS, FINGER_JOINT)
JOINT_UNITS = ("rad",) * 7 + ("m",)
FINGER_OPEN_M, FINGER_CLOSED_M = 0.04, 0.0
CAMERA_FRAME = "camera_color_optical_frame"
_WRIST_CAMERA = "robot0_eye_in_hand"  # robosuite's
TABLE_HEIGHT_M = 0.80
HOME = np.array([0.0, 0.2, 0.0, -2.4, 0.0, 2.6, 0.785])
JOINT_LOWER = np.array([-1.3, -0.6, -1.3, -2.9, -1.5, 1.2, -0.9])
JOINT_UPPER = np.array([1.3, 1.3, 1.3, -1.2, 1.5, 3.6, 2.4])


@dataclass(frozen=True)
class ArmState:
    """positions: (8,) measured joints in JOINT_NAMES order; gripper: (3,) m, world; cubes: (2, 3) m, world."""

    positions: np.ndarray
    gripper: np.ndarray
    cubes: np.ndarray


@dataclass(frozen=True)
class CameraConfig:
    """A free camera; the image is square."""

    size_px: int = 256
    lookat: tuple[float, float, float] = (-0.12, 0.0, 0.98)
    distance_m: float = 1.08
    azimuth_deg: float = 143.0
    elevation_deg: float = -24.0


@dataclass
class Way:
    """Where the gripper goes next (m, world), how wide (m), at which yaw, how fast (m/s), and at least how long it stays at it."""

    position: np.ndarray
    finger: float
    yaw: float
    speed: float
    periods: int = 0
    tolerance_m: float = 0.01


class PandaSim:
    """One episode of the simulated robot; the same seed gives the same episode."""

    def __init__(self, seed: int, camera: CameraConfig | None = None) -> None:
        self._env = robosuite.make(
            "Stack",
            robots="Panda",
            controller_configs=_joint_position_controller(),
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            control_freq=CONTROL_HZ,
            horizon=1_000_000,
            hard_reset=False,
            seed=seed,
        )
        self._model, self._data = self._env.sim.model._model, self._env.sim.data._data  # noqa: SLF001
        self._site = self._env.robots[0].eef_site_id["right"]
        self._dofs = list(self._env.robots[0]._ref_joint_vel_indexes)  # noqa: SLF001
        self._places = list(self._env.robots[0]._ref_joint_pos_indexes)  # noqa: SLF001
        self._scratch = mujoco.MjData(self._model)
        self._camera = _free_camera(camera or CameraConfig())
        self._renderer = _fast_renderer(self._model, (camera or CameraConfig()).size_px)
        self._geoms = mujoco.MjvOption()
        self._geoms.geomgroup[0] = 0  # collision shapes
        self.state = self._read(self._env.reset())

    def step(self, command: np.ndarray) -> ArmState:
        """Hold a (8,) joint position command for one control period (1 / CONTROL_HZ seconds)."""
        error = command[7] - self.state.positions[7]
        grip = 0.0 if abs(error) < 0.002 else -np.sign(error)
        self.state = self._read(self._env.step(np.r_[command[:7], grip])[0])
        return self.state

    def render(self) -> ByteArray:
        """(size, size, 3) uint8 RGB of the present state."""
        return self._render(self._camera)

    def render_wrist(self) -> ByteArray:
        """The same from the camera on the hand."""
        return self._render(_WRIST_CAMERA)

    def _render(self, camera: mujoco.MjvCamera | str) -> ByteArray:
        self._renderer.update_scene(self._data, camera=camera, scene_option=self._geoms)
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            self._renderer.scene.flags[flag] = 0
        return self._renderer.render().copy()

    def save(self) -> tuple[Any, np.ndarray]:
        """Everything that moves, for `restore`."""
        return self._env.sim.get_state(), self._fingers.copy()

    def restore(self, saved: tuple[Any, np.ndarray]) -> None:
        """Back to a state of this episode."""
        self._env.sim.set_state(saved[0])
        self._env.sim.forward()
        self._fingers[:] = saved[1]
        for sensor in self._env._observables.values():  # noqa: SLF001 - its clock would run on otherwise
            sensor.reset()
        self.state = self._read(self._env._get_observations(force_update=True))  # noqa: SLF001

    @property
    def measured(self) -> np.ndarray:
        """(8,) measured joints."""
        return self.state.positions

    @property
    def is_lifted(self) -> bool:
        """robosuite's own word for it: cube A is above the table (Stack.staged_rewards)."""
        return bool(self._env.staged_rewards()[1] > 0)

    def joint_velocity(self, linear: np.ndarray, yaw: float) -> np.ndarray:
        """(7,) rad/s that moves the gripper at `linear` m/s while it turns to point down at `yaw`."""
        return self._joint_velocity(self._data, linear, yaw)

    def imagined_path(self, ways: Sequence[Way], periods: int) -> np.ndarray:
        """(periods, 8) commands that would lead the gripper along `ways`, by kinematics alone; the last way is held."""
        data, joints = self._scratch, self.state.positions[:7].copy()
        data.qpos[:] = self._data.qpos
        commands, left = [], list(ways)
        for _ in range(periods):
            data.qpos[self._places] = joints
            mujoco.mj_kinematics(self._model, data)
            mujoco.mj_comPos(self._model, data)
            offset = left[0].position - data.site_xpos[self._site]
            velocity = limited(6.0 * offset, left[0].speed)
            step = np.clip(self._joint_velocity(data, velocity, left[0].yaw), -1.5, 1.5) / CONTROL_HZ
            joints = np.clip(joints + step, JOINT_LOWER, JOINT_UPPER)
            commands.append(np.r_[joints, left[0].finger])
            left[0].periods -= 1
            if len(left) > 1 and left[0].periods <= 0 and np.linalg.norm(offset) < left[0].tolerance_m:
                left.pop(0)
        return np.array(commands)

    def _joint_velocity(self, data: mujoco.MjData, linear: np.ndarray, yaw: float) -> np.ndarray:
        """Damped least squares with a null-space pull to the home posture."""
        jacobian = np.zeros((6, self._model.nv))
        mujoco.mj_jacSite(self._model, data, jacobian[:3], jacobian[3:], self._site)
        arm = jacobian[:, self._dofs]
        twist = np.r_[linear, 3.0 * self._orientation_error(data, yaw)]
        inverse = arm.T @ np.linalg.inv(arm @ arm.T + 1e-2 * np.eye(6))
        null_space = np.eye(7) - inverse @ arm
        return inverse @ twist + null_space @ (0.5 * (HOME - data.qpos[self._places]))

    def close(self) -> None:
        self._renderer.close()
        self._env.close()

    @property
    def _fingers(self) -> np.ndarray:
        """What the gripper's controller remembers."""
        return self._env.robots[0].gripper["right"].current_action

    def _orientation_error(self, data: mujoco.MjData, yaw: float) -> np.ndarray:
        cos, sin = np.cos(yaw), np.sin(yaw)
        wanted = np.array([[cos, sin, 0.0], [sin, -cos, 0.0], [0.0, 0.0, -1.0]])
        rotation = wanted @ data.site_xmat[self._site].reshape(3, 3).T
        quaternion, velocity = np.zeros(4), np.zeros(3)
        mujoco.mju_mat2Quat(quaternion, rotation.ravel())
        mujoco.mju_quat2Vel(velocity, quaternion, 1.0)
        return velocity

    def _read(self, sensed: dict[str, np.ndarray]) -> ArmState:
        positions = np.r_[sensed["robot0_joint_pos"], sensed["robot0_gripper_qpos"][0]]
        return ArmState(
            positions, sensed["robot0_eef_pos"], np.stack([sensed["cubeA_pos"], sensed["cubeB_pos"]])
        )


def limited(velocity: np.ndarray, speed: float) -> np.ndarray:
    """A velocity in the same direction, no faster than `speed`."""
    norm = float(np.linalg.norm(velocity))
    return velocity * min(1.0, speed / max(norm, 1e-9))


def _joint_position_controller() -> dict[str, object]:
    config = load_composite_controller_config(controller="BASIC", robot="Panda")
    config["body_parts"]["right"] = {
        "type": "JOINT_POSITION",
        "input_type": "absolute",
        "input_max": 10,  # radians: wide enough to pass every command through unscaled
        "input_min": -10,
        "output_max": 10,
        "output_min": -10,
        "kp": 400,
        "damping_ratio": 1,
        "impedance_mode": "fixed",
        "kp_limits": [0, 1000],
        "damping_ratio_limits": [0, 10],
        "qpos_limits": None,
        "interpolation": None,
        "ramp_ratio": 0.2,
        "gripper": {"type": "GRIP"},
    }
    return config


def _free_camera(config: CameraConfig) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.lookat[:] = config.lookat
    camera.distance, camera.azimuth, camera.elevation = (
        config.distance_m,
        config.azimuth_deg,
        config.elevation_deg,
    )
    return camera


def _fast_renderer(model: mujoco.MjModel, size_px: int) -> mujoco.Renderer:
    # Software rendering spends most of its time on the 4096 px shadow map and on multisampling.
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
    return mujoco.Renderer(model, size_px, size_px)
