"""How long a training run lasts, and the learning rate that follows."""

from __future__ import annotations

import math
from time import monotonic

WARMUP = 0.02


class Budget:
    """Ends after so many minutes or so many optimiser steps, whichever comes first.

    The learning rate warms up briefly and falls to zero along a cosine, so that the end is always a usable model.
    Minutes suit a machine that is given for a time; steps make a run repeatable.
    """

    def __init__(self, minutes: float, max_steps: int | None = None) -> None:
        self._seconds, self._max_steps = 60.0 * minutes, max_steps
        self._started, self._steps = monotonic(), 0

    def step(self) -> None:
        """One optimiser step is done."""
        self._steps += 1

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        in_time = (monotonic() - self._started) / self._seconds
        in_steps = self._steps / self._max_steps if self._max_steps else 0.0
        return min(1.0, max(in_time, in_steps))

    @property
    def is_spent(self) -> bool:
        """Nothing is left."""
        return self.progress >= 1.0

    def rate(self, peak: float) -> float:
        """Learning rate now."""
        done = self.progress
        if done < WARMUP:
            return peak * (done / WARMUP) + 1e-8
        return peak * 0.5 * (1.0 + math.cos(math.pi * (done - WARMUP) / (1.0 - WARMUP)))
