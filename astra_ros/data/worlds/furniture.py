"""Furniture of boxes and cylinders, and what covers floors and walls.

A piece stands at the origin, its back towards +y; its shadow is painted on the floor below it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from astra_ros.data.worlds import paint
from astra_ros.data.worlds.paint import Colour
from astra_ros.data.worlds.scene import Scene, shape
from astra_ros.types import ByteArray

WOODS: tuple[Colour, ...] = (
    (0.45, 0.3, 0.18),
    (0.62, 0.45, 0.28),
    (0.78, 0.64, 0.46),
    (0.3, 0.2, 0.14),
    (0.86, 0.84, 0.8),
)
_SHADOW = (0.0, 0.0, 0.0, 0.3)
_METAL = (0.35, 0.36, 0.38)


@dataclass(frozen=True)
class Piece:
    """half: (width, depth) / 2 in metres; shapes: its MJCF elements."""

    half: tuple[float, float]
    shapes: list[str]


Maker = Callable[[np.random.Generator, Scene, str], Piece]


def floor(rng: np.random.Generator) -> ByteArray:
    """Boards, tiles or carpet."""
    kind = int(rng.integers(3))
    if kind == 0:
        return paint.planks(rng, 256, wood(rng))
    if kind == 1:
        base = paint.colour(rng, (0.02, 0.3), (0.65, 0.95))
        return paint.tiles(rng, 256, base, paint.shade(base, rng.uniform(0.55, 0.95)))
    return paint.mottle(rng, 256, paint.colour(rng, (0.1, 0.5), (0.35, 0.75)), 0.07)


def wallpaper(rng: np.random.Generator, base: Colour) -> ByteArray:
    """Plaster, or stripes in two shades."""
    if rng.random() < 0.35:
        return paint.stripes(128, base, paint.shade(base, rng.uniform(0.82, 0.93)), int(rng.integers(3, 7)))
    return paint.mottle(rng, 128, base, 0.035)


def rug(rng: np.random.Generator) -> ByteArray:
    """A few nested borders around a patterned middle."""
    picture = paint.mottle(rng, 128, paint.colour(rng, (0.3, 0.8), (0.35, 0.8)), 0.05)
    for inset in sorted(rng.choice(np.arange(4, 52, 6), 3, replace=False)):
        picture[inset : 128 - inset, inset : 128 - inset] = paint.to_bytes(
            np.array(paint.colour(rng, (0.2, 0.8), (0.4, 0.95)))
        )
    return picture


def wood(rng: np.random.Generator) -> Colour:
    """The colour of some wood."""
    return paint.shade(WOODS[int(rng.integers(len(WOODS)))], rng.uniform(0.85, 1.15))


def sofa(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """Two or three seats, arm rests, cushions of another colour."""
    del scene, name
    seats = int(rng.integers(2, 4))
    width, cloth = 0.36 * seats + 0.15, paint.colour(rng, (0.15, 0.75), (0.3, 0.85))
    shapes = [
        shape("box", (0, 0, 0.2), (width, 0.42, 0.2), paint.shade(cloth, 0.8)),
        shape("box", (0, 0.32, 0.55), (width, 0.11, 0.3), cloth),
    ]
    shapes += [shape("box", (side * (width - 0.09), 0, 0.42), (0.09, 0.42, 0.2), cloth) for side in (-1, 1)]
    cushion = paint.colour(rng, (0.3, 0.9), (0.5, 1.0))
    for seat in range(seats):
        x = 0.72 * (seat - (seats - 1) / 2)
        shapes.append(shape("box", (x, -0.06, 0.44), (0.34, 0.34, 0.07), paint.shade(cloth, 1.1)))
    shapes.append(shape("ellipsoid", (0.5 * width, 0.12, 0.65), (0.2, 0.08, 0.19), cushion))
    return _piece((width, 0.43), shapes)


def bookcase(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """Books behind the front."""
    width, height = rng.uniform(0.4, 0.75), rng.uniform(0.6, 1.05)
    front = scene.surface(f"{name}_front", paint.books(rng, 128, int(rng.integers(3, 6))))
    return _piece((width, 0.18), [*_with_front(front, width, 0.18, height, wood(rng))])


def wardrobe(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """A tall cupboard with doors."""
    width, height, timber = rng.uniform(0.45, 0.8), rng.uniform(0.85, 1.1), wood(rng)
    front = scene.surface(f"{name}_front", paint.door(rng, 96, timber), (2, 1))
    return _piece((width, 0.28), [*_with_front(front, width, 0.28, height, paint.shade(timber, 0.85))])


def cabinet(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """A low cupboard with a lamp or a television on it."""
    width, timber = rng.uniform(0.45, 0.8), wood(rng)
    front = scene.surface(f"{name}_front", paint.door(rng, 96, timber), (2, 1))
    shapes = _with_front(front, width, 0.22, 0.36, paint.shade(timber, 0.85))
    if rng.random() < 0.5:
        shapes.append(shape("box", (0, 0.05, 1.04), (min(width, 0.55), 0.03, 0.3), (0.06, 0.06, 0.08)))
        shapes.append(
            shape(
                "box",
                (0, 0.012, 1.04),
                (min(width, 0.55) - 0.03, 0.012, 0.27),
                paint.colour(rng, (0.3, 0.7), (0.2, 0.6)),
            )
        )
    else:
        shapes.append(shape("cylinder", (0, 0, 0.88), (0.03, 0.16), _METAL))
        shapes.append(
            shape("cylinder", (0, 0, 1.12), (0.16, 0.11), paint.colour(rng, (0.1, 0.6), (0.8, 1.0)))
        )
    return _piece((width, 0.23), shapes)


def bed(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """Its head against the wall."""
    blanket = scene.surface(f"{name}_blanket", rug(rng))
    timber, width = wood(rng), rng.uniform(0.5, 0.8)
    return _piece(
        (width, 1.0),
        [
            shape("box", (0, 0, 0.17), (width, 1.0, 0.17), timber),
            shape("box", (0, 0.96, 0.5), (width, 0.04, 0.35), timber),
            shape("box", (0, -0.02, 0.4), (0.96 * width, 0.94, 0.1), (0.92, 0.92, 0.9)),
            shape("plane", (0, -0.28, 0.505), (0.96 * width, 0.68, 1), blanket),
            shape("ellipsoid", (0, 0.68, 0.54), (0.6 * width, 0.2, 0.09), (0.97, 0.97, 0.98)),
        ],
    )


def desk(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """With a screen and a chair."""
    del scene, name
    timber = wood(rng)
    shapes = [shape("box", (0, 0.2, 0.72), (0.65, 0.33, 0.025), timber)]
    shapes += [
        shape("box", (side * 0.6, 0.2, 0.35), (0.03, 0.3, 0.35), paint.shade(timber, 0.8)) for side in (-1, 1)
    ]
    shapes.append(shape("box", (0, 0.36, 1.02), (0.32, 0.02, 0.2), (0.08, 0.08, 0.1)))
    shapes.append(
        shape("box", (0, 0.335, 1.02), (0.3, 0.008, 0.18), paint.colour(rng, (0.3, 0.9), (0.4, 0.9)))
    )
    shapes.append(shape("cylinder", (0, 0.38, 0.79), (0.04, 0.06), _METAL))
    return _piece((0.66, 0.54), [*shapes, *_chair(rng, 0.0, -0.25, facing=1)])


def table_with_chairs(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """A table, something on it, and chairs on two sides."""
    del scene, name
    timber, width = wood(rng), rng.uniform(0.4, 0.7)
    shapes = [shape("box", (0, 0, 0.73), (width, 0.38, 0.025), timber)]
    for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        leg = (i * (width - 0.05), j * 0.32, 0.36)
        shapes.append(shape("cylinder", leg, (0.03, 0.36), paint.shade(timber, 0.8)))
    for _ in range(int(rng.integers(1, 4))):
        x, y = rng.uniform(-0.7, 0.7) * width, rng.uniform(-0.25, 0.25)
        thing, size = paint.colour(rng, (0.5, 1.0), (0.5, 1.0)), rng.uniform(0.06, 0.11)
        kind = str(rng.choice(["sphere", "cylinder", "box"]))
        shapes.append(shape(kind, (x, y, 0.755 + size), (size, size, size), thing))
    shapes += [*_chair(rng, 0.0, -0.55, facing=1), *_chair(rng, 0.0, 0.55, facing=-1)]
    return _piece((width, 0.78), shapes)


def plant(rng: np.random.Generator, scene: Scene, name: str) -> Piece:
    """A pot with leaves."""
    del scene, name
    pot, green = (
        paint.colour(rng, (0.2, 0.7), (0.4, 0.9)),
        paint.shade((0.22, 0.48, 0.2), rng.uniform(0.7, 1.3)),
    )
    shapes = [
        shape("cylinder", (0, 0, 0.17), (0.16, 0.17), pot),
        shape("cylinder", (0, 0, 0.6), (0.02, 0.3), (0.4, 0.3, 0.2)),
    ]
    for _ in range(6):
        x, y, z = rng.normal(0, 0.1, 3)
        leaf = paint.shade(green, rng.uniform(0.8, 1.2))
        shapes.append(
            shape("ellipsoid", (x, y, 0.85 + 2 * z), (0.14, 0.1, 0.2), leaf, (*rng.uniform(0, 3, 2), 0))
        )
    return _piece((0.22, 0.22), shapes)


AGAINST_WALL: tuple[Maker, ...] = (sofa, bookcase, bookcase, wardrobe, cabinet, cabinet, bed, desk)


def _piece(half: tuple[float, float], shapes: list[str]) -> Piece:
    shadow = shape("box", (0, 0, 0.015), (half[0] + 0.06, half[1] + 0.06, 0.006), _SHADOW)
    return Piece(half, [shadow, *shapes])


def _with_front(front: str, width: float, depth: float, height: float, timber: Colour) -> list[str]:
    """A box on the floor with a picture on its front; height is half of it."""
    return [
        shape("box", (0, 0, height), (width, depth, height), timber),
        shape("plane", (0, -depth - 0.005, height), (width, height, 1), front, (0, 0, np.pi / 2)),
    ]


def _chair(rng: np.random.Generator, x: float, y: float, facing: int) -> list[str]:
    """facing: 1 looks towards +y, -1 towards -y."""
    seat = paint.colour(rng, (0.2, 0.8), (0.3, 0.9))
    shapes = [
        shape("box", (x, y, 0.44), (0.2, 0.2, 0.025), seat),
        shape("box", (x, y - facing * 0.19, 0.68), (0.19, 0.02, 0.2), seat),
    ]
    for i, j in ((-1, -1), (-1, 1), (1, -1), (1, 1)):
        shapes.append(shape("cylinder", (x + 0.17 * i, y + 0.17 * j, 0.22), (0.018, 0.22), _METAL))
    return shapes
