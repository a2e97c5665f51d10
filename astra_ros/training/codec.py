"""Train the per-frame autoencoder on the frames of recorded episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astra_ros.codec.autoencoder import Codec, emphasis_on_change, reconstruction_loss
from astra_ros.codec.pictures import to_pixels
from astra_ros.data.episode import Episode
from astra_ros.training.budget import Budget
from astra_ros.training.ema import Ema
from astra_ros.training.progress import Progress
from astra_ros.types import ByteArray


@dataclass(frozen=True)
class CodecTrainingConfig:
    """How a codec is trained.

    minutes, max_steps: budget. ema_decay: of the averaged weights, which are what is kept.
    emphasis: extra weight of what is not always there. latent_noise: standard deviation of what refine_decoder adds to the (unit variance) latents.
    """

    minutes: float = 12.0
    max_steps: int | None = None
    batch: int = 16
    learning_rate: float = 1.5e-3
    ema_decay: float = 0.995
    latent_noise: float = 0.08
    emphasis: float = 6.0
    seed: int = 0


def train_codec(
    codec: Codec, episodes: Sequence[Episode], config: CodecTrainingConfig, progress: Progress
) -> Codec:
    """Returns the averaged codec with its latent statistics fitted."""
    trained = _train(codec, lambda pixels: codec.decode(codec.encode(pixels)), episodes, config, progress)
    trained.fit_statistics(to_pixels(_draw(episodes, 512, np.random.default_rng(config.seed))))
    return trained


def refine_decoder(
    codec: Codec, episodes: Sequence[Episode], config: CodecTrainingConfig, progress: Progress
) -> Codec:
    """Returns the codec with a better decoder of the same latents, used to latents that are slightly off.

    The encoder stays, so that a denoiser trained on its latents stays valid.
    """
    codec.encoder.requires_grad_(requires_grad=False)
    noise = torch.Generator().manual_seed(config.seed)

    def decode_disturbed(pixels: Tensor) -> Tensor:
        latents = codec.encode(pixels)
        return codec.decode(latents + config.latent_noise * torch.randn(latents.shape, generator=noise))

    refined = _train(codec, decode_disturbed, episodes, config, progress)
    codec.encoder.requires_grad_(requires_grad=True)
    return refined


def _train(
    codec: Codec,
    reconstruct: Callable[[Tensor], Tensor],
    episodes: Sequence[Episode],
    config: CodecTrainingConfig,
    progress: Progress,
) -> Codec:
    rng = np.random.default_rng(config.seed)
    trainable = [parameter for parameter in codec.parameters() if parameter.requires_grad]
    background = to_pixels(_draw(episodes, 256, rng)).mean(dim=0)
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=1e-3)
    ema, budget = Ema(codec, config.ema_decay), Budget(config.minutes, config.max_steps)
    codec.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    while not budget.is_spent:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(config.learning_rate)
        frames = to_pixels(_draw(episodes, config.batch, rng))
        pixels = frames.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = reconstruct(pixels)
        emphasis = emphasis_on_change(pixels, background, config.emphasis)
        loss = reconstruction_loss(decoded.float(), pixels, emphasis)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        ema.update(codec)
        budget.step()
        progress.step(budget.progress, loss=loss.item())
    trained = ema.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return trained.requires_grad_(requires_grad=True)


def _draw(episodes: Sequence[Episode], batch: int, rng: np.random.Generator) -> ByteArray:
    chosen = rng.integers(len(episodes), size=batch)
    return np.stack([episodes[i].pixels[rng.integers(len(episodes[i].pixels))] for i in chosen])
