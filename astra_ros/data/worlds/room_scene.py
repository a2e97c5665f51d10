"""A furnished room: floor, walls with windows, doors and pictures, furniture; and where a camera may be in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from astra_ros.data.worlds import furniture, paint
from astra_ros.data.worlds.engine import mujoco
from astra_ros.data.worlds.furniture import Piece
from astra_ros.data.worlds.scene import Look, Scene, body, moving_body, shape, sunlight

FAR_M = 40.0
HEIGHT_M = 2.7
WALL_MARGIN_M, MARGIN_M = 0.6, 0.35  # between the camera and walls, and furniture
CAMERA = '<camera name="eye" fovy="70"/>'
# From the windows, from another side, and what the floor throws back to the ceiling.
LIGHTS = (
    ((0.5, 0.3, -0.8), (0.34, 0.33, 0.3)),
    ((-0.4, -0.6, -0.3), (0.2, 0.2, 0.22)),
    ((0.1, 0.1, 1.0), (0.42, 0.41, 0.38)),
)
_QUARTER = np.pi / 2


@dataclass(frozen=True)
class Box:
    """A piece of furniture on the floor: centre and half sizes along the walls, metres."""

    centre: np.ndarray
    half: np.ndarray

    def distance(self, point: np.ndarray) -> float:
        """Metres between a point (x, y) and the box; 0 inside."""
        outside = np.maximum(np.abs(point - self.centre) - self.half, 0.0)
        return float(np.hypot(*outside))


class Room:
    """A random room. half: (2,) metres from its centre to the walls."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self.half = rng.uniform(2.6, 4.2, 2)
        self._scene = Scene(FAR_M)
        self._boxes: list[Box] = []
        self._hung: list[tuple[int, float, float]] = []  # wall, place along it, half width
        self._build_shell()
        self._hang_up()
        self._furnish()
        self._scene.add([moving_body("eye", [CAMERA])])
        self._scene.add(sunlight(*light) for light in LIGHTS)

    def compile(self) -> mujoco.MjModel:
        """The room as a model with a moving body and a camera, both called `eye`."""
        return self._scene.compile(headlight=0.18, ambient=0.42)

    def is_free(self, point: np.ndarray) -> bool:
        """Whether a camera may be at (x, y)."""
        inside = (np.abs(point) < self.half - WALL_MARGIN_M).all()
        return bool(inside) and all(box.distance(point) > MARGIN_M for box in self._boxes)

    def contains(self, point: np.ndarray) -> bool:
        """Whether (x, y) is between the walls."""
        return bool((np.abs(point) < self.half).all())

    def free_point(self) -> np.ndarray:
        """A random (x, y) where a camera may be."""
        while True:
            point = self._rng.uniform(-self.half, self.half)
            if self.is_free(point):
                return point

    def _build_shell(self) -> None:
        rng, scene = self._rng, self._scene
        floor = scene.surface(
            "floor", furniture.floor(rng), tuple(np.maximum(1, np.round(self.half)).tolist())
        )
        plaster = paint.shade((0.93, 0.92, 0.9), rng.uniform(0.88, 1.0))
        ceiling = scene.surface("ceiling", paint.tiles(rng, 256, plaster, paint.shade(plaster, 0.95), 8))
        up = HEIGHT_M / 2
        scene.add([shape("plane", (0, 0, 0), (*self.half, 1), floor)])
        scene.add([shape("plane", (0, 0, HEIGHT_M), (*self.half, 1), ceiling, (0, 0, np.pi))])
        lamp = (*rng.uniform(-0.3, 0.3, 2), HEIGHT_M - 0.05)
        scene.add([shape("cylinder", lamp, (rng.uniform(0.2, 0.35), 0.05), (1.0, 0.97, 0.85))])
        base = paint.colour(rng, (0.05, 0.35), (0.65, 0.95))
        panel_m = 0.12 if rng.random() < 0.5 else rng.uniform(0.7, 1.0)
        skirting = paint.shade((0.95, 0.94, 0.9), rng.uniform(0.4, 1.0))
        for wall in range(4):
            # One wall in another colour makes it known which way one looks.
            look = base if wall else paint.colour(rng, (0.15, 0.5), (0.5, 0.9))
            material = scene.surface(f"wall{wall}", furniture.wallpaper(rng, look), (4, 1))
            scene.add([self._on_wall(wall, 0.0, up, (self._span(wall), up), material, 0.0)])
            scene.add(
                [self._on_wall(wall, 0.0, panel_m / 2, (self._span(wall), panel_m / 2), skirting, 0.01)]
            )

    def _hang_up(self) -> None:
        """A door, windows and pictures, no two in the same place."""
        rng = self._rng
        door = paint.door(rng, 128, paint.colour(rng, (0.1, 0.6), (0.35, 0.9)))
        self._hang("door", door, (0.48, 1.02), 1.02, int(rng.integers(4)))
        for index in range(int(rng.integers(1, 4))):
            size = (rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.65))
            self._hang(f"window{index}", paint.window(rng, 128), size, 1.55, int(rng.integers(4)))
        for index in range(int(rng.integers(4, 9))):
            side = rng.uniform(0.25, 0.5)
            size = (side, side * rng.uniform(0.7, 1.2))
            self._hang(
                f"picture{index}",
                paint.painting(rng, 96),
                size,
                rng.uniform(1.45, 1.75),
                int(rng.integers(4)),
            )

    def _hang(
        self, name: str, picture: np.ndarray, half: tuple[float, float], height: float, wall: int
    ) -> None:
        for _ in range(12):
            along = self._rng.uniform(-1, 1) * (self._span(wall) - half[0] - 0.1)
            if all(
                wall != other or abs(along - place) > half[0] + width + 0.15
                for other, place, width in self._hung
            ):
                self._hung.append((wall, along, half[0]))
                self._scene.add(
                    [self._on_wall(wall, along, height, half, self._scene.surface(name, picture), 0.02)]
                )
                return

    def _furnish(self) -> None:
        rng = self._rng
        pieces: list[Callable[[np.random.Generator, Scene, str], Piece]] = list(furniture.AGAINST_WALL)
        for index, make in enumerate(rng.permutation(np.array(pieces, object))[: int(rng.integers(3, 6))]):
            self._put_against_wall(make(rng, self._scene, f"piece{index}"))
        self._put_inside(furniture.table_with_chairs(rng, self._scene, "table"))
        for index in range(int(rng.integers(1, 4))):
            self._put_inside(furniture.plant(rng, self._scene, f"plant{index}"))
        rug = self._scene.surface("rug", furniture.rug(rng))
        place = rng.uniform(-0.4, 0.4, 2) * self.half
        self._scene.add(
            [
                shape(
                    "plane",
                    (*place, 0.012),
                    (*rng.uniform(0.7, 1.3, 2), 1),
                    rug,
                    (rng.choice([0, _QUARTER]), 0, 0),
                )
            ]
        )

    def _put_against_wall(self, piece: Piece) -> None:
        for _ in range(10):
            wall = int(self._rng.integers(4))
            along = self._rng.uniform(-1, 1) * (self._span(wall) - piece.half[0])
            frame, inward = self._wall_frame(wall)
            centre = frame * along - inward * (self._depth(wall) - piece.half[1] - 0.03)
            half = np.abs(frame) * piece.half[0] + np.abs(inward) * piece.half[1]
            if self._place(piece, Box(centre, half), wall * _QUARTER):
                return

    def _put_inside(self, piece: Piece) -> None:
        for _ in range(10):
            turned = bool(self._rng.integers(2))
            half = np.array(piece.half)[::-1] if turned else np.array(piece.half)
            centre = self._rng.uniform(-1, 1, 2) * (self.half - half - 0.3)
            if self._place(piece, Box(centre, half), turned * _QUARTER):
                return

    def _place(self, piece: Piece, box: Box, yaw: float) -> bool:
        """Put a piece down unless that leaves no way around it."""
        gap = 2 * MARGIN_M + 0.1
        for other in self._boxes:
            if (np.abs(box.centre - other.centre) < box.half + other.half + np.array([gap, gap])).all():
                return False
        self._boxes.append(box)
        self._scene.add([body(piece.shapes, (*box.centre, 0.0), yaw)])
        return True

    def _on_wall(
        self, wall: int, along: float, height: float, half: tuple[float, float], look: Look, off_m: float
    ) -> str:
        frame, inward = self._wall_frame(wall)
        centre = frame * along - inward * (self._depth(wall) - off_m)
        # A plane faces +z, the top of its picture is at +y: rolled up, it faces the room.
        return shape("plane", (*centre, height), (*half, 1), look, (wall * _QUARTER, 0, _QUARTER))

    def _wall_frame(self, wall: int) -> tuple[np.ndarray, np.ndarray]:
        """Directions along a wall (to the right, seen from inside) and from it into the room."""
        angle = wall * _QUARTER
        return np.round([np.cos(angle), np.sin(angle)]), np.round([np.sin(angle), -np.cos(angle)])

    def _span(self, wall: int) -> float:
        return float(self.half[wall % 2])

    def _depth(self, wall: int) -> float:
        return float(self.half[1 - wall % 2])


def open_room(rng: np.random.Generator) -> Room:
    """A room with place to move in: a quarter of its floor at least."""
    while True:
        room = Room(rng)
        if np.mean([room.is_free(rng.uniform(-room.half, room.half)) for _ in range(200)]) > 0.25:
            return room
