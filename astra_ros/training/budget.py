"""A training run is given minutes, not steps: it always ends with a usable model."""

from __future__ import annotations

import math
from time import monotonic


class Budget:
    """Wall-clock budget and the learning-rate schedule that follows it: short warm-up, cosine to zero."""

    def __init__(self, minutes: float, warmup: float = 0.02) -> None:
        self.seconds, self.warmup = 60.0 * minutes, warmup
        self._started = monotonic()

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        return min(1.0, (monotonic() - self._started) / self.seconds)

    @property
    def is_spent(self) -> bool:
        return self.progress >= 1.0

    def rate(self, peak: float) -> float:
        """Learning rate now."""
        done = self.progress
        if done < self.warmup:
            return peak * done / self.warmup + 1e-8
        return peak * 0.5 * (1.0 + math.cos(math.pi * (done - self.warmup) / (1.0 - self.warmup)))
