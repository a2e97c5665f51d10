"""Procedural pictures for surfaces: (h, w, 3) uint8, from a random generator and colours in 0..1."""

from __future__ import annotations

import colorsys
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from astra_ros.types import ByteArray

Colour = tuple[float, float, float]


def colour(rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
    """A random hue within limits of saturation and value."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def shade(base: Colour, factor: float) -> Colour:
    """A lighter (> 1) or darker (< 1) colour."""
    red, green, blue = (min(1.0, channel * factor) for channel in base)
    return red, green, blue


def mottle(rng: np.random.Generator, size: int, base: Colour, contrast: float, octaves: int = 5) -> ByteArray:
    """A square of a colour with soft patches and fine grain that repeats without seams."""
    field = np.zeros((size, size))
    for octave in range(1, octaves + 1):
        field += _enlarge(rng.normal(size=(2**octave, 2**octave)), size) / octave
    field = contrast * (field / field.std() + 0.35 * rng.normal(size=(size, size)))
    return to_bytes(np.asarray(base) * (1 + field[..., None]))


def planks(rng: np.random.Generator, size: int, base: Colour, rows: int = 6) -> ByteArray:
    """Floor boards along x, each of its own shade, with dark seams."""
    picture = np.empty((size, size, 3))
    edges = [size * row // rows for row in range(rows + 1)]
    for top, bottom in pairwise(edges):
        joint = int(rng.integers(size))
        before, after = rng.normal(1.0, 0.09, 2)
        tone: np.ndarray = np.where(np.arange(size) < joint, before, after)
        grain = 1 + 0.04 * np.cumsum(rng.normal(size=(bottom - top, 1)), axis=0) / 3
        picture[top:bottom] = np.asarray(base) * (tone[None, :] * grain)[..., None]
        picture[top : top + 2] *= 0.6
        picture[top:bottom, joint : joint + 2] *= 0.65
    return to_bytes(picture)


def tiles(rng: np.random.Generator, size: int, base: Colour, other: Colour, count: int = 4) -> ByteArray:
    """Square tiles in two colours with grout between them."""
    cell = size // count
    rows, columns = np.indices((size, size)) // cell
    odd = ((rows + columns) % 2)[..., None]
    tone = rng.normal(1.0, 0.05, (count + 1, count + 1))[rows, columns]
    picture = np.where(odd, np.asarray(base), np.asarray(other)) * tone[..., None]
    grout = (np.indices((size, size)) % cell < 2).any(axis=0)
    picture[grout] = np.asarray(base) * 0.7
    return to_bytes(picture)


def stripes(size: int, base: Colour, other: Colour, count: int = 8) -> ByteArray:
    """Upright stripes, as on wallpaper."""
    odd = (np.arange(size) * 2 * count // size % 2)[None, :, None]
    return to_bytes(np.broadcast_to(np.where(odd, np.asarray(base), np.asarray(other)), (size, size, 3)))


def facade(rng: np.random.Generator, size: int, base: Colour, floors: int, windows: int) -> ByteArray:
    """The side of a building: rows of windows, some of them lit."""
    wall = mottle(rng, size, base, 0.03)
    picture = Image.fromarray(wall)
    draw = ImageDraw.Draw(picture)
    across, up = size / windows, size / floors
    for floor in range(floors):
        for column in range(windows):
            left, top = (column + 0.25) * across, (floor + 0.22) * up
            pane = (
                (0.95, 0.85, 0.5) if rng.random() < 0.12 else shade((0.25, 0.33, 0.42), rng.uniform(0.7, 1.3))
            )
            box = [left, top, left + 0.5 * across, top + 0.56 * up]
            draw.rectangle(box, fill=_rgb(pane), outline=_rgb(shade(base, 1.3)), width=max(1, size // 64))
    return np.asarray(picture)


def painting(rng: np.random.Generator, size: int) -> ByteArray:
    """Something to hang on a wall: a landscape or an abstract of a few shapes, in a frame."""
    picture = Image.new("RGB", (size, size), _rgb(colour(rng, (0.2, 0.7), (0.6, 1.0))))
    draw = ImageDraw.Draw(picture)
    if rng.random() < 0.5:
        for layer in range(3):
            height = size * (0.4 + 0.2 * layer)
            ridge = [(x, height + rng.normal(0, size * 0.06)) for x in np.linspace(0, size, 6)]
            draw.polygon([(0, size), *ridge, (size, size)], fill=_rgb(colour(rng, (0.3, 0.8), (0.25, 0.8))))
        _disc(
            draw, rng.uniform(0.2, 0.8) * size, 0.2 * size, 0.09 * size, colour(rng, (0.1, 0.5), (0.9, 1.0))
        )
    else:
        for _ in range(5):
            x, y, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(0.1, 0.3) * size
            paint = colour(rng, (0.4, 0.95), (0.3, 1.0))
            if rng.random() < 0.5:
                _disc(draw, x, y, radius, paint)
            else:
                draw.rectangle([x - radius, y - radius, x + radius, y + radius], fill=_rgb(paint))
    draw.rectangle(
        [0, 0, size - 1, size - 1],
        outline=_rgb(shade((0.5, 0.36, 0.2), rng.uniform(0.3, 1.6))),
        width=size // 16,
    )
    return np.asarray(picture)


def window(rng: np.random.Generator, size: int) -> ByteArray:
    """A window with the sky and some green behind its bars."""
    rows = np.linspace(0, 1, size)[:, None, None]
    sky = np.asarray((0.62, 0.8, 1.0)) * (1 - rows) + np.asarray((0.95, 0.97, 1.0)) * rows
    picture = Image.fromarray(to_bytes(np.broadcast_to(sky, (size, size, 3))))
    draw = ImageDraw.Draw(picture)
    for x in np.linspace(-0.1, 1.1, 7) * size:
        _disc(
            draw,
            x,
            size * rng.uniform(0.85, 1.05),
            size * 0.2,
            shade((0.3, 0.55, 0.25), rng.uniform(0.7, 1.3)),
        )
    bar = size // 20
    for at in (0, size // 2 - bar // 2, size - bar):
        draw.rectangle([at, 0, at + bar, size], fill=(245, 245, 240))
        draw.rectangle([0, at, size, at + bar], fill=(245, 245, 240))
    return np.asarray(picture)


def door(rng: np.random.Generator, size: int, base: Colour) -> ByteArray:
    """A door with two panels and a knob."""
    picture = Image.fromarray(mottle(rng, size, base, 0.03))
    draw = ImageDraw.Draw(picture)
    for top, bottom in ((0.08, 0.45), (0.53, 0.93)):
        box = [0.15 * size, top * size, 0.85 * size, bottom * size]
        draw.rectangle(box, fill=_rgb(shade(base, 0.85)), outline=_rgb(shade(base, 0.55)), width=size // 40)
    _disc(draw, 0.92 * size, 0.5 * size, 0.035 * size, (0.9, 0.8, 0.4))
    draw.rectangle([0, 0, size - 1, size - 1], outline=_rgb(shade(base, 0.5)), width=size // 32)
    return np.asarray(picture)


def books(rng: np.random.Generator, size: int, shelves: int = 4) -> ByteArray:
    """The front of a bookcase."""
    wood = shade((0.45, 0.3, 0.18), rng.uniform(0.7, 1.6))
    picture = Image.new("RGB", (size, size), _rgb(shade(wood, 0.45)))
    draw = ImageDraw.Draw(picture)
    height = size / shelves
    for shelf in range(shelves):
        floor, x = (shelf + 1) * height - size * 0.03, size * 0.05
        while x < size * 0.92:
            width, tall = size * rng.uniform(0.03, 0.09), height * rng.uniform(0.55, 0.85)
            if rng.random() < 0.88:
                draw.rectangle(
                    [x, floor - tall, x + width, floor], fill=_rgb(colour(rng, (0.3, 0.8), (0.3, 0.9)))
                )
            x += width + 1
        draw.rectangle([0, floor, size, floor + size * 0.03], fill=_rgb(wood))
    draw.rectangle([0, 0, size - 1, size - 1], outline=_rgb(wood), width=size // 24)
    return np.asarray(picture)


def to_bytes(picture: np.ndarray) -> ByteArray:
    """Colours 0..1 to 0..255, saturated."""
    return np.asarray(np.clip(picture * 255, 0, 255), np.uint8)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, paint: Colour) -> None:
    draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_rgb(paint))


def _rgb(paint: Colour) -> tuple[int, int, int]:
    red, green, blue = (round(255 * min(1.0, max(0.0, channel))) for channel in paint)
    return red, green, blue


def _enlarge(coarse: np.ndarray, size: int) -> np.ndarray:
    """A small square of numbers, smoothly enlarged so that its opposite edges meet."""
    around = np.pad(coarse, 2, mode="wrap").astype(np.float32)
    box = (2.0, 2.0, 2.0 + len(coarse), 2.0 + len(coarse))
    return np.asarray(Image.fromarray(around).resize((size, size), Image.Resampling.BICUBIC, box=box))
