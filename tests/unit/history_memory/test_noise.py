"""Presets of the noise-augmented memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from astra_ros.history.layout import NUM_SLOTS
from astra_ros.history.noise import HISTORY_NOISE, HistoryNoiseConfig, corrupt, sample_history_sigmas

DRAWS = 20_000


def drawn(preset: str) -> torch.Tensor:
    return sample_history_sigmas(DRAWS, HISTORY_NOISE[preset], torch.Generator().manual_seed(0))


def share(condition: torch.Tensor) -> float:
    return condition.float().mean().item()


def corrupted(preset: str, sigma: float) -> torch.Tensor:
    """Which slots of a history of ones change, and by how much: noise of zero scales them."""
    latents = torch.ones(1, NUM_SLOTS, 1, 1, 1)
    config = HISTORY_NOISE[preset]
    return corrupt(latents, torch.tensor([sigma]), config, torch.zeros_like(latents)).flatten()


def test_clean_is_clean() -> None:
    assert not drawn("clean").any()


def test_the_release_destroys_the_full_resolution_frames_of_four_histories_in_five() -> None:
    """Its code draws the first three quarters of a 1000-point grid, shifted by 5; the level is not told (paper: A.6)."""
    sigma = drawn("astra_release")
    noised = sigma[sigma > 0]
    assert share(sigma > 0) == pytest.approx(0.8, abs=0.01)
    assert noised.min() >= 0.6249
    assert noised.max() <= 1.0
    assert noised.mean().item() == pytest.approx(0.868, abs=0.005)
    assert noised.median().item() == pytest.approx(0.893, abs=0.01)
    assert not HISTORY_NOISE["astra_release"].told
    slots = corrupted("astra_release", 0.75)
    assert slots[[0, NUM_SLOTS - 1]].tolist() == [0.25, 0.25]
    assert (slots[1 : NUM_SLOTS - 1] == 1.0).all()


def test_the_mix_is_clean_light_and_heavy_and_told() -> None:
    config, sigma = HISTORY_NOISE["mixed"], drawn("mixed")
    light, heavy = (sigma > 0) & (sigma <= 0.3), sigma >= 0.6
    assert share(light) == pytest.approx(config.light, abs=0.01)
    assert share(heavy) == pytest.approx(config.heavy, abs=0.01)
    assert share(sigma == 0) == pytest.approx(1 - config.light - config.heavy, abs=0.01)
    assert sigma.max() <= 1.0
    assert config.told
    assert (corrupted("mixed", 0.75) == 0.25).all()


def test_corruption_is_the_flow_between_history_and_noise() -> None:
    latents, noise = torch.randn(2, NUM_SLOTS, 1, 2, 2), torch.randn(2, NUM_SLOTS, 1, 2, 2)
    found = corrupt(latents, torch.tensor([0.0, 1.0]), HISTORY_NOISE["mixed"], noise)
    assert torch.equal(found[0], latents[0])
    assert torch.equal(found[1], noise[1])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"heavy": 0.8},
            "light, heavy: expected shares that come to 1 at most, found 0.4 and 0.8; lower one",
        ),
        ({"light": -0.1}, "light: expected a share, 0 to 1, found -0.1"),
        ({"light": 0.0, "heavy": 1.5}, "heavy: expected a share, 0 to 1, found 1.5"),
        (
            {"light_range": (0.3, 0.0)},
            "light_range: expected noise levels, 0 <= low <= high <= 1, found 0.3, 0.0",
        ),
        ({"heavy_range": (0.6, 1.2)}, "heavy_range: expected noise levels, .*, found 0.6, 1.2"),
        ({"heavy_shift": 0.0}, "heavy_shift: expected more than 0, found 0.0"),
    ],
)
def test_shares_and_levels_that_cannot_be_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        HistoryNoiseConfig(**changes)


def test_all_histories_may_be_noised() -> None:
    config = HistoryNoiseConfig(light=0.7, heavy=0.3)
    assert sample_history_sigmas(DRAWS, config, torch.Generator().manual_seed(0)).all()


def test_a_seed_gives_the_same_levels() -> None:
    assert torch.equal(drawn("mixed"), drawn("mixed"))
