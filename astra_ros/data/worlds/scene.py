"""A MuJoCo scene that is only looked at: shapes and painted textures in, a compiled model out.

Everything is procedural; nothing is loaded from a file. Shapes never collide and nothing is simulated: what moves
is a mocap body, placed by hand before each picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from astra_ros.data.worlds.engine import mujoco
from astra_ros.types import ByteArray

Floats = Sequence[float] | np.ndarray
Look = str | Floats  # a material's name, or a colour with or without alpha
Panorama = Callable[[np.ndarray, np.ndarray], ByteArray]

NEAR_M = 0.08
SKY_FACE_PX = 192


class Scene:
    """Collects shapes, then compiles them. Lengths are metres, angles radians, colours 0..1."""

    def __init__(self, far_m: float) -> None:
        self._far_m = far_m
        self._pixels: dict[str, ByteArray] = {}
        self._assets: list[str] = []
        self._world: list[str] = []

    def surface(self, name: str, pixels: ByteArray, repeat: tuple[float, float] = (1.0, 1.0)) -> str:
        """A material for planes and meshes from a (h, w, 3) picture. Returns its name."""
        return self._material(name, "2d", pixels, f'texrepeat="{repeat[0]:g} {repeat[1]:g}"')

    def wrap(self, name: str, pixels: ByteArray) -> str:
        """A material that shows a square picture on every side of a box. Returns its name."""
        return self._material(name, "cube", np.tile(pixels, (6, 1, 1)), "")

    def sky(self, panorama: Panorama) -> None:
        """Paint what is infinitely far; panorama maps azimuth and elevation (n, n) to colours (n, n, 3) uint8."""
        faces = [panorama(*angles) for angles in _sky_directions(SKY_FACE_PX)]
        self._texture("sky", "skybox", np.concatenate(faces))

    def mesh(
        self, name: str, vertices: np.ndarray, faces: np.ndarray, texcoords: np.ndarray | None = None
    ) -> str:
        """A mesh from (n, 3) vertices, (m, 3) faces and (n, 2) texture coordinates. Returns its name."""
        coordinates = "" if texcoords is None else f'texcoord="{_text(texcoords)}"'
        self._assets.append(
            f'<mesh name="{name}" inertia="shell" vertex="{_text(vertices)}" face="{_text(faces)}" {coordinates}/>'
        )
        return name

    def add(self, elements: Iterable[str]) -> None:
        """Put shapes, bodies or lights into the world."""
        self._world.extend(elements)

    def compile(
        self, headlight: float = 0.25, ambient: float = 0.4, fog: Floats | None = None
    ) -> mujoco.MjModel:
        """The model, its textures painted. headlight and ambient: 0..1; fog: colour that hides what is far."""
        haze = "" if fog is None else f'<rgba fog="{_text(fog)} 1"/>'
        model = mujoco.MjModel.from_xml_string(
            f"""<mujoco>
            <compiler angle="radian" eulerseq="zyx" boundmass="0.001" boundinertia="0.001"/>
            <statistic extent="1" center="0 0 0"/>
            <visual><headlight ambient="{ambient} {ambient} {ambient}" specular="0 0 0"
                diffuse="{headlight} {headlight} {headlight}"/>
              <quality shadowsize="0" offsamples="0" numslices="16" numstacks="10"/><global offwidth="512" offheight="512"/>
              <map znear="{NEAR_M}" zfar="{self._far_m}" fogstart="{0.1 * self._far_m}" fogend="{2.2 * self._far_m}"/>
              {haze}</visual>
            <default><geom contype="0" conaffinity="0"/></default>
            <asset>{"".join(self._assets)}</asset><worldbody>{"".join(self._world)}</worldbody></mujoco>"""
        )
        for name, pixels in self._pixels.items():
            start = model.texture(name).adr[0]
            model.tex_data[start : start + pixels.size] = pixels.ravel()
        return model

    def _material(self, name: str, kind: str, pixels: ByteArray, attributes: str) -> str:
        self._texture(name, kind, pixels)
        self._assets.append(f'<material name="{name}" texture="{name}" specular="0" {attributes}/>')
        return name

    def _texture(self, name: str, kind: str, pixels: ByteArray) -> None:
        # Compiled flat and painted afterwards: this saves encoding and decoding a PNG per texture.
        height, width = pixels.shape[:2]
        self._pixels[name] = pixels
        self._assets.append(
            f'<texture name="{name}" type="{kind}" builtin="flat" width="{width}" height="{height}"/>'
        )


def shape(kind: str, position: Floats, size: Floats, look: Look, turn: Floats = (0.0, 0.0, 0.0)) -> str:
    """A geom. look: a material's name or a colour (3 or 4 numbers); turn: yaw, pitch, roll."""
    paint = f'material="{look}"' if isinstance(look, str) else f'rgba="{_text(_with_alpha(look))}"'
    return f'<geom type="{kind}" pos="{_text(position)}" size="{_text(size)}" euler="{_text(turn)}" {paint}/>'


def mesh_shape(mesh: str, position: Floats, look: Look, yaw: float = 0.0) -> str:
    """A geom that shows a mesh."""
    paint = f'material="{look}"' if isinstance(look, str) else f'rgba="{_text(_with_alpha(look))}"'
    return f'<geom type="mesh" mesh="{mesh}" pos="{_text(position)}" euler="{yaw:.5g} 0 0" {paint}/>'


def body(elements: Iterable[str], position: Floats = (0.0, 0.0, 0.0), yaw: float = 0.0) -> str:
    """Shapes that stand together."""
    return f'<body pos="{_text(position)}" euler="{yaw:.5g} 0 0">{"".join(elements)}</body>'


def moving_body(name: str, elements: Iterable[str]) -> str:
    """Shapes or cameras that are placed anew for every picture."""
    return f'<body name="{name}" mocap="true">{"".join(elements)}</body>'


def sunlight(direction: Floats, strength: Floats) -> str:
    """Parallel light of a colour."""
    return (
        f'<light directional="true" castshadow="false" dir="{_text(direction)}" diffuse="{_text(strength)}"'
        ' specular="0 0 0"/>'
    )


def _with_alpha(colour: Floats) -> Floats:
    return colour if len(colour) == 4 else [*colour, 1.0]


def _text(values: Floats) -> str:
    return " ".join(f"{value:.6g}" for value in np.asarray(values, np.float64).ravel())


def _sky_directions(size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Azimuth and elevation of every pixel of the six faces, in the order MuJoCo stacks them."""
    centres = (np.arange(size) + 0.5) / size * 2 - 1
    s, t = np.meshgrid(centres, centres)
    one = np.ones_like(s)
    # OpenGL's cube map: +x -x +y -y +z -z, with y up; MuJoCo's world has z up.
    faces = [(one, -t, -s), (-one, -t, s), (s, one, t), (s, -one, -t), (s, -t, one), (-s, -t, -one)]
    angles = []
    for x, y, z in faces:
        angles.append((np.arctan2(-z, x), np.arctan2(y, np.hypot(x, z))))
    return angles
