"""A memory that ends in what the model itself predicted, as in every chunk of a rollout but the first.

A model that is trained on recorded memories alone never sees its own mistakes, which a rollout hands on from chunk to chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from astra_ros.data.segments import SegmentBatch
from astra_ros.denoiser.dit import Denoiser
from astra_ros.training.config import OptimisationConfig
from astra_ros.training.integration import integrate
from astra_ros.training.trainer import parts_of


def require_whole_share(own: float, training: OptimisationConfig, processes: int) -> None:
    """Raise ValueError unless `own`, a share, is a whole number of one micro-batch's segments: each micro-batch is drawn alone."""
    parts = parts_of(training, processes)
    drawn = training.batch // parts
    rows = own * drawn
    # A third of six is two, though 0.3333 of them is a bit less.
    if math.isclose(rows, round(rows), rel_tol=1e-4):
        return
    nearest, least = max(1, round(rows)) / drawn, parts * Fraction(own).limit_denominator(10_000).denominator
    raise ValueError(
        f"segments.own: expected a whole number of a micro-batch's {drawn} segments, found {own:g} of them = {rows:g}; set"
        f" segments.own={nearest:g}, or training.batch to a multiple of {least}"
    )


def with_own_chunk(
    denoiser: Denoiser, segments: SegmentBatch, earlier: SegmentBatch, noise: Tensor, sigmas: Sequence[float]
) -> SegmentBatch:
    """The segments, with what the denoiser predicts from `earlier` as the newest remembered frames of the first ones.

    earlier: the first segments, a chunk earlier. noise: of the shape of earlier.latents. sigmas: noise levels, falling to 0.
    Segments whose earlier memory is empty stay as recorded. No gradient flows through the prediction.
    """
    rows, length = noise.shape[:2]
    if rows == 0:
        return segments
    with torch.no_grad():
        own = integrate(denoiser, earlier, noise, sigmas)
    recorded = segments.history_latents[:rows, -length:]
    has_earlier = earlier.history_mask[:, -1] > 0
    newest = torch.where(has_earlier.view(-1, 1, 1, 1, 1), own.to(recorded), recorded)
    remembered = torch.cat([segments.history_latents[:rows, :-length], newest], dim=1)
    return replace(segments, history_latents=torch.cat([remembered, segments.history_latents[rows:]]))
