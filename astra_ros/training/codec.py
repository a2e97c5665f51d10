"""Train the per-frame autoencoder on the frames of recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from astra_ros.codec.autoencoder import Codec, reconstruction_loss
from astra_ros.codec.pictures import to_pixels
from astra_ros.data.episode import Episode
from astra_ros.training.budget import Budget
from astra_ros.training.ema import Ema
from astra_ros.training.progress import Progress
from astra_ros.types import ByteArray


@dataclass(frozen=True)
class CodecTrainingConfig:
    """minutes: budget. ema_decay: of the averaged weights, which are what is kept."""

    minutes: float = 12.0
    batch: int = 16
    learning_rate: float = 1.5e-3
    ema_decay: float = 0.995
    seed: int = 0


def train_codec(
    codec: Codec, episodes: Sequence[Episode], config: CodecTrainingConfig, progress: Progress
) -> Codec:
    """Returns the averaged codec with its latent statistics fitted."""
    rng = np.random.default_rng(config.seed)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=config.learning_rate, weight_decay=1e-3)
    ema, budget = Ema(codec, config.ema_decay), Budget(config.minutes)
    codec.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    while not budget.is_spent:
        for group in optimizer.param_groups:
            group["lr"] = budget.rate(config.learning_rate)
        pixels = to_pixels(_draw(episodes, config.batch, rng)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = codec.decode(codec.encode(pixels))
        loss = reconstruction_loss(decoded.float(), pixels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()
        ema.update(codec)
        progress.step(budget.progress, loss=loss.item())
    trained = ema.model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    trained.fit_statistics(to_pixels(_draw(episodes, 512, rng)))
    return trained


def _draw(episodes: Sequence[Episode], batch: int, rng: np.random.Generator) -> ByteArray:
    chosen = rng.integers(len(episodes), size=batch)
    return np.stack([episodes[i].pixels[rng.integers(len(episodes[i].pixels))] for i in chosen])
