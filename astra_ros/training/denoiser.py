"""Train the denoiser by flow matching on latent segments."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from torch import Tensor

from astra_ros.data.segments import SEGMENT_TENSORS, SegmentBatch, SegmentSampler
from astra_ros.denoiser.dit import Denoiser
from astra_ros.training.ahead import SegmentStream
from astra_ros.training.draw import Draw
from astra_ros.training.objective import Drawn, ObjectiveConfig, denoising_loss, draw_for
from astra_ros.training.own_memory import with_own_chunk
from astra_ros.training.trainer import TrainingStep


class DenoiserStep(TrainingStep):
    """Denoise the chunk that followed. workers: processes that draw segments ahead; with none they are drawn in place."""

    model: Denoiser

    def __init__(
        self, denoiser: Denoiser, segments: SegmentSampler, config: ObjectiveConfig, workers: int = 0
    ) -> None:
        super().__init__(denoiser)
        self._segments, self._config = SegmentStream(segments, workers), config

    def preparing(self, draws: Iterable[Draw], batch: int) -> AbstractContextManager[None]:
        return self._segments.ahead(draws, batch)

    def inputs(self, draw: Draw, batch: int) -> tuple[Tensor, ...]:
        segments, earlier = self._segments.draw(batch, draw).to(draw.device).split(batch)
        drawn = draw_for(segments, self._config, draw)
        return (*segments.tensors, *earlier.tensors, *drawn, draw.normal(earlier.latents.shape))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        segments, earlier = (
            SegmentBatch(*inputs[start : start + SEGMENT_TENSORS]) for start in (0, SEGMENT_TENSORS)
        )
        *drawn, noise = inputs[2 * SEGMENT_TENSORS :]
        levels = (*self._config.sigmas.served, 0.0)
        segments = with_own_chunk(self.model, segments, earlier, noise, levels)
        losses = denoising_loss(self.model, segments, Drawn(*drawn), self._config)
        return {"loss": losses.total, "flow": losses.flow, "balance": losses.balance, "sketch": losses.sketch}
