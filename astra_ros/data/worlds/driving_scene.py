"""What a driver sees: a road with shoulders through open country, trees, buildings, posts, other cars, hills far away."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from astra_ros.data.worlds import paint
from astra_ros.data.worlds.engine import mujoco
from astra_ros.data.worlds.landscape import LANDSCAPES, Landscape
from astra_ros.data.worlds.road import HALF_WIDTH_M, SPACING_M, Road
from astra_ros.data.worlds.roadside import Roadside, car, posts
from astra_ros.data.worlds.scene import Panorama, Scene, mesh_shape, moving_body, shape, sunlight
from astra_ros.types import ByteArray

FAR_M = 320.0
GROUND_HALF_M = 300.0
CAMERA = '<camera name="front" pos="1.4 0 1.45" xyaxes="0 -1 0 0.06 0 1" fovy="62"/>'
_ROAD_TILE_M = 16.0


def driving_scene(rng: np.random.Generator, road: Road, num_cars: int) -> mujoco.MjModel:
    """The landscape around a road, `num_cars` moving bodies car0, car1, ... and the body `ego` with the camera."""
    land = LANDSCAPES[int(rng.integers(len(LANDSCAPES)))]
    scene = Scene(FAR_M)
    scene.sky(_panorama(rng, land))
    _lay_ground(rng, scene, road, land)
    things = Roadside(rng, scene, land)
    scene.add(things.along(road))
    scene.add(posts(road))
    scene.add(moving_body(f"car{index}", car(rng)) for index in range(num_cars))
    scene.add([moving_body("ego", [CAMERA])])
    scene.add([sunlight((rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7), -0.8), land.sun)])
    return scene.compile(fog=land.horizon)


def _lay_ground(rng: np.random.Generator, scene: Scene, road: Road, land: Landscape) -> None:
    half = GROUND_HALF_M
    grass = scene.surface(
        "grass", paint.mottle(rng, 512, land.ground, 0.13, octaves=7), (2 * half / 30, 2 * half / 30)
    )
    asphalt = scene.surface("asphalt", _asphalt(rng, land))
    stations = np.arange(road.num_stations + 1)
    around = stations % road.num_stations
    edges = [road.points[around] + side * HALF_WIDTH_M * road.normals[around] for side in (1, -1)]
    vertices = np.pad(np.concatenate(edges), ((0, 0), (0, 1)), constant_values=0.03)
    # A whole number of tiles around the loop, so that the dashes meet.
    tiles = round(road.num_stations * SPACING_M / _ROAD_TILE_M)
    along = stations / road.num_stations * tiles
    texcoords = np.concatenate(
        [np.stack([np.full_like(along, across), along], axis=1) for across in (0.0, 1.0)]
    )
    left, right = stations[:-1], stations[:-1] + len(stations)
    faces = np.concatenate([np.stack([left, right, left + 1], 1), np.stack([left + 1, right, right + 1], 1)])
    scene.mesh("road", vertices, faces, texcoords)
    scene.add([shape("plane", (0, 0, 0), (half, half, 1), grass), mesh_shape("road", (0, 0, 0), asphalt)])


def _asphalt(rng: np.random.Generator, land: Landscape) -> ByteArray:
    """One tile of the road, across by along: shoulders, edge lines, a dashed centre line, patches and cracks."""
    width, length = 256, 512
    grey = rng.uniform(0.27, 0.42)
    surface = paint.mottle(rng, 512, (grey, grey, grey * 1.03), 0.06)[:length, :width]
    picture = Image.fromarray(np.ascontiguousarray(surface))
    draw = ImageDraw.Draw(picture)
    metre, up = width / (2 * HALF_WIDTH_M), length / _ROAD_TILE_M
    for _ in range(int(rng.integers(1, 4))):  # patches: they show the speed between the dashes
        x, y, tone = (
            rng.uniform(1.2, 8) * metre,
            rng.uniform(0, 0.8) * length,
            round(255 * grey * rng.uniform(0.75, 1.2)),
        )
        draw.rectangle(
            [x, y, x + rng.uniform(1, 2) * metre, y + rng.uniform(0.6, 2.5) * up], fill=(tone, tone, tone)
        )
    shoulder = tuple(round(255 * (0.5 * channel + 0.5 * 0.5)) for channel in land.ground)
    for side in (0.0, 2 * HALF_WIDTH_M - 0.8):
        draw.rectangle([side * metre, 0, (side + 0.8) * metre, length], fill=shoulder)
    line = (236, 236, 228) if rng.random() < 0.6 else (236, 192, 60)
    for at in (1.0, 2 * HALF_WIDTH_M - 1.2):
        draw.rectangle([at * metre, 0, (at + 0.18) * metre, length], fill=(236, 236, 228))
    for start in (0.0, 8.0):
        left = (HALF_WIDTH_M - 0.1) * metre
        draw.rectangle([left, start * up, left + 0.2 * metre, (start + 4) * up], fill=line)
    return np.asarray(picture)


def _panorama(rng: np.random.Generator, land: Landscape) -> Panorama:
    """A gradient with clouds, and two ridges of hills: what tells the heading."""
    phases, amplitudes = rng.uniform(0, 2 * np.pi, (3, 6)), rng.uniform(0.3, 1.0, (3, 6))
    clouds = rng.uniform(0, 2 * np.pi, 6)

    def waves(azimuth: np.ndarray, layer: int) -> np.ndarray:
        return sum(
            amplitudes[layer, k] / (k + 1) * np.sin((3 * k + 2 + layer) * azimuth + phases[layer, k])
            for k in range(6)
        )

    def colours(azimuth: np.ndarray, elevation: np.ndarray) -> ByteArray:
        height = np.clip(elevation / 1.0, 0, 1)[..., None] ** 0.6
        picture = np.asarray(land.horizon) * (1 - height) + np.asarray(land.zenith) * height
        band = sum(
            np.sin((2 * k + 3) * azimuth + (5 + 3 * k) * 3 * elevation + clouds[k]) / (k + 1)
            for k in range(6)
        )
        cover = np.clip(band - 0.9, 0, 1)[..., None] * np.clip(elevation * 4, 0, 1)[..., None]
        picture = picture * (1 - 0.7 * cover) + 0.7 * cover
        for layer in range(2):
            top = 0.10 - 0.05 * layer + 0.035 * waves(azimuth, layer)
            blend = 0.45 * (1 - layer)
            hills = np.asarray(land.hills) * (1 - blend) + np.asarray(land.horizon) * blend
            picture = np.where((elevation < top)[..., None], hills, picture)
        return paint.to_bytes(
            np.where((elevation < -0.02)[..., None], np.asarray(land.ground) * 0.95, picture)
        )

    return colours
