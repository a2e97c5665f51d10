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
from astra_ros.training.draw import Draw


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


class Drawn(NamedTuple):
    """Everything random of a batch beside its segments."""

    sigma: Tensor
    noise: Tensor
    history_sigma: Tensor
    history_noise: Tensor
    keep_action: Tensor


def draw_for(batch: SegmentBatch, config: ObjectiveConfig, draw: Draw) -> Drawn:
    """What is random of a batch, on the draw's device: levels and masks are drawn on the CPU, noise there."""
    size = len(batch.latents)
    drawn = Drawn(
        sample_sigmas(size, config.sigmas, draw.torch),
        draw.normal(batch.latents.shape),
        sample_history_sigmas(size, config.history_noise, draw.torch),
        draw.normal(batch.history_latents.shape),
        (torch.rand(size, generator=draw.torch) >= config.action_dropout).float(),
    )
    return Drawn(*(values.to(draw.device) for values in drawn))


def denoising_loss(denoiser: Denoiser, batch: SegmentBatch, drawn: Drawn, config: ObjectiveConfig) -> Losses:
    """Loss of one step, all on one device. Nothing in it is random; autocast is the caller's."""
    memory = corrupt(batch.history_latents, drawn.history_sigma, config.history_noise, drawn.history_noise)
    memory = memory * batch.history_mask[:, :, None, None, None]
    told = drawn.history_sigma if config.history_noise.told else torch.zeros_like(drawn.history_sigma)
    history = History(memory, batch.history_actions, batch.history_mask, batch.space)
    cache, past_routing = denoiser.remember(history, told)
    noisy = add_noise(batch.latents, drawn.noise, drawn.sigma)
    chunk = Chunk(noisy, memory[:, -1], batch.actions, batch.space, drawn.keep_action, told)
    denoised = denoiser.denoise(chunk, drawn.sigma, cache)
    flow = flow_loss(denoised.latents.float(), batch.latents, drawn.sigma)
    balance = 0.5 * (balance_loss(past_routing) + balance_loss(denoised.routing))
    sketch = _sketch_loss(denoised.sketch, batch.latents, drawn.keep_action * batch.at_home)
    total = flow + config.balance * balance + config.sketch * sketch
    return Losses(total, *(x.detach() for x in (flow, balance, sketch)))


def _sketch_loss(sketch: Tensor | None, clean: Tensor, counts: Tensor) -> Tensor:
    """Mean squared error of the sketches that count: of chunks that were told their actions, and whose pictures follow from these.

    Latents have unit variance.
    """
    if sketch is None:
        return clean.new_zeros(())
    return ((sketch.float() - clean).square() * counts[:, None, None, None, None]).mean()
