"""Kinds of country, as colours and shares."""

from __future__ import annotations

from dataclasses import dataclass

from astra_ros.data.worlds.paint import Colour


@dataclass(frozen=True)
class Landscape:
    """Colours 0..1; conifers and buildings are shares of what stands beside the road."""

    ground: Colour
    leaves: Colour
    hills: Colour
    horizon: Colour
    zenith: Colour
    sun: Colour
    conifers: float
    buildings: float


MEADOW = Landscape(
    ground=(0.36, 0.5, 0.22), leaves=(0.2, 0.42, 0.14), hills=(0.36, 0.47, 0.42), horizon=(0.84, 0.91, 0.97),
    zenith=(0.32, 0.56, 0.9), sun=(0.62, 0.6, 0.54), conifers=0.3, buildings=0.15,
)  # fmt: skip
AUTUMN = Landscape(
    ground=(0.5, 0.44, 0.24), leaves=(0.75, 0.4, 0.12), hills=(0.5, 0.42, 0.4), horizon=(0.97, 0.86, 0.7),
    zenith=(0.45, 0.6, 0.85), sun=(0.68, 0.54, 0.38), conifers=0.15, buildings=0.15,
)  # fmt: skip
DESERT = Landscape(
    ground=(0.72, 0.58, 0.4), leaves=(0.42, 0.46, 0.22), hills=(0.7, 0.5, 0.4), horizon=(0.98, 0.92, 0.82),
    zenith=(0.4, 0.62, 0.92), sun=(0.7, 0.62, 0.5), conifers=0.1, buildings=0.12,
)  # fmt: skip
WINTER = Landscape(
    ground=(0.8, 0.83, 0.88), leaves=(0.16, 0.28, 0.22), hills=(0.66, 0.72, 0.8), horizon=(0.88, 0.91, 0.95),
    zenith=(0.56, 0.68, 0.84), sun=(0.36, 0.36, 0.4), conifers=0.85, buildings=0.2,
)  # fmt: skip
SUBURB = Landscape(
    ground=(0.42, 0.5, 0.32), leaves=(0.25, 0.4, 0.18), hills=(0.52, 0.55, 0.6), horizon=(0.88, 0.89, 0.92),
    zenith=(0.55, 0.65, 0.8), sun=(0.5, 0.5, 0.5), conifers=0.2, buildings=0.6,
)  # fmt: skip
EVENING = Landscape(
    ground=(0.3, 0.4, 0.2), leaves=(0.16, 0.3, 0.13), hills=(0.34, 0.26, 0.38), horizon=(0.99, 0.66, 0.4),
    zenith=(0.32, 0.36, 0.62), sun=(0.66, 0.44, 0.3), conifers=0.4, buildings=0.25,
)  # fmt: skip

LANDSCAPES = (MEADOW, AUTUMN, DESERT, WINTER, SUBURB, EVENING)
