"""The denoiser's loss on a batch of segments: flow matching on the chunk, with corrupted history and dropped actions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from astra_ros.actions.encoder import balance_loss
from astra_ros.data.segments import SegmentBatch
from astra_ros.denoiser.dit import Chunk, Denoiser, History
from astra_ros.flow.objective import SigmaSamplerConfig, add_noise, flow_loss, sample_sigmas
from astra_ros.history.noise import HistoryNoiseConfig, corrupt, sample_history_sigmas


@dataclass(frozen=True)
class ObjectiveConfig:
    """sigmas: noise levels of the chunk; `load_config` fills in those that the preset serves. history_noise: of the memory.

    action_dropout: share of chunks without actions, for guidance (paper: A.9). balance: weight of the router's loss.
    sketch: weight of what the action alone draws (docs/decisions/0010).
    """

    sigmas: SigmaSamplerConfig = field(default_factory=SigmaSamplerConfig)
    history_noise: HistoryNoiseConfig = field(default_factory=HistoryNoiseConfig)
    action_dropout: float = 0.1
    balance: float = 0.01
    sketch: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.action_dropout <= 1.0:
            raise ValueError(f"action_dropout: expected a share, 0 to 1, found {self.action_dropout}")


class Losses(NamedTuple):
    """Scalars. total = flow + balance weight x balance + sketch weight x sketch."""

    total: Tensor
    flow: Tensor
    balance: Tensor
    sketch: Tensor


class _Draw(NamedTuple):
    """Everything random of a step; drawn on the CPU, so that a seed means the same on every device."""

    sigma: Tensor
    noise: Tensor
    history_sigma: Tensor
    history_noise: Tensor
    keep_action: Tensor


def denoising_loss(
    denoiser: Denoiser, batch: SegmentBatch, config: ObjectiveConfig, generator: torch.Generator
) -> Losses:
    """Loss of one step. `batch` and `denoiser` on the same device, `generator` on the CPU; autocast is the caller's."""
    draw = _Draw(*(x.to(batch.latents.device) for x in _draw(batch, config, generator)))
    memory = corrupt(batch.history_latents, draw.history_sigma, config.history_noise, draw.history_noise)
    memory = memory * batch.history_mask[:, :, None, None, None]
    told = draw.history_sigma if config.history_noise.told else torch.zeros_like(draw.history_sigma)
    history = History(memory, batch.history_actions, batch.history_mask, batch.space)
    cache, past_routing = denoiser.remember(history, told)
    noisy = add_noise(batch.latents, draw.noise, draw.sigma)
    chunk = Chunk(noisy, memory[:, -1], batch.actions, batch.space, draw.keep_action, told)
    denoised = denoiser.denoise(chunk, draw.sigma, cache)
    flow = flow_loss(denoised.latents.float(), batch.latents, draw.sigma)
    balance = 0.5 * (balance_loss(past_routing) + balance_loss(denoised.routing))
    sketch = _sketch_loss(denoised.sketch, batch.latents, draw.keep_action)
    total = flow + config.balance * balance + config.sketch * sketch
    return Losses(total, *(x.detach() for x in (flow, balance, sketch)))


def _sketch_loss(sketch: Tensor | None, clean: Tensor, keep_action: Tensor) -> Tensor:
    """Mean squared error of the sketches of the chunks that were told their actions. Latents have unit variance."""
    if sketch is None:
        return clean.new_zeros(())
    return ((sketch.float() - clean).square() * keep_action[:, None, None, None, None]).mean()


def _draw(batch: SegmentBatch, config: ObjectiveConfig, generator: torch.Generator) -> _Draw:
    size = len(batch.latents)
    return _Draw(
        sample_sigmas(size, config.sigmas, generator),
        torch.randn(batch.latents.shape, generator=generator),
        sample_history_sigmas(size, config.history_noise, generator),
        torch.randn(batch.history_latents.shape, generator=generator),
        (torch.rand(size, generator=generator) >= config.action_dropout).float(),
    )
