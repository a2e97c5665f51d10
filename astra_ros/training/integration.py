"""What a denoiser makes of a segment: from noise along noise levels, as at run time but for the cache's upkeep."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from astra_ros.data.segments import SegmentBatch
from astra_ros.denoiser.dit import Chunk, Denoiser, History
from astra_ros.flow.sampler import guide, sample


def integrate(
    denoiser: Denoiser, segments: SegmentBatch, noise: Tensor, sigmas: Sequence[float], guidance: float = 1.0
) -> Tensor:
    """The chunks (b, t, c, h, w) that a denoiser makes of noise after a clean history, by Euler steps."""
    history = History(
        segments.history_latents, segments.history_actions, segments.history_mask, segments.space
    )
    cache, _ = denoiser.remember(history, torch.zeros(len(noise), device=noise.device))
    chunk = Chunk(noise, segments.history_latents[:, -1], segments.actions, segments.space)

    def answer(noisy: Tensor, sigma: float, keep: float) -> Tensor:
        level, kept = (torch.full((len(noise),), value, device=noise.device) for value in (sigma, keep))
        return denoiser.denoise(chunk._replace(noisy=noisy, keep_action=kept), level, cache).latents

    def predict(noisy: Tensor, sigma: float) -> Tensor:
        with_action = answer(noisy, sigma, 1.0)
        return with_action if guidance == 1.0 else guide(with_action, answer(noisy, sigma, 0.0), guidance)

    return sample(predict, noise, sigmas)
