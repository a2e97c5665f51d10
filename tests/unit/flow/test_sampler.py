"""From noise to clean latents."""

from __future__ import annotations

import torch

from astra_ros.flow.sampler import guide, sample
from astra_ros.flow.schedule import shifted_sigmas


def test_with_the_truth_any_number_of_steps_arrives() -> None:
    clean, noise = torch.randn(3, 4), torch.randn(3, 4)
    for num_steps in (1, 2, 4, 16):
        found = sample(lambda _noisy, _sigma: clean, noise, shifted_sigmas(num_steps, 3.0))
        assert torch.allclose(found, clean, atol=1e-6)


def test_what_is_predicted_from_lies_on_the_way() -> None:
    """Every step is asked at its level, with noisy = (1 - sigma) * clean + sigma * noise."""
    clean, noise, asked = torch.randn(3, 4), torch.randn(3, 4), []

    def predict(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        asked.append(sigma)
        assert torch.allclose(noisy, (1 - sigma) * clean + sigma * noise, atol=1e-6)
        return clean

    sigmas = shifted_sigmas(4, 3.0)
    sample(predict, noise, sigmas)
    assert tuple(asked) == sigmas[:-1]


def test_guidance_of_1_changes_nothing_and_of_0_forgets_the_action() -> None:
    with_action, without = torch.randn(3), torch.randn(3)
    assert torch.allclose(guide(with_action, without, 1.0), with_action)
    assert torch.equal(guide(with_action, without, 0.0), without)
    assert torch.allclose(guide(with_action, without, 3.0) - without, 3 * (with_action - without), atol=1e-6)
