"""Noise levels. sigma = 1 is pure noise, 0 is clean: noisy = (1 - sigma) * latents + sigma * noise."""

from __future__ import annotations

from typing import Any, TypeVar

_Level = TypeVar("_Level")  # a float or a tensor


def shift_sigma(u: _Level, shift: float) -> _Level:
    """Level of an unshifted u in [0, 1]; shift > 1 moves it towards high noise (paper: A.3 uses 5)."""
    level: Any = u
    return shift * level / (1.0 + (shift - 1.0) * level)


def shifted_sigmas(num_steps: int, shift: float) -> tuple[float, ...]:
    """The `num_steps + 1` levels a sampler visits, from 1 down to 0.

    An even grid, shifted: shift > 1 spends more steps at high noise.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps: expected at least 1, found {num_steps}")
    grid = [1.0 - k / num_steps for k in range(num_steps + 1)]
    return tuple(shift_sigma(u, shift) for u in grid)


def euler_weights(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Weights (of the noisy, of the predicted clean latents) of one Euler step.

    With velocity = (noisy - clean) / sigma, the step noisy + (sigma_next - sigma) * velocity is a mean of the two.
    """
    keep = sigma_next / sigma
    return keep, 1.0 - keep
