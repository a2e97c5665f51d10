"""Train the denoiser by flow matching on latent segments."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from torch import Tensor

from astra_ros.data.segments import SegmentSampler
from astra_ros.denoiser.dit import Denoiser
from astra_ros.training.ahead import SegmentStream
from astra_ros.training.draw import Draw
from astra_ros.training.objective import ObjectiveConfig, denoising_loss
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

    def forward(self, draw: Draw, batch: int) -> dict[str, Tensor]:
        segments = self._segments.draw(batch, draw).to(self.model.position.device)
        losses = denoising_loss(self.model, segments, self._config, draw)
        return {"loss": losses.total, "flow": losses.flow, "balance": losses.balance, "sketch": losses.sketch}
