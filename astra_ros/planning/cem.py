"""Cross-entropy method over action sequences (Rubinstein 1999): sample, keep the elites, fit, repeat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.planning.sampling import Costs, Planned, Sampler, evaluated, require_mean, require_sampling
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class CemConfig:
    """num_samples: plans per iteration. num_elites: the best of them, to which the next mean and deviation are fitted.

    momentum: share of the old mean and deviation that is kept. initial_std, min_std: in halves of each action's trained range.
    noise_beta, max_step: see Sampler.
    """

    num_samples: int = 64
    iterations: int = 5
    num_elites: int = 8
    momentum: float = 0.1
    initial_std: float = 0.3
    min_std: float = 0.01
    noise_beta: float = 2.0
    max_step: float = 1.5

    def __post_init__(self) -> None:
        if self.iterations < 1 or not 1 <= self.num_elites <= self.num_samples:
            raise ValueError(
                "iterations, num_elites: expected iterations >= 1 and 1 <= num_elites <= num_samples ="
                f" {self.num_samples}, found {self.iterations}, {self.num_elites}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected 0 <= momentum < 1, found {self.momentum:g}")
        if not 0 < self.min_std <= self.initial_std:
            raise ValueError(
                f"min_std, initial_std: expected 0 < min_std <= initial_std, found {self.min_std:g}, {self.initial_std:g}"
            )
        require_sampling(self.noise_beta, self.max_step)


def cem(
    costs: Costs,
    mean: FloatArray,
    spec: ActionSpec,
    config: CemConfig = CemConfig(),
    seed: int = 0,
    anchor: FloatArray | None = None,
) -> Planned:
    """The best plan found from a first guess (horizon, a), never a worse one than that.

    mean: the measured positions repeated, or the last plan after `shifted`. anchor: (a,) positions that the first row is at
    most max_step away from; None: the guess's own first row. Equal arguments give equal plans.
    """
    mean = require_mean(mean, spec)
    sampler = Sampler(spec, mean[0] if anchor is None else anchor, config.noise_beta, config.max_step, seed)
    std = np.tile(np.float32(config.initial_std) * sampler.half_range, (len(mean), 1))
    best, history = mean, []
    for iteration in range(config.iterations):
        plans = sampler.around(mean, std, config.num_samples, best if iteration else None)
        found = evaluated(costs, plans)
        order = np.argsort(found, kind="stable")
        best = plans[order[0]].copy()
        # What nobody evaluated is no elite, where fewer were than there should be elites.
        elites = plans[order[: min(config.num_elites, max(1, np.isfinite(found).sum()))]]
        mean = config.momentum * mean + (1 - config.momentum) * elites.mean(axis=0)
        fitted = config.momentum * std + (1 - config.momentum) * elites.std(axis=0)
        std = np.maximum(fitted, config.min_std * sampler.half_range)
        history.append(float(found[order[0]]))
    return Planned(best, history[-1], tuple(history))
