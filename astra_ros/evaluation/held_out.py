"""Held-out rollouts of a model in training (torch), beside copy-last-frame and the codec's ceiling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from astra_ros.codec.pictures import decode_latents, encode_episode
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.evaluation.metrics import psnr
from astra_ros.flow.schedule import euler_weights
from astra_ros.types import ByteArray, FloatArray


@dataclass(frozen=True)
class HeldOutRollout:
    """One prediction and what happened.

    All (t, h, w, 3) uint8 but observed (h, w, 3); `ceiling` is what happened
    after passing through the codec.
    """

    name: str
    observed: ByteArray
    predicted: ByteArray
    happened: ByteArray
    ceiling: ByteArray

    def psnr(self) -> dict[str, FloatArray]:
        """dB per horizon step, against what happened."""
        copies = np.broadcast_to(self.observed, self.happened.shape)
        pictures = {"predicted": self.predicted, "copy_last": copies, "ceiling": self.ceiling}
        return {name: psnr(frames, self.happened) for name, frames in pictures.items()}


@torch.inference_mode()
def rollout(
    checkpoint: Checkpoint,
    history: Tensor,
    positions: FloatArray,
    plan: FloatArray,
    generator: torch.Generator,
) -> Tensor:
    """Predicted latents (horizon, c, h, w).

    history (s, c, h, w), positions (s, a), plan (horizon, a); horizon is a
    multiple of the chunk length.
    """
    denoiser, spec = checkpoint.denoiser, checkpoint.action
    slots, chunk_len = denoiser.config.history_slots, denoiser.config.chunk_len
    mask, clean = torch.ones(1, slots), torch.zeros(1)
    chunks = []
    for actions in plan.reshape(-1, chunk_len, plan.shape[1]):
        past = torch.from_numpy(spec.features(positions, positions[0], is_past=True))[None]
        target = torch.from_numpy(spec.features(actions, positions[-1], is_past=False))[None]
        cache = denoiser.remember(history[None], past, mask, clean)
        sample = torch.randn(1, chunk_len, *history.shape[1:], generator=generator)
        for sigma, sigma_next in pairwise(checkpoint.config.sigmas):
            predicted = denoiser.denoise(sample, history[None, -1], target, torch.tensor([sigma]), *cache)
            keep, move = euler_weights(sigma, sigma_next)
            sample = keep * sample + move * predicted
        chunks.append(sample[0])
        history = torch.cat([history, sample[0]])[-slots:]
        positions = np.concatenate([positions, actions])[-slots:]
    return torch.cat(chunks)


def held_out_rollouts(
    checkpoint: Checkpoint, episodes: Sequence[Episode], horizon: int, every: int
) -> list[HeldOutRollout]:
    """Predict from every `every`-th possible moment of each episode."""
    return [one for episode in episodes for one in _episode_rollouts(checkpoint, episode, horizon, every)]


def _episode_rollouts(
    checkpoint: Checkpoint, episode: Episode, horizon: int, every: int
) -> Iterator[HeldOutRollout]:
    codec, spec, slots = checkpoint.codec, checkpoint.action, checkpoint.config.denoiser.history_slots
    stride = frame_stride(episode, spec.step_dt)
    latents = torch.from_numpy(encode_episode(codec, episode.pixels)).float()
    for now in range((slots - 1) * stride, len(latents) - horizon * stride, every):
        past = now + stride * np.arange(1 - slots, 1)
        target = now + stride * np.arange(1, horizon + 1)
        generator = torch.Generator().manual_seed(now)
        predicted = rollout(
            checkpoint, latents[past], episode.measured[past], episode.commanded[target], generator
        )
        yield HeldOutRollout(
            f"{episode.name}@{now}",
            episode.pixels[now],
            decode_latents(codec, predicted),
            episode.pixels[target],
            decode_latents(codec, latents[target]),
        )


def summarise(rollouts: Sequence[HeldOutRollout]) -> dict[str, list[float]]:
    """Mean dB per horizon step for predicted, copy_last and ceiling."""
    tables = [r.psnr() for r in rollouts]
    return {
        name: [round(float(x), 3) for x in np.mean([t[name] for t in tables], axis=0)] for name in tables[0]
    }
