"""Rollouts in torch: chunk after chunk, each remembered before the next. The reference for every exported backend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from astra_ros.actions.spec import ActionSpec
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.dit import Chunk, Denoiser, History
from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.denoiser.geometry import Cache
from astra_ros.flow.sampler import guide, sample
from astra_ros.flow.schedule import shifted_sigmas
from astra_ros.history.layout import NUM_SLOTS, blocks_after
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class RolloutSettings:
    """num_steps: denoising steps of a chunk. guidance: 1 = none, 0 = without actions (paper: A.9; 3 there).

    history_sigma: noise added to the memory, and told; 0 = as it is.
    """

    num_steps: int = 2
    guidance: float = 1.0
    history_sigma: float = 0.0


@dataclass(frozen=True)
class Memory:
    """What b robots of one action space remember. latents (b, s, c, h, w), actions (b, s, a) per step, mask (b, s)."""

    latents: Tensor
    actions: FloatArray
    mask: Tensor

    def moved_on(self, latents: Tensor, actions: FloatArray) -> Memory:
        """With a chunk (b, t, …) as the newest; the anchor stays."""
        length, mask = latents.shape[1], torch.ones(latents.shape[:2]).to(self.mask)
        slots = [0, *range(1 + length, NUM_SLOTS + length)]
        return Memory(
            torch.cat([self.latents, latents], dim=1)[:, slots],
            np.concatenate([self.actions, actions], axis=1)[:, slots],
            torch.cat([self.mask, mask], dim=1)[:, slots],
        )


@torch.inference_mode()
def roll_out(
    checkpoint: Checkpoint,
    space: str,
    memory: Memory,
    plan: FloatArray,
    settings: RolloutSettings,
    generator: torch.Generator,
) -> Tensor:
    """Predicted latents (b, horizon, c, h, w). plan (b, horizon, a): per-step actions; any horizon."""
    chunks = list(stream_rollout(checkpoint, space, memory, plan, settings, generator))
    return torch.cat(chunks, dim=1)[:, : plan.shape[1]]


@torch.inference_mode()
def stream_rollout(
    checkpoint: Checkpoint,
    space: str,
    memory: Memory,
    plan: FloatArray,
    settings: RolloutSettings,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """The same, a chunk (b, t, c, h, w) at a time; memory stays bounded however long the plan is."""
    denoiser, length = checkpoint.denoiser, checkpoint.config.denoiser.chunk_len
    spec, index = checkpoint.actions[space], checkpoint.space_index(space)
    sigmas = shifted_sigmas(settings.num_steps, checkpoint.config.shift)
    newest = blocks_after(length)[0].slots[0]
    device = memory.latents.device
    told = torch.full((len(plan),), settings.history_sigma, device=device)
    history = _history(memory, spec, index, settings, generator)
    cache, _ = denoiser.remember(history, told)
    for actions in _chunks(plan, length):
        features = _features(
            [chunk_features(spec, *rows) for rows in zip(actions, memory.actions[:, -1], strict=True)], device
        )
        predict = _Predictor(denoiser, cache, history.latents[:, -1], features, index, settings)
        noise = torch.randn(len(plan), length, *memory.latents.shape[2:], generator=generator).to(device)
        latents = sample(predict, noise, sigmas)
        yield latents
        memory = memory.moved_on(latents, actions)
        history = _history(memory, spec, index, settings, generator, newest)
        cache = denoiser.append(cache, history, told)


class _Predictor:
    """Clean latents of a chunk at a noise level, with action-free guidance; both answers share the cache."""

    def __init__(
        self,
        denoiser: Denoiser,
        cache: Cache,
        last: Tensor,
        features: Tensor,
        index: int,
        settings: RolloutSettings,
    ) -> None:
        self._denoiser, self._cache, self._guidance = denoiser, cache, settings.guidance
        sigma = settings.history_sigma
        self._chunk = Chunk(
            noisy=torch.empty(0),
            last=last,
            actions=features,
            space=torch.full((len(features),), index, device=features.device),
            last_sigma=torch.full((len(features),), sigma, device=features.device) if sigma else None,
        )

    def __call__(self, noisy: Tensor, sigma: float) -> Tensor:
        if self._guidance in (0.0, 1.0):
            return self._answer(noisy, sigma, self._guidance)
        return guide(self._answer(noisy, sigma, 1.0), self._answer(noisy, sigma, 0.0), self._guidance)

    def _answer(self, noisy: Tensor, sigma: float, keep: float) -> Tensor:
        level, kept = (torch.full((len(noisy),), value, device=noisy.device) for value in (sigma, keep))
        return self._denoiser.denoise(
            self._chunk._replace(noisy=noisy, keep_action=kept), level, self._cache
        ).latents


def _history(
    memory: Memory,
    spec: ActionSpec,
    index: int,
    settings: RolloutSettings,
    generator: torch.Generator,
    first: int = 0,
) -> History:
    """Slots from `first` on, with the settings' noise."""
    latents, sigma = memory.latents[:, first:], settings.history_sigma
    if sigma:
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        latents = (1.0 - sigma) * latents + sigma * noise
    features = _features([history_features(spec, rows) for rows in memory.actions], latents.device)
    space = torch.full((len(latents),), index, device=latents.device)
    return History(latents, features[:, first:], memory.mask[:, first:], space)


def _features(rows: list[FloatArray], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(rows)).to(device)


def _chunks(plan: FloatArray, length: int) -> Iterator[FloatArray]:
    """(b, horizon, a) in pieces of `length`; the last one repeats the plan's last row."""
    padding = np.repeat(plan[:, -1:], -plan.shape[1] % length, axis=1)
    padded = np.concatenate([plan, padding], axis=1)
    return iter(np.split(padded, padded.shape[1] // length, axis=1))
