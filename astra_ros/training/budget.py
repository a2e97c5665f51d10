"""How long a training stage lasts, and the learning rate that follows."""

from __future__ import annotations

import math
from time import monotonic


class Budget:
    """Ends after so many optimiser steps if given, else after so many minutes.

    The learning rate warms up briefly and falls to zero along a cosine, so that the end is always a usable model.
    Minutes suit a machine that is given for a time; steps make a run repeatable.
    warmup: share of the budget.
    """

    def __init__(self, minutes: float, max_steps: int | None, warmup: float) -> None:
        self.minutes, self._max_steps, self._warmup = minutes, max_steps, warmup
        self._started = monotonic()
        self.steps = 0

    def resume(self, steps: int, elapsed_s: float, minutes: float) -> None:
        """Count what an interrupted run has spent, of the minutes that it had."""
        self.steps, self._started, self.minutes = steps, monotonic() - elapsed_s, minutes

    def step(self) -> None:
        """One optimiser step is done."""
        self.steps += 1

    @property
    def elapsed_s(self) -> float:
        return monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        spent = self.steps / self._max_steps if self._max_steps else self.elapsed_s / (60.0 * self.minutes)
        return min(1.0, spent)

    def rate(self, progress: float) -> float:
        """Learning rate at this share of the budget, relative to the peak."""
        if progress < self._warmup:
            return progress / self._warmup + 1e-6
        return 0.5 * (1.0 + math.cos(math.pi * (progress - self._warmup) / (1.0 - self._warmup)))
