"""From noise to clean latents along the served noise levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from astra_ros.flow.schedule import euler_weights


def sample(predict: Callable[[Tensor, float], Tensor], noise: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Euler steps over `sigmas`, falling to 0. predict(noisy, sigma) → clean latents of the same shape."""
    latents = noise
    for sigma, sigma_next in pairwise(sigmas):
        keep, take = euler_weights(sigma, sigma_next)
        latents = keep * latents + take * predict(latents, sigma)
    return latents


def guide(conditional: Tensor, action_free: Tensor, scale: float) -> Tensor:
    """Action-free guidance (paper: A.9): away from what would happen anyway. Scale 1 changes nothing."""
    return action_free + scale * (conditional - action_free)
