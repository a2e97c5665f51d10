"""Which moments are judged, and what belongs to each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from astra_ros.evaluation.scenes import at_model_rate
from tests.unit.evaluation import toy_world


def test_scenes_hold_what_was_remembered_planned_and_seen() -> None:
    held_out = toy_world.data(episodes=3, num_frames=120)
    scenes = held_out.scenes(horizon=5, count=12)
    assert len(scenes) == 12
    assert set(scenes.episodes) == {"slider_0", "slider_1", "slider_2"}
    np.testing.assert_array_equal(toy_world.render(scenes.plan[..., 0]), scenes.happened)
    np.testing.assert_array_equal(toy_world.render(scenes.last_action[..., 0]), scenes.observed)
    np.testing.assert_allclose(scenes.latents[..., 0, 0, 0], scenes.plan[..., 0], atol=0.1)
    assert scenes.part(slice(2, 4)).episodes == scenes.episodes[2:4]
    np.testing.assert_array_equal(scenes.part(slice(2, 4)).history.mask, scenes.history.mask[2:4])


@pytest.mark.parametrize("remembered", [1, 2, 4, 8, 16, 20])
def test_a_shorter_memory_changes_neither_moment_nor_plan(remembered: int) -> None:
    held_out = toy_world.data(episodes=2)
    full = held_out.scenes(5, 8, memory=20)
    short = held_out.scenes(5, 8, memory=20, remembered=remembered)
    np.testing.assert_array_equal(short.happened, full.happened)
    np.testing.assert_array_equal(short.plan, full.plan)
    frames = np.unique(short.history.actions[0, short.history.mask[0] > 0])
    assert len(frames) <= remembered
    np.testing.assert_array_equal(short.history.latents[:, -1], full.history.latents[:, -1])


def test_short_recordings_are_used_from_as_late_as_they_allow() -> None:
    held_out = toy_world.data(episodes=1, num_frames=16)  # eight model steps
    assert len(held_out.scenes(horizon=5, count=9)) == 1
    assert held_out.scenes(5, 9).history.mask[0].sum() == 4  # anchor, and frames 0 to 2
    with pytest.raises(ValueError, match=r"slider: expected a held-out episode of 1\.8 s, found none"):
        held_out.scenes(horizon=8, count=1)


def test_the_longest_horizon_is_what_half_of_the_recordings_reach() -> None:
    long, short = toy_world.data(1, 200), toy_world.data(2, 60)
    mixed = replace(long, episodes=long.episodes + short.episodes, latents=long.latents + short.latents)
    assert mixed.longest_horizon() == 30 - 1 - 5
    assert mixed.longest_horizon(share=0.3) == 100 - 1 - 5


@pytest.mark.parametrize(
    ("lengths", "steps"),
    [
        ([100], 94),
        ([100, 30], 94),
        ([100, 100, 30], 94),
        ([100, 30, 30], 24),
        ([100, 100, 30, 30, 30], 24),
        ([100, 100, 100, 30, 30], 94),
    ],
)
def test_half_of_the_recordings_are_never_fewer_than_half(lengths: list[int], steps: int) -> None:
    """In steps of two camera frames; a second of memory comes first."""
    parts = [toy_world.data(1, 2 * length) for length in lengths]
    episodes, latents = (sum((getattr(part, name) for part in parts), ()) for name in ("episodes", "latents"))
    assert replace(parts[0], episodes=episodes, latents=latents).longest_horizon() == steps


def test_rates_are_averaged_over_a_step_and_positions_are_not() -> None:
    recorded = toy_world.episode(0, num_frames=10)
    rows = np.arange(10, dtype=np.float32)[:, None]
    recorded = replace(recorded, measured=rows, commanded=rows)
    np.testing.assert_array_equal(at_model_rate(recorded, toy_world.SPEC).commanded[:, 0], [0, 2, 4, 6, 8])
    rate = replace(toy_world.SPEC, representation="rate", modality="drive")
    np.testing.assert_array_equal(at_model_rate(recorded, rate).commanded[:, 0], [0, 1.5, 3.5, 5.5, 7.5])
