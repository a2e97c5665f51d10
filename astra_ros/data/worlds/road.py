"""A closed road in the plane: its centre line, and where a point lies relative to it."""

from __future__ import annotations

import numpy as np

SPACING_M = 0.5
LANE_M = 2.2  # from the centre line to the middle of a lane; cars keep to the right
HALF_WIDTH_M = 5.4  # lanes and shoulders


class Road:
    """Right-hand traffic runs along increasing stations in the right lane, and against them in the left one.

    points, normals: (n, 2) metres, SPACING_M apart; a normal points to the left of increasing stations.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        angles = np.linspace(0, 2 * np.pi, 4096, endpoint=False)
        radius = 62 + sum(
            rng.normal(0, 13 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in range(2, 7)
        )
        radius = np.clip(radius, 35, 92)
        loop = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
        self.points = _evenly_spaced(loop if rng.random() < 0.5 else loop[::-1])
        ahead = np.roll(self.points, -1, axis=0) - np.roll(self.points, 1, axis=0)
        tangents = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
        self.normals = np.stack([-tangents[:, 1], tangents[:, 0]], axis=1)
        self.headings = np.arctan2(tangents[:, 1], tangents[:, 0])

    @property
    def num_stations(self) -> int:
        return len(self.points)

    def at(self, station: float, offset_m: float) -> np.ndarray:
        """(x, y, heading) at a station (an index, not an integer necessarily), `offset_m` to the left of the centre."""
        index, part = int(station) % self.num_stations, station % 1
        after = (index + 1) % self.num_stations
        point = (1 - part) * self.points[index] + part * self.points[after]
        turn = wrap_angle(self.headings[after] - self.headings[index])
        return np.array([*(point + offset_m * self.normals[index]), self.headings[index] + part * turn])

    def locate(self, point: np.ndarray) -> tuple[int, float]:
        """Nearest station of a point (x, y), and how far to the left of the centre line it is, metres."""
        offsets = point[:2] - self.points
        station = int(np.argmin((offsets**2).sum(axis=1)))
        return station, float(offsets[station] @ self.normals[station])


def wrap_angle(angle: float) -> float:
    """The same angle in [-pi, pi)."""
    return float((angle + np.pi) % (2 * np.pi) - np.pi)


def _evenly_spaced(points: np.ndarray) -> np.ndarray:
    closed = np.concatenate([points, points[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    stations = np.linspace(0, lengths[-1], round(lengths[-1] / SPACING_M), endpoint=False)
    return np.stack([np.interp(stations, lengths, closed[:, axis]) for axis in (0, 1)], axis=1)
