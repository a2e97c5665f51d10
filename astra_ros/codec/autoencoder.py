"""Per-frame autoencoder, pixels ⇄ latents: 8x smaller in each direction, a few channels.

Pixels (b, 3, H, W) in [-1, 1]; latents (b, c, H/8, W/8), normalised to zero mean and unit variance per channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.codec import taef2


@dataclass(frozen=True)
class CodecConfig:
    """latent_channels: c. kind: our own network, or TAEF2's with weights from elsewhere.

    widths: channels at 1/4 and 1/8 resolution, num_blocks: residual blocks at each; of our own network.
    """

    latent_channels: int = 12
    widths: tuple[int, int] = (48, 128)
    num_blocks: int = 2
    factor: int = 8
    kind: Literal["own", "taef2"] = "own"

    def __post_init__(self) -> None:
        if self.kind == "taef2" and self.latent_channels != taef2.LATENT_CHANNELS:
            raise ValueError(
                f"latent_channels: expected {taef2.LATENT_CHANNELS} for taef2, found {self.latent_channels}"
            )


class ResidualBlock(nn.Module):
    """Two convolutions beside an identity; (b, c, h, w) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class Encoder(nn.Module):
    """Space-to-depth stem at 1/4, one strided convolution to 1/8."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        fine, coarse = config.widths
        self.layers = nn.Sequential(
            nn.Conv2d(3, fine, 8, stride=4, padding=2),
            *[ResidualBlock(fine) for _ in range(config.num_blocks)],
            nn.Conv2d(fine, coarse, 4, stride=2, padding=1),
            *[ResidualBlock(coarse) for _ in range(config.num_blocks)],
            nn.Conv2d(coarse, config.latent_channels, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return self.layers(pixels)


class Decoder(nn.Module):
    """Mirror of the encoder; depth-to-space to 1/4, to 1/2 and to full resolution."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        fine, coarse = config.widths
        self.layers = nn.Sequential(
            nn.Conv2d(config.latent_channels, coarse, 3, padding=1),
            *[ResidualBlock(coarse) for _ in range(config.num_blocks + 1)],
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *[ResidualBlock(fine) for _ in range(config.num_blocks)],
            nn.Conv2d(fine, 4 * 24, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(24, 4 * 3, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return self.layers(latents)


class Codec(nn.Module):
    """`encode` and `decode` with the latent statistics applied."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config) if config.kind == "own" else taef2.Encoder()
        self.decoder = Decoder(config) if config.kind == "own" else taef2.Decoder()
        self.register_buffer("mean", torch.zeros(1, config.latent_channels, 1, 1))
        self.register_buffer("std", torch.ones(1, config.latent_channels, 1, 1))

    mean: Tensor
    std: Tensor

    def encode(self, pixels: Tensor) -> Tensor:
        return (self.encoder(pixels) - self.mean) / self.std

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents * self.std + self.mean)

    def load_taef2(self, folder: Path) -> None:
        """Take TAEF2's weights from its two files; the latent statistics are still to be fitted."""
        if not isinstance(self.encoder, taef2.Encoder) or not isinstance(self.decoder, taef2.Decoder):
            raise ValueError(f"codec.kind: expected taef2, found {self.config.kind}; set codec.kind=taef2")
        taef2.load_weights(self.encoder, self.decoder, folder)

    @torch.no_grad()
    def fit_statistics(self, pixels: Tensor) -> None:
        """Make the latents of `pixels` (b, 3, H, W) zero-mean and unit-variance per channel."""
        raw = torch.cat([self.encoder(chunk) for chunk in pixels.split(64)])
        self.mean.copy_(raw.mean((0, 2, 3), keepdim=True))
        self.std.copy_(raw.std((0, 2, 3), keepdim=True))


def reconstruction_loss(decoded: Tensor, pixels: Tensor, emphasis: Tensor) -> Tensor:
    """Squared plus absolute error of values, and absolute error of gradients so that edges stay sharp.

    decoded, pixels: (b, 3, H, W). emphasis: (b, 1, H, W), weight of each place.
    """
    error = emphasis * (decoded - pixels)
    loss = 4.0 * (error * (decoded - pixels)).mean() + 0.5 * error.abs().mean()
    for dim in (-1, -2):
        loss = loss + 0.5 * error.diff(dim=dim).abs().mean()
    return loss


def emphasis_on_change(pixels: Tensor, background: Tensor, strength: float) -> Tensor:
    """Weights (b, 1, H, W): 1 where a frame is as it always is, up to 1 + strength where it is not.

    A gripper and what it holds are a few percent of a picture's area and all of its meaning.
    background: (3, H, W), mean over many frames.
    """
    deviation = (pixels - background).abs().mean(dim=1, keepdim=True)
    return 1.0 + strength * (2.0 * deviation).clamp(max=1.0)
