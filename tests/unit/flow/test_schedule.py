"""Noise levels against their closed forms."""

from itertools import pairwise

import pytest
import torch

from astra_ros.flow.objective import SigmaSamplerConfig, add_noise, flow_loss, sample_sigmas
from astra_ros.flow.schedule import euler_weights, shifted_sigmas


@pytest.mark.parametrize("num_steps", [1, 2, 4, 50])
def test_levels_fall_from_pure_noise_to_clean(num_steps: int) -> None:
    sigmas = shifted_sigmas(num_steps, 3.0)
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert list(sigmas) == sorted(sigmas, reverse=True)


def test_shift_matches_the_formula() -> None:
    assert shifted_sigmas(2, 3.0)[1] == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))
    assert shifted_sigmas(4, 1.0) == pytest.approx((1.0, 0.75, 0.5, 0.25, 0.0))


def test_no_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="num_steps: expected at least 1, found 0"):
        shifted_sigmas(0, 3.0)


def test_euler_weights_are_the_velocity_step() -> None:
    noisy, clean, sigma, sigma_next = 0.7, -0.2, 0.8, 0.3
    velocity = (noisy - clean) / sigma
    keep, move = euler_weights(sigma, sigma_next)
    assert keep * noisy + move * clean == pytest.approx(noisy + (sigma_next - sigma) * velocity)


def test_euler_with_the_truth_recovers_it_from_any_noise() -> None:
    clean, sample = torch.randn(3, 4), torch.randn(3, 4)
    sigmas = shifted_sigmas(3, 3.0)
    for sigma, sigma_next in pairwise(sigmas):
        keep, move = euler_weights(sigma, sigma_next)
        sample = keep * sample + move * clean
    assert torch.allclose(sample, clean)


def test_noise_ends_are_exact() -> None:
    latents, noise = torch.randn(2, 3), torch.randn(2, 3)
    mixed = add_noise(latents, noise, torch.tensor([0.0, 1.0]))
    assert torch.equal(mixed[0], latents[0])
    assert torch.equal(mixed[1], noise[1])


def test_loss_is_the_velocity_error() -> None:
    latents, noise, sigma = torch.randn(2, 5), torch.randn(2, 5), torch.tensor([0.5, 1.0])
    predicted = latents + 0.1
    noisy = add_noise(latents, noise, sigma)
    velocity = (noisy - predicted) / sigma[:, None]
    assert flow_loss(predicted, latents, sigma).item() == pytest.approx(
        (velocity - (noise - latents)).square().mean().item(), rel=1e-4
    )


def test_served_levels_get_their_share() -> None:
    config = SigmaSamplerConfig(served=(1.0, 0.75), served_share=0.5)
    sigmas = sample_sigmas(4000, config, torch.Generator().manual_seed(0))
    share = ((sigmas == 1.0) | (sigmas == 0.75)).float().mean().item()
    assert share == pytest.approx(0.5, abs=0.03)
    assert 0.0 < sigmas.min() <= sigmas.max() <= 1.0
