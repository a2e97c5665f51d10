"""Train the per-frame autoencoder: first all of it, then its decoder on latents like a denoiser's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astra_ros.codec.autoencoder import Codec, emphasis_on_change, reconstruction_loss
from astra_ros.codec.pictures import to_pixels
from astra_ros.training.config import CodecTrainingConfig
from astra_ros.training.draw import Draw
from astra_ros.training.frames import FramePool
from astra_ros.training.trainer import TrainingStep

STATISTICS_FRAMES = 512


class CodecStep(TrainingStep):
    """Reconstruct pictures."""

    model: Codec

    def __init__(self, codec: Codec, pool: FramePool, config: CodecTrainingConfig) -> None:
        super().__init__(codec.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self._pool, self._config = pool, config

    def inputs(self, draw: Draw, batch: int) -> tuple[Tensor, ...]:
        """Pictures and their backgrounds, (b, 3, H, W)."""
        pixels, backgrounds = (to_pixels(x).to(draw.device) for x in self._pool.draw(batch, draw.numpy))
        return pixels.contiguous(memory_format=torch.channels_last), backgrounds

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        pixels, backgrounds, *noise = inputs
        decoded = self.model.decode(self.latents(pixels, *noise))
        emphasis = emphasis_on_change(pixels, backgrounds, self._config.emphasis)
        # Relative within a picture: else a moving camera, where everything changes, would count several times.
        emphasis = emphasis / emphasis.mean(dim=(1, 2, 3), keepdim=True)
        return {"loss": reconstruction_loss(decoded.float(), pixels, emphasis)}

    def latents(self, pixels: Tensor) -> Tensor:
        """What is decoded."""
        return self.model.encode(pixels)


class DecoderStep(CodecStep):
    """Reconstruct pictures from latents that are slightly off. The encoder stays, and so do its latents."""

    def __init__(self, codec: Codec, pool: FramePool, config: CodecTrainingConfig) -> None:
        super().__init__(codec, pool, config)
        codec.encoder.requires_grad_(requires_grad=False)

    def inputs(self, draw: Draw, batch: int) -> tuple[Tensor, ...]:
        pixels, backgrounds = super().inputs(draw, batch)
        config = self.model.config
        height, width = (side // config.factor for side in pixels.shape[2:])
        return pixels, backgrounds, draw.normal((batch, config.latent_channels, height, width))

    def latents(self, pixels: Tensor, *noise: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self.model.encode(pixels)
        return latents + self._config.latent_noise * noise[0]


def finished_codec(codec: Codec) -> Codec:
    """An averaged codec, ready to be used and trained further."""
    codec.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return codec.requires_grad_(requires_grad=True)


def fit_statistics(codec: Codec, pool: FramePool, seed: int) -> None:
    """Give the latents zero mean and unit variance."""
    frames, _ = pool.draw(min(STATISTICS_FRAMES, len(pool.frames)), np.random.default_rng(seed))
    codec.fit_statistics(to_pixels(frames).to(codec.mean.device))
