"""Randomness of training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Generator, Tensor, randn


class Draw:
    """What is random of one micro-batch: `numpy` chooses data, `torch` levels and masks, both on the CPU; `normal` is noise.

    All follows from (seed, step, part) and the kind of `device`. So an interrupted run needs no generator states to go
    on exactly, a batch spread over processes is the batch of one process, and another process may draw ahead: a draw
    can be sent to it. A seed means the same data everywhere. Levels, masks and noise are the same on every CPU, and on
    every GPU of one kind: there noise is drawn on the device.
    """

    def __init__(self, seed: tuple[int, ...], step: int, part: int, device: str = "cpu") -> None:
        self.device = device
        self._data, self._noise = np.random.SeedSequence((*seed, step, part)).spawn(2)

    @cached_property
    def numpy(self) -> np.random.Generator:
        return np.random.default_rng(self._data)

    @cached_property
    def torch(self) -> Generator:
        return self._generator("cpu")

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal noise on the device; on a CPU the next of `torch`."""
        return randn(shape, generator=self._normal, device=self.device)

    @cached_property
    def _normal(self) -> Generator:
        return self.torch if self.device == "cpu" else self._generator(self.device)

    def _generator(self, device: str) -> Generator:
        return Generator(device).manual_seed(int(self._noise.generate_state(1)[0]))
