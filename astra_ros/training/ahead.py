"""Segments drawn ahead by other processes, for a device that would wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from astra_ros.data.segments import SegmentBatch, SegmentSampler
from astra_ros.training.draw import Draw

AHEAD = 3  # micro-batches that every process has ready


class SegmentStream:
    """Segments of one micro-batch after the other, drawn ahead by `workers` processes, or in place if there are none.

    They are the same to the bit: they follow from the draw alone.
    """

    def __init__(self, segments: SegmentSampler, workers: int) -> None:
        self._segments, self._workers = segments, workers
        self._coming: Any = None  # the DataLoader's iterator, while segments are drawn ahead

    @contextmanager
    def ahead(self, draws: Iterable[Draw], batch: int) -> Iterator[None]:
        """Within, `draw` is called for these draws, in this order; the processes end with it."""
        if self._workers == 0:
            yield
            return
        self._coming = iter(
            DataLoader(
                _Segments(self._segments, batch),
                batch_size=None,
                sampler=draws,
                num_workers=self._workers,
                prefetch_factor=AHEAD,
                pin_memory=torch.cuda.is_available(),
                generator=torch.Generator(),  # else it would take from the one that all share
            )
        )
        try:
            yield
        finally:  # now, not when the iterator is freed: a traceback may keep it
            self._coming._shutdown_workers()  # noqa: SLF001 (there is no public way)
            self._coming = None

    def draw(self, batch: int, draw: Draw) -> SegmentBatch:
        """On the CPU."""
        if self._coming is None:
            return self._segments.draw(batch, draw.numpy)
        return SegmentBatch(*next(self._coming))


class _Segments(Dataset[tuple[Tensor, ...]]):
    """Micro-batches by their draws. Tensors, not a SegmentBatch: these the DataLoader pins."""

    def __init__(self, segments: SegmentSampler, batch: int) -> None:
        self._segments, self._batch = segments, batch

    def __getitem__(self, draw: Draw) -> tuple[Tensor, ...]:
        return self._segments.draw(self._batch, draw.numpy).tensors
