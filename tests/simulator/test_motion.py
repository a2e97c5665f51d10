"""How actions are drawn, and the road they are drawn for. No simulator needed."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.data.worlds.base import FRAME_S, Style
from astra_ros.data.worlds.motion import MOTIONS, HeldActions
from astra_ros.data.worlds.road import SPACING_M, Road, wrap_angle


def _actions(style: Style, limit: float, *, inert: bool = True) -> np.ndarray:
    """(400, 1) actions whose sum, a position, may not leave ±limit."""
    rng = np.random.default_rng(1)
    actions: list[np.ndarray] = []

    def is_safe(plan: np.ndarray) -> bool:
        positions = FRAME_S * (np.sum(actions) + np.cumsum(plan))
        return bool((np.abs(positions) < limit).all())

    held = HeldActions(rng, MOTIONS[style], lambda: rng.uniform(-1, 1, 1), is_safe, np.array([inert]))
    while len(actions) < 400:
        actions.append(held.next())
    return np.array(actions)


@pytest.mark.parametrize("style", ["abrupt", "smooth"])
def test_what_is_unsafe_is_never_reached(style: Style) -> None:
    positions = np.cumsum(_actions(style, limit=1.0)) * FRAME_S
    assert np.abs(positions).max() <= 1.0
    assert np.ptp(positions) > 1.0, "and yet it moves about"


def test_abrupt_actions_are_held_and_smooth_ones_drift() -> None:
    abrupt, smooth = (np.diff(_actions(style, limit=10.0)[:, 0]) for style in ("abrupt", "smooth"))
    jumps = np.flatnonzero(abrupt)
    assert 3 <= np.diff(jumps).min() <= np.diff(jumps).max() <= 15
    assert np.abs(abrupt).max() > 1.0
    assert np.abs(smooth).max() < 0.25
    assert (smooth != 0).mean() > 0.95


def test_what_has_no_inertia_jumps_in_the_smooth_style_too() -> None:
    changes = np.diff(_actions("smooth", limit=10.0, inert=False)[:, 0])
    assert np.diff(np.flatnonzero(changes)).min() >= 12, "1.2 s at least"


def test_rest_is_the_way_out_when_nothing_is_safe() -> None:
    held = HeldActions(
        np.random.default_rng(0), MOTIONS["abrupt"], lambda: np.ones(2), lambda plan: False, np.ones(2, bool)
    )
    assert not np.any([held.next() for _ in range(20)])


@pytest.mark.parametrize("seed", range(4))
def test_a_road_is_closed_and_even_and_found_again(seed: int) -> None:
    road = Road(np.random.default_rng(seed))
    gaps = np.linalg.norm(np.roll(road.points, -1, axis=0) - road.points, axis=1)
    assert np.allclose(gaps, SPACING_M, atol=0.1)
    for station, offset in ((10, -2.0), (road.num_stations - 1, 3.0)):
        x, y, heading = road.at(station, offset)
        found, left = road.locate(np.array([x, y]))
        assert min((found - station) % road.num_stations, (station - found) % road.num_stations) <= 2
        assert left == pytest.approx(offset, abs=0.1)
        assert abs(wrap_angle(heading - road.headings[station])) < 1e-9
