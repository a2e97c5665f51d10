"""Model predictive path integral control (Williams et al. 2017, arXiv 1509.01149) over action sequences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.planning.sampling import Costs, Planned, Sampler, evaluated, require_mean, require_sampling
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class MppiConfig:
    """num_samples: plans per iteration. std: in halves of each action's trained range. noise_beta, max_step: see Sampler.

    temperature: of the weights exp(-cost / temperature), in standard deviations of an iteration's costs, so that it does
    not depend on their unit. momentum: share of the old mean.
    """

    num_samples: int = 64
    iterations: int = 3
    temperature: float = 0.3
    std: float = 0.2
    momentum: float = 0.0
    noise_beta: float = 2.0
    max_step: float = 1.5

    def __post_init__(self) -> None:
        for name in ("num_samples", "iterations", "temperature", "std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, found {getattr(self, name):g}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected 0 <= momentum < 1, found {self.momentum:g}")
        require_sampling(self.noise_beta, self.max_step)


def mppi(
    costs: Costs,
    mean: FloatArray,
    spec: ActionSpec,
    config: MppiConfig = MppiConfig(),
    seed: int = 0,
    anchor: FloatArray | None = None,
) -> Planned:
    """The best plan found from a first guess (horizon, a), never a worse one than that; the last mean is evaluated too.

    mean: the measured positions repeated, or the last plan after `shifted`. anchor: (a,) positions that the first row is at
    most max_step away from; None: the guess's own first row. Equal arguments give equal plans.
    """
    mean = require_mean(mean, spec)
    sampler = Sampler(spec, mean[0] if anchor is None else anchor, config.noise_beta, config.max_step, seed)
    std = np.tile(np.float32(config.std) * sampler.half_range, (len(mean), 1))
    best, history = mean, []
    for iteration in range(config.iterations):
        plans = sampler.around(mean, std, config.num_samples, best if iteration else None)
        found = evaluated(costs, plans)
        best = plans[int(np.argmin(found))].copy()
        history.append(float(found.min()))
        weights = _weights(found, config.temperature)
        mean = config.momentum * mean + (1 - config.momentum) * np.tensordot(weights, plans, axes=1)
    plans = sampler.around(mean, std, 2, best)
    found = evaluated(costs, plans)
    history.append(float(found.min()))
    return Planned(plans[int(np.argmin(found))].copy(), history[-1], tuple(history))


def _weights(costs: FloatArray, temperature: float) -> FloatArray:
    """(n,), their sum 1; equal ones when no cost is finite."""
    finite = np.isfinite(costs)
    if not finite.any():
        return np.full(len(costs), 1 / len(costs), np.float32)
    spread = costs[finite].std() or np.float32(1)
    weights = np.where(finite, np.exp(-(costs - costs[finite].min()) / (temperature * spread)), 0)
    return weights / weights.sum()
