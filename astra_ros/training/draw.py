"""Randomness of training."""

from __future__ import annotations

import numpy as np
import torch


class Draw:
    """Random streams of one micro-batch: `numpy` chooses data, `torch` makes noise (on the CPU: alike everywhere).

    They follow from (seed, step, part) alone. So an interrupted run needs no generator states to go on exactly, and
    a batch spread over processes is the batch of one process.
    """

    def __init__(self, seed: tuple[int, ...], step: int, part: int) -> None:
        data, noise = np.random.SeedSequence((*seed, step, part)).spawn(2)
        self.numpy = np.random.default_rng(data)
        self.torch = torch.Generator().manual_seed(int(noise.generate_state(1)[0]))
