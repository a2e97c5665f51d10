"""From the transformer's tokens to latents: a linear layer, or convolutions that finish coarse tokens."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.pose import Canvas


class Head(nn.Module):
    """Tokens → change of the last frame, straight from the patches. Starts at zero."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.layer = nn.Linear(config.width, config.latent_channels * config.patch**2)
        for parameter in self.layer.parameters():
            nn.init.zeros_(parameter)
        self.patch, self.grid = config.patch, config.grid

    def forward(
        self, tokens: Tensor, noisy: Tensor, last: Tensor, canvas: Canvas | None
    ) -> tuple[Tensor, Tensor]:
        """tokens (b, t * n, d), noisy and last (b, t, c, h, w) → the last frame as it is, and the change."""
        del canvas  # there is none without a refiner
        return last, _unpatch(self.layer(tokens), self.patch, self.grid, noisy.shape[1])


class RefiningHead(nn.Module):
    """Tokens → the last frame moved along a flow, and a change of it, by convolutions at full resolution.

    A token of 4x4 latents says where things go; what they look like there is in the last frame (docs/decisions/0005), or in the
    sketch that the action draws, which is taken where a gate says so (0010). Starts at no flow and no change.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        channels, values = config.refiner, config.latent_channels
        self.layer = nn.Linear(config.width, channels * config.patch**2)
        self.mix = nn.Conv2d(channels + 2 * values, channels, 3, padding=1)
        self.flow = nn.Conv2d(channels, 2, 3, padding=1)
        self.refine = nn.Conv2d(channels + values, channels, 3, padding=1)
        self.out = nn.Conv2d(channels, values, 3, padding=1)
        self.gate = nn.Conv2d(channels, values, 3, padding=1) if config.pose_rank else None
        for layer in (self.flow, self.out, self.gate):
            for parameter in layer.parameters() if layer else ():
                nn.init.zeros_(parameter)
        self.patch, self.grid = config.patch, config.grid
        self.register_buffer("places", _places(config.latent_height, config.latent_width), persistent=False)

    places: Tensor

    def forward(
        self, tokens: Tensor, noisy: Tensor, last: Tensor, canvas: Canvas | None
    ) -> tuple[Tensor, Tensor]:
        """tokens (b, t * n, d), noisy and last (b, t, c, h, w) → the last frame moved, and the change."""
        drawn = self._drawn(tokens, noisy.shape[1])
        given = [rearrange(frames.to(drawn), "b t c h w -> (b t) h w c") for frames in (noisy, last)]
        mixed = self.mix(rearrange(torch.cat([drawn, *given], dim=-1), "n h w c -> n c h w"))
        if canvas is not None:
            mixed = mixed + canvas.features.flatten(0, 1)
        x = F.silu(mixed)
        moved = self._move(last.flatten(0, 1), self.flow(x))
        x = x + F.silu(self.refine(torch.cat([x, moved.to(x)], dim=1)))
        change = self.out(x)
        if canvas is not None and self.gate is not None:
            change = change + self.gate(x).tanh() * (canvas.sketch.flatten(0, 1) - moved)
        return moved.unflatten(0, noisy.shape[:2]), change.unflatten(0, noisy.shape[:2])

    def _drawn(self, tokens: Tensor, frames: int) -> Tensor:
        """tokens (b, t * n, d) → (b * t, h, w, refiner): channels last, as convolutions have them in memory (0014).

        Instead of the pictures the layer's weights are reordered.
        """
        sizes = {"p": self.patch, "q": self.patch}
        weight, bias = (
            rearrange(each, "(c p q) ... -> (p q c) ...", **sizes)
            for each in (self.layer.weight, self.layer.bias)
        )
        patches = F.linear(tokens, weight, bias)
        sizes |= {"t": frames, "h": self.grid[0], "w": self.grid[1]}
        return rearrange(patches, "b (t h w) (p q c) -> (b t) (h p) (w q) c", **sizes)

    def _move(self, frames: Tensor, flow: Tensor) -> Tensor:
        """frames (n, c, h, w); flow (n, 2, h, w): where to look, right and down, in eighths of the picture."""
        where = self.places + 0.25 * rearrange(flow, "n two h w -> n h w two").to(frames)
        if where.requires_grad:
            # The gradient of torch 2.13 on a CPU takes NaN for an address, which ends the process.
            where = where.nan_to_num()
        return F.grid_sample(frames, where, padding_mode="border", align_corners=False)


def _unpatch(values: Tensor, patch: int, grid: tuple[int, int], frames: int) -> Tensor:
    pattern = "b (t h w) (c p q) -> b t c (h p) (w q)"
    return rearrange(values, pattern, t=frames, h=grid[0], w=grid[1], p=patch, q=patch)


def _places(height: int, width: int) -> Tensor:
    """(h, w, 2): centre of every latent, right and down, in [-1, 1], as grid_sample counts."""
    rows, columns = ((2.0 * torch.arange(size) + 1.0) / size - 1.0 for size in (height, width))
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
