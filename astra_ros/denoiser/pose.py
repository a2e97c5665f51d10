"""What an action draws onto the picture, before anything is known of the past (docs/decisions/0010)."""

from __future__ import annotations

import math
from typing import NamedTuple

from einops import rearrange
from torch import Tensor, nn

from astra_ros.denoiser.config import DenoiserConfig


class Canvas(NamedTuple):
    """What the action of every frame paints at the latents' resolution, for a head that finishes frames.

    features (b, t, refiner, h, w); sketch (b, t, c, h, w): the clean latents as far as the action alone tells.
    """

    features: Tensor
    sketch: Tensor


class PoseMap(nn.Module):
    """What an action draws: where the arm will be, how the picture will flow (docs/decisions/0010). Starts at nothing."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        width, rank = config.width, config.pose_rank
        self.draw = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, config.tokens_per_frame * rank)
        )
        self.out = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.out.weight)
        self.painter = Painter(config) if config.refiner else None
        self.grid = config.grid

    def forward(self, action: Tensor) -> tuple[Tensor, Canvas | None]:
        """action (b, t, d) → tokens (b, t * n, d), and what is painted, where a head takes it."""
        rows, columns = self.grid
        drawn = rearrange(self.draw(action), "b t (h w r) -> (b t) r h w", h=rows, w=columns)
        tokens = self.out(rearrange(drawn, "(b t) r h w -> b (t h w) r", b=len(action)))
        if self.painter is None:
            return tokens, None
        return tokens, Canvas(*(x.unflatten(0, action.shape[:2]) for x in self.painter(drawn)))


class Painter(nn.Module):
    """From a map on the token grid to the latents' resolution, by convolutions that double its sides."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        channels, fine = config.pose_rank, config.refiner
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(config.patch))):
            layers += [nn.SiLU(), nn.Conv2d(channels, 4 * fine, 3, padding=1), nn.PixelShuffle(2)]
            channels = fine
        self.enlarge = nn.Sequential(*layers, nn.SiLU(), nn.Conv2d(channels, fine, 3, padding=1), nn.SiLU())
        self.sketch = nn.Conv2d(fine, config.latent_channels, 3, padding=1)

    def forward(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """drawn (n, rank, rows, columns) → features (n, refiner, h, w) and the sketch (n, c, h, w)."""
        features = self.enlarge(drawn)
        return features, self.sketch(features)
