"""The training objective: rectified flow on the target chunk (paper: A.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from astra_ros.flow.schedule import shift_sigma


@dataclass(frozen=True)
class SigmaSamplerConfig:
    """Training noise levels: a shifted logit-normal, and a share drawn on the levels that will be served.

    shift, served: those of two steps, as the smaller presets serve them.
    """

    shift: float = 3.0
    served: tuple[float, ...] = (1.0, 0.75)
    served_share: float = 0.5

    def __post_init__(self) -> None:
        if not self.served:
            raise ValueError("served: expected one noise level or more, found none")
        if wrong := [level for level in self.served if not 0.0 < level <= 1.0]:
            raise ValueError(f"served: expected noise levels beyond 0 and up to 1, found {wrong[0]}")
        if not 0.0 <= self.served_share <= 1.0:
            raise ValueError(f"served_share: expected a share, 0 to 1, found {self.served_share}")
        if self.shift <= 0.0:
            raise ValueError(f"shift: expected more than 0, found {self.shift}")


def sample_sigmas(batch: int, config: SigmaSamplerConfig, generator: torch.Generator) -> Tensor:
    """(b,) noise levels in (0, 1]."""
    u = torch.sigmoid(torch.randn(batch, generator=generator))
    spread = shift_sigma(u, config.shift)
    served = torch.tensor(config.served)[torch.randint(len(config.served), (batch,), generator=generator)]
    on_grid = torch.rand(batch, generator=generator) < config.served_share
    return torch.where(on_grid, served, spread)


def add_noise(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """noisy = (1 - sigma) * latents + sigma * noise; sigma (b,) broadcasts over the rest."""
    sigma = sigma.view(-1, *[1] * (latents.dim() - 1))
    return (1.0 - sigma) * latents + sigma * noise


def flow_loss(predicted: Tensor, latents: Tensor, sigma: Tensor, *, floor: float = 0.25) -> Tensor:
    """Mean squared error of the velocity when the network predicts clean latents.

    velocity error = clean error / sigma; the weight is bounded below sigma = floor, where it would explode.
    """
    weight = sigma.clamp(min=floor).pow(-2).view(-1, *[1] * (latents.dim() - 1))
    return (weight * (predicted - latents).square()).mean()
