"""What stands beside a road and drives on it: trees, houses, reflector posts, cars."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from astra_ros.data.worlds import paint
from astra_ros.data.worlds.landscape import Landscape
from astra_ros.data.worlds.road import HALF_WIDTH_M, SPACING_M, Road
from astra_ros.data.worlds.scene import Scene, body, mesh_shape, shape

NUM_THINGS = 170
POST_EVERY_M = 15.0
CLEARANCE_M = 8.0  # between the centre line and the nearest tree
HOUSE_CLEARANCE_M = 14.0
WALLS = (
    (0.9, 0.85, 0.72),
    (0.68, 0.38, 0.3),
    (0.9, 0.9, 0.88),
    (0.6, 0.64, 0.68),
    (0.8, 0.66, 0.44),
    (0.6, 0.72, 0.82),
)
_SHADOW = (0.0, 0.0, 0.0, 0.35)


class Roadside:
    """Draws trees and houses of one landscape; their shapes and facades become part of the scene."""

    def __init__(self, rng: np.random.Generator, scene: Scene, land: Landscape) -> None:
        self._rng, self._land = rng, land
        self._heights = (4.5, 6.0, 8.0)
        self._conifers = [scene.mesh(f"conifer{i}", *_conifer(h)) for i, h in enumerate(self._heights)]
        self._houses = [self._house_kind(scene, index) for index in range(4)]

    def along(self, road: Road) -> Iterator[str]:
        """Bodies on both sides, denser near the road."""
        for station in self._rng.choice(road.num_stations, NUM_THINGS, replace=False):
            is_house = self._rng.random() < self._land.buildings
            nearest = HOUSE_CLEARANCE_M if is_house else CLEARANCE_M
            offset = (nearest + self._rng.exponential(9.0)) * self._rng.choice([-1, 1])
            x, y, heading = road.at(station, offset)
            if abs(road.locate(np.array([x, y]))[1]) < nearest - 0.5:
                continue  # the inside of a bend: nearer to another part of the road
            yaw = heading + self._rng.normal(0, 0.15)
            yield body(self._house() if is_house else self._tree(), (x, y, 0), yaw)

    def _tree(self) -> Iterator[str]:
        leaves = paint.shade(self._land.leaves, self._rng.uniform(0.7, 1.3))
        kind = int(self._rng.integers(len(self._heights)))
        is_conifer = self._rng.random() < self._land.conifers
        return self._conifer(kind, leaves) if is_conifer else self._broadleaf(leaves)

    def _conifer(self, kind: int, leaves: paint.Colour) -> Iterator[str]:
        yield _shadow(0.28 * self._heights[kind])
        yield shape("cylinder", (0, 0, 0.5), (0.16, 0.6), (0.3, 0.21, 0.14))
        yield mesh_shape(self._conifers[kind], (0, 0, 0.6), leaves)

    def _broadleaf(self, leaves: paint.Colour) -> Iterator[str]:
        trunk, crown = self._rng.uniform(1.2, 2.4), self._rng.uniform(1.1, 1.9)
        yield _shadow(1.2 * crown)
        yield shape("cylinder", (0, 0, trunk / 2), (0.17, trunk / 2), (0.36, 0.26, 0.17))
        for _ in range(3):
            x, y, z = self._rng.normal(0, 0.4, 3) * crown
            size = crown * self._rng.uniform(0.6, 0.9, 3)
            yield shape(
                "ellipsoid",
                (x, y, trunk + crown * 0.8 + z),
                size,
                paint.shade(leaves, self._rng.uniform(0.85, 1.15)),
            )

    def _house_kind(self, scene: Scene, index: int) -> tuple[str, str, np.ndarray, paint.Colour]:
        """Facade, roof, half sizes and roof colour of one kind of house."""
        floors, windows = int(self._rng.integers(1, 4)), int(self._rng.integers(2, 5))
        walls = paint.shade(WALLS[int(self._rng.integers(len(WALLS)))], self._rng.uniform(0.85, 1.1))
        facade = scene.wrap(f"facade{index}", paint.facade(self._rng, 128, walls, floors, windows))
        size = np.array([self._rng.uniform(3, 5), self._rng.uniform(3, 4.5), 1.6 * floors])
        roof = scene.mesh(f"roof{index}", *_gable(size * [1.1, 1.15, 1], self._rng.uniform(1.5, 2.6)))
        return facade, roof, size, paint.colour(self._rng, (0.2, 0.6), (0.3, 0.6))

    def _house(self) -> Iterator[str]:
        facade, roof, size, tiles = self._houses[int(self._rng.integers(len(self._houses)))]
        yield shape("box", (0, 0, 0.03), (1.15 * size[0], 1.15 * size[1], 0.02), _SHADOW)
        yield shape("box", (0, 0, size[2]), size, facade)
        yield mesh_shape(roof, (0, 0, 2 * size[2]), tiles)


def posts(road: Road) -> Iterator[str]:
    """White posts with a dark band at even distances: they show the speed."""
    for station in range(0, road.num_stations, round(POST_EVERY_M / SPACING_M)):
        for side in (-1, 1):
            x, y, _ = road.at(station, side * (HALF_WIDTH_M + 0.5))
            yield body(
                [
                    shape("cylinder", (0, 0, 0.45), (0.07, 0.45), (0.95, 0.95, 0.95)),
                    shape("cylinder", (0, 0, 0.72), (0.075, 0.09), (0.15, 0.15, 0.15)),
                ],
                (x, y, 0),
            )


def car(rng: np.random.Generator) -> Iterator[str]:
    """A car that looks along +x: hull, cabin, wheels, lights."""
    metal, glass = paint.colour(rng, (0.0, 0.9), (0.25, 0.95)), (0.12, 0.15, 0.2)
    length, height = rng.uniform(1.9, 2.3), rng.uniform(0.36, 0.5)
    yield shape("box", (0, 0, 0.06), (length + 0.1, 1.0, 0.02), _SHADOW)
    yield shape("box", (0, 0, 0.3 + height), (length, 0.88, height), metal)
    yield shape("box", (-0.2, 0, 0.5 + 2 * height), (0.55 * length, 0.74, 0.3), glass)
    yield shape("box", (-0.2, 0, 0.82 + 2 * height), (0.5 * length, 0.7, 0.04), metal)
    for x in (-0.62 * length, 0.62 * length):
        for y in (-0.85, 0.85):
            yield shape("cylinder", (x, y, 0.33), (0.33, 0.1), (0.08, 0.08, 0.08), (0, 0, np.pi / 2))
    for y in (-0.62, 0.62):
        yield shape("box", (length, y, 0.35 + height), (0.03, 0.16, 0.09), (1.0, 0.98, 0.8))
        yield shape("box", (-length, y, 0.4 + height), (0.03, 0.16, 0.09), (0.85, 0.08, 0.06))


def _shadow(radius_m: float) -> str:
    return shape("cylinder", (0, 0, 0.02), (radius_m, 0.005), _SHADOW)


def _conifer(height_m: float, sides: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Three cones on top of each other; a side has vertices of its own, so that its shading is flat."""
    around = np.linspace(0, 2 * np.pi, sides + 1)
    triangles = []
    for level in range(3):
        radius, base = 0.26 * height_m * (1 - 0.25 * level), height_m * 0.25 * level
        apex = [0, 0, base + 0.45 * height_m]
        ring = np.stack([radius * np.cos(around), radius * np.sin(around), np.full(sides + 1, base)], axis=1)
        triangles += [[ring[side], ring[side + 1], apex] for side in range(sides)]
    return _separate(np.array(triangles))


def _gable(half: np.ndarray, height_m: float) -> tuple[np.ndarray, np.ndarray]:
    """A roof of two slopes along x with its two gable ends; z = 0 is the eaves."""
    x, y = half[:2]
    front, back = [x, 0, height_m], [-x, 0, height_m]
    corners = {(i, j): [i * x, j * y, 0.0] for i in (-1, 1) for j in (-1, 1)}
    triangles = [[corners[1, -1], corners[1, 1], front], [corners[-1, 1], corners[-1, -1], back]]
    for j, first, second in ((-1, -1, 1), (1, 1, -1)):
        ends = {1: front, -1: back}
        triangles += [
            [corners[first, j], corners[second, j], ends[second]],
            [corners[first, j], ends[second], ends[first]],
        ]
    return _separate(np.array(triangles))


def _separate(triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3, 3) corners → vertices (3n, 3) and faces (n, 3)."""
    return triangles.reshape(-1, 3), np.arange(3 * len(triangles)).reshape(-1, 3)
