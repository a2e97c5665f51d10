"""Pictures of a scene: rendered at twice the size, without shadows and multisampling, and averaged down.

Software rendering spends most of its time on the shadow map and on multisampling; four samples per pixel by size are
cheaper than four by multisampling.
"""

from __future__ import annotations

import numpy as np

from astra_ros.data.worlds.base import SIZE_PX
from astra_ros.data.worlds.engine import mujoco
from astra_ros.frames.preprocess import fit
from astra_ros.types import ByteArray

OVERSAMPLING = 2
_OFF = (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION)
_SHOWN, _HIDDEN = 0, 5  # geom groups; MuJoCo draws the first three


def open_renderer(model: mujoco.MjModel, *, has_fog: bool = False) -> mujoco.Renderer:
    """A renderer for `take_picture`; close it."""
    model.vis.quality.offsamples = model.vis.quality.shadowsize = 0
    renderer = mujoco.Renderer(model, OVERSAMPLING * SIZE_PX, OVERSAMPLING * SIZE_PX)
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_FOG] = has_fog
    for flag in _OFF:
        renderer.scene.flags[flag] = 0
    return renderer


def take_picture(
    renderer: mujoco.Renderer,
    data: mujoco.MjData,
    camera: int | mujoco.MjvCamera,
    option: mujoco.MjvOption | None = None,
) -> ByteArray:
    """(SIZE_PX, SIZE_PX, 3) uint8 RGB of the present state. option: what is shown."""
    renderer.update_scene(data, camera=camera, scene_option=option)
    return fit(renderer.render(), SIZE_PX, SIZE_PX)


class SceneCamera:
    """Renders a named camera of a model. A context manager: the graphics context is freed at the end."""

    def __init__(self, model: mujoco.MjModel, camera: str, *, has_fog: bool = False) -> None:
        self._model, self._camera = model, model.camera(camera).id
        self.data = mujoco.MjData(model)
        self._slope = np.sqrt(2) * np.tan(np.radians(model.cam_fovy[self._camera]) / 2)
        self._renderer = open_renderer(model, has_fog=has_fog)

    def __enter__(self) -> SceneCamera:
        return self

    def __exit__(self, *error: object) -> None:
        self._renderer.close()

    def place(self, name: str, position: np.ndarray, rotation: np.ndarray) -> None:
        """Put a moving body somewhere: position (3,) m, rotation (3, 3)."""
        index = self._model.body(name).mocapid[0]
        self.data.mocap_pos[index] = position
        mujoco.mju_mat2Quat(self.data.mocap_quat[index], rotation.ravel())

    def picture(self) -> ByteArray:
        """(SIZE_PX, SIZE_PX, 3) uint8 RGB of what was placed."""
        mujoco.mj_kinematics(self._model, self.data)
        mujoco.mj_camlight(self._model, self.data)
        self._cull()
        return take_picture(self._renderer, self.data, self._camera)

    def _cull(self) -> None:
        """Hide what is outside the view cone: MuJoCo draws everything, and most of a scene is elsewhere."""
        offsets = self.data.geom_xpos - self.data.cam_xpos[self._camera]
        depth = offsets @ -self.data.cam_xmat[self._camera].reshape(3, 3)[:, 2]
        aside = np.sqrt(np.maximum((offsets**2).sum(axis=1) - depth**2, 0.0))
        radius = self._model.geom_rbound
        is_seen = aside < np.maximum(depth, 0) * self._slope + (1 + self._slope) * radius
        is_plane = radius == 0
        self._model.geom_group[:] = np.where((is_seen & (depth > -radius)) | is_plane, _SHOWN, _HIDDEN)


def upright(yaw: float) -> np.ndarray:
    """(3, 3) rotation about the vertical."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
