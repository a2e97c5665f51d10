"""Noise-augmented memory: in training the history is corrupted with noise of its own (paper: A.6, "noise as mask").

Heavy noise keeps the model from only continuing what it saw (visual inertia); light noise makes it used to its own
mistakes (drift). The level is known to the network, so that clean history is as good as it can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from astra_ros.flow.schedule import shift_sigma
from astra_ros.history.layout import BLOCKS


@dataclass(frozen=True)
class HistoryNoiseConfig:
    """light, heavy: shares of the histories corrupted with a level drawn from that range; the others stay clean.

    heavy_shift: the heavy range is even in the unshifted level, as in the sampler's grid (1: even in sigma).
    full_only: corrupt only the blocks at full resolution. told: the network knows the level.
    """

    light: float = 0.4
    light_range: tuple[float, float] = (0.0, 0.3)
    heavy: float = 0.2
    heavy_range: tuple[float, float] = (0.6, 1.0)
    heavy_shift: float = 1.0
    full_only: bool = False
    told: bool = True

    def __post_init__(self) -> None:
        for name in ("light", "heavy"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: expected a share, 0 to 1, found {getattr(self, name)}")
            low, high = getattr(self, f"{name}_range")
            if not 0.0 <= low <= high <= 1.0:
                raise ValueError(
                    f"{name}_range: expected noise levels, 0 <= low <= high <= 1, found {low}, {high}"
                )
        if self.light + self.heavy > 1.0 + 1e-9:
            raise ValueError(
                f"light, heavy: expected shares that come to 1 at most, found {self.light} and {self.heavy}; lower one of them"
            )
        if self.heavy_shift <= 0.0:
            raise ValueError(f"heavy_shift: expected more than 0, found {self.heavy_shift}")


HISTORY_NOISE = {
    "mixed": HistoryNoiseConfig(),
    "clean": HistoryNoiseConfig(light=0.0, heavy=0.0),
    # The first three quarters of a 1000-point grid shifted by 5, on anchor and last frame only, level not told (A.6).
    "astra_release": HistoryNoiseConfig(
        light=0.0, heavy=0.8, heavy_range=(0.25, 1.0), heavy_shift=5.0, full_only=True, told=False
    ),
}


def sample_history_sigmas(batch: int, config: HistoryNoiseConfig, generator: torch.Generator) -> Tensor:
    """(b,) noise levels in [0, 1]."""
    kind, level = torch.rand(2, batch, generator=generator)
    light = _within(level, config.light_range)
    heavy = shift_sigma(_within(level, config.heavy_range), config.heavy_shift)
    sigma = torch.where(kind < config.light, light, torch.zeros(batch))
    return torch.where((kind >= config.light) & (kind < config.light + config.heavy), heavy, sigma)


def corrupt(latents: Tensor, sigma: Tensor, config: HistoryNoiseConfig, noise: Tensor) -> Tensor:
    """History (b, s, c, h, w) at noise level sigma (b,)."""
    level = sigma.view(-1, 1, 1, 1, 1).expand(-1, latents.shape[1], 1, 1, 1)
    if config.full_only:
        full = torch.zeros(latents.shape[1], dtype=torch.bool, device=latents.device)
        for block in BLOCKS:
            full[slice(*block.slots)] = block.pooling == 1
        level = level * full.view(1, -1, 1, 1, 1)
    return (1.0 - level) * latents + level * noise


def _within(level: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * level
