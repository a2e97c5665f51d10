"""Random inputs for the untrained network of tests/bundle_fixture.py."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from astra_ros.actions.spec import ActionSpec
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.dit import Chunk, Denoiser, History
from astra_ros.denoiser.rollout import Memory
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.types import FloatArray

SIGMA = 0.75


def history(denoiser: Denoiser, batch: int = 1, seed: int = 1, space: int = 1) -> History:
    """Full slots of noise."""
    config, generator = denoiser.config, torch.Generator().manual_seed(seed)
    latent = (config.latent_channels, config.latent_height, config.latent_width)
    return History(
        latents=torch.randn(batch, NUM_SLOTS, *latent, generator=generator),
        actions=torch.randn(batch, NUM_SLOTS, config.actions.num_features[space], generator=generator),
        mask=torch.ones(batch, NUM_SLOTS),
        space=torch.full((batch,), space),
    )


def chunk(denoiser: Denoiser, last: Tensor, seed: int = 2, space: int = 1) -> Chunk:
    config, generator = denoiser.config, torch.Generator().manual_seed(seed)
    shape = (len(last), config.chunk_len)
    return Chunk(
        noisy=torch.randn(*shape, *last.shape[1:], generator=generator),
        last=last,
        actions=torch.randn(*shape, config.actions.num_features[space], generator=generator),
        space=torch.full((len(last),), space),
    )


def predict(denoiser: Denoiser, past: History, target: Chunk | None = None, told: float = 0.0) -> Tensor:
    """Clean latents of a chunk. told: noise level of the history that the network is told."""
    target = chunk(denoiser, past.latents[:, -1]) if target is None else target
    batch = len(past.latents)
    with torch.inference_mode():
        cache, _ = denoiser.remember(past, torch.full((batch,), told))
        return denoiser.denoise(target, torch.full((batch,), SIGMA), cache).latents


def memory(checkpoint: Checkpoint, space: str, batch: int = 1, filled: int = NUM_SLOTS) -> Memory:
    """Frames and actions of noise; the anchor and the newest `filled - 1` slots are filled."""
    config, generator = checkpoint.config.denoiser, torch.Generator().manual_seed(3)
    latent = (config.latent_channels, config.latent_height, config.latent_width)
    mask = torch.ones(batch, NUM_SLOTS)
    mask[:, 1 : NUM_SLOTS - filled + 1] = 0
    latents = torch.randn(batch, NUM_SLOTS, *latent, generator=generator)
    return Memory(latents, actions(checkpoint.actions[space], batch, NUM_SLOTS, seed=4), mask)


def actions(spec: ActionSpec, batch: int, frames: int, seed: int = 5) -> FloatArray:
    """Actions (b, t, a) that wander."""
    steps = np.random.default_rng(seed).standard_normal((batch, frames, spec.dim))
    return (0.1 * np.cumsum(steps, axis=1)).astype(np.float32)
