"""TAEF2, the public tiny autoencoder of the FLUX.2 latent space, behind the interface of our own codec.

Layers written for the state dict of its weight files: per frame, 8x smaller in each direction, 32 channels. The weights
are the user's to fetch (madebyollin/taesd, MIT) and are not shipped.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LATENT_CHANNELS = 64, 32
ENCODER_FILE, DECODER_FILE = "taef2_encoder.pth", "taef2_decoder.pth"


class Block(nn.Module):
    """Three convolutions beside an identity; at the coarsest resolution after a normalised mixing of channels."""

    def __init__(self, *, mixes: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        hidden = 4 * WIDTH
        self.pool = (
            nn.Sequential(
                nn.Conv2d(WIDTH, hidden, 1, bias=False),
                nn.GroupNorm(4, hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, WIDTH, 1, bias=False),
            )
            if mixes
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class Bound(nn.Module):
    """Keeps latents within ±3, smoothly."""

    def forward(self, latents: Tensor) -> Tensor:
        return 3.0 * torch.tanh(latents / 3.0)


class Encoder(nn.Sequential):
    """Pixels (b, 3, H, W) in [-1, 1] → latents (b, 32, H/8, W/8)."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, WIDTH, 3, padding=1),
            Block(mixes=False),
            *[layer for mixes in (False, False, True) for layer in (_down(), *_blocks(mixes=mixes))],
            nn.Conv2d(WIDTH, LATENT_CHANNELS, 3, padding=1),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        return _through(self, 0.5 * (pixels + 1.0))


class Decoder(nn.Sequential):
    """Latents (b, 32, h, w) → pixels (b, 3, 8h, 8w) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__(
            Bound(),
            nn.Conv2d(LATENT_CHANNELS, WIDTH, 3, padding=1),
            nn.ReLU(),
            *[layer for mixes in (True, False, False) for layer in (*_blocks(mixes=mixes), *_up())],
            Block(mixes=False),
            nn.Conv2d(WIDTH, 3, 3, padding=1),
        )

    def forward(self, latents: Tensor) -> Tensor:
        return 2.0 * _through(self, latents) - 1.0


def load_weights(encoder: Encoder, decoder: Decoder, folder: Path) -> None:
    """Strict. Raises FileNotFoundError, or ValueError when a file is not TAEF2's."""
    for module, name in ((encoder, ENCODER_FILE), (decoder, DECODER_FILE)):
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: expected TAEF2's weights, found none; get them from madebyollin/taesd"
            )
        weights = torch.load(path, map_location="cpu", weights_only=True)
        try:
            module.load_state_dict({key: value.float() for key, value in weights.items()}, strict=True)
        except RuntimeError as error:
            raise ValueError(
                f"{path}: expected TAEF2's weights, found {' '.join(str(error).split())}"
            ) from error


def _through(layers: nn.Sequential, x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def _conv() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, padding=1)


def _blocks(*, mixes: bool) -> list[Block]:
    return [Block(mixes=mixes) for _ in range(3)]


def _down() -> nn.Conv2d:
    return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)


def _up() -> tuple[nn.Upsample, nn.Conv2d]:
    return nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
