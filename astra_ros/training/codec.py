"""Train the per-frame autoencoder: first all of it, then its decoder on latents like a denoiser's."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astra_ros.codec.autoencoder import Codec, emphasis_on_change, reconstruction_loss
from astra_ros.codec.motion import motion_error, moved, was_inside
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
        return {"loss": reconstruction_loss(decoded.float(), pixels, self._emphasis(pixels, backgrounds))}

    def _emphasis(self, pixels: Tensor, backgrounds: Tensor) -> Tensor:
        """(b, 1, H, W). Relative within a picture: else a moving camera, where everything changes, would count several times."""
        emphasis = emphasis_on_change(pixels, backgrounds, self._config.emphasis)
        return emphasis / emphasis.mean(dim=(1, 2, 3), keepdim=True)

    def latents(self, pixels: Tensor) -> Tensor:
        """What is decoded."""
        return self.model.encode(pixels)


class MovedCodecStep(CodecStep):
    """Reconstruct pictures, also moved ones from moved latents, and let the encoder agree (docs/decisions/0013).

    The second is the equivariance regularisation of EQ-VAE (arXiv 2502.09509), for small translations.
    """

    def inputs(self, draw: Draw, batch: int) -> tuple[Tensor, ...]:
        pixels, backgrounds = super().inputs(draw, batch)
        most = self.model.config.factor
        distance = torch.randint(-most, most + 1, (batch, 2), generator=draw.torch)
        distance[:, 0] += (distance == 0).all(dim=1)  # what stands still says nothing
        return (
            pixels,
            backgrounds,
            distance.to(draw.device) / torch.tensor(pixels.shape[:1:-1]).to(draw.device),
        )

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        pixels, backgrounds, by = inputs
        moved_pixels, emphasis = moved(pixels, by), self._emphasis(pixels, backgrounds)
        latents, of_moved = self.model.encode(torch.cat([pixels, moved_pixels])).chunk(2)
        as_is, as_moved = self.model.decode(torch.cat([latents, moved(latents, by)])).float().chunk(2)
        reconstruction = reconstruction_loss(as_is, pixels, emphasis)
        inside = moved(emphasis, by) * was_inside(pixels, by)
        reconstruction_moved = reconstruction_loss(as_moved, moved_pixels, inside)
        motion = motion_error(latents, of_moved, by)
        loss = reconstruction + reconstruction_moved + self._config.motion * motion
        return {"loss": loss, "reconstruction": reconstruction.detach(), "motion": motion.detach()}


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
