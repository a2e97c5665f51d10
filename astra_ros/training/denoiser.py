"""Train the denoiser by flow matching on latent segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from astra_ros.data.segments import SegmentSampler
from astra_ros.denoiser.dit import Denoiser
from astra_ros.flow.objective import SigmaSamplerConfig, add_noise, flow_loss, sample_sigmas
from astra_ros.training.budget import Budget
from astra_ros.training.ema import Ema
from astra_ros.training.progress import Progress


@dataclass(frozen=True)
class DenoiserTrainingConfig:
    """How the denoiser is trained.

    minutes, max_steps: budget. history_noise: share of histories that are corrupted, by a level drawn up to max_history_sigma (paper: A.6).
    checkpoint_minutes: how often the averaged model is handed to `on_checkpoint`.
    """

    minutes: float = 60.0
    max_steps: int | None = None
    batch: int = 8
    learning_rate: float = 2e-3
    ema_decay: float = 0.998
    history_noise: float = 0.5
    max_history_sigma: float = 0.3
    checkpoint_minutes: float = 6.0
    seed: int = 0
    sigmas: SigmaSamplerConfig = field(default_factory=SigmaSamplerConfig)


def train_denoiser(
    denoiser: Denoiser,
    segments: SegmentSampler,
    config: DenoiserTrainingConfig,
    progress: Progress,
    on_checkpoint: Callable[[Denoiser, float], None],
) -> Denoiser:
    """Returns the averaged denoiser; `on_checkpoint(averaged, share of budget)` is called on the way."""
    rng, noise = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    optimizers = _optimizers(denoiser)
    ema, budget = Ema(denoiser, config.ema_decay), Budget(config.minutes, config.max_steps)
    checkpoint_share = config.checkpoint_minutes / config.minutes
    next_checkpoint = checkpoint_share
    denoiser.train()
    while not budget.is_spent:
        loss = _loss(denoiser, segments, config, rng, noise)
        denoiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = budget.rate(config.learning_rate)
            optimizer.step()
        ema.update(denoiser)
        budget.step()
        progress.step(budget.progress, loss=loss.item(), gradient_norm=norm.item())
        if budget.progress >= next_checkpoint:
            on_checkpoint(ema.model, budget.progress)
            next_checkpoint += checkpoint_share
    return ema.model.requires_grad_(requires_grad=True)


def _loss(
    denoiser: Denoiser,
    segments: SegmentSampler,
    config: DenoiserTrainingConfig,
    rng: np.random.Generator,
    noise: torch.Generator,
) -> Tensor:
    batch = segments.draw(config.batch, rng)
    history, mask, latents = (
        torch.from_numpy(x) for x in (batch.history_latents, batch.history_mask, batch.latents)
    )
    corrupted = torch.rand(config.batch, generator=noise) < config.history_noise
    history_sigma = corrupted * config.max_history_sigma * torch.rand(config.batch, generator=noise)
    history = (
        add_noise(history, torch.randn(history.shape, generator=noise), history_sigma)
        * mask[:, :, None, None, None]
    )
    sigma = sample_sigmas(config.batch, config.sigmas, noise)
    noisy = add_noise(latents, torch.randn(latents.shape, generator=noise), sigma)
    with torch.autocast("cpu", torch.bfloat16):
        cache = denoiser.remember(history, torch.from_numpy(batch.history_actions), mask, history_sigma)
        predicted = denoiser.denoise(noisy, history[:, -1], torch.from_numpy(batch.actions), sigma, *cache)
    return flow_loss(predicted.float(), latents, sigma)


def _optimizers(denoiser: Denoiser) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for everything else."""
    matrices = [p for p in denoiser.blocks.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in denoiser.parameters() if id(p) not in inside]
    return [
        torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
