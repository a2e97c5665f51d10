"""Cross-entropy method that mixes given plans, for tasks where a free search would exploit a model's errors.

The plans come from someone who knows the task. The Gaussian is that of the elites, covariances included: joints that the
plans move together keep moving together, and a gripper that all of them close at one moment closes then. So what is tried
stays near what was trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.planning.sampling import Costs, Planned, evaluated
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class RefineConfig:
    """num_samples: plans per iteration. iterations: after a first one, the guesses themselves. num_elites: plans that are mixed."""

    num_samples: int = 32
    iterations: int = 5
    num_elites: int = 4

    def __post_init__(self) -> None:
        if self.iterations < 0 or not 2 <= self.num_elites <= self.num_samples:
            raise ValueError(
                "iterations, num_elites: expected iterations >= 0 and 2 <= num_elites <= num_samples ="
                f" {self.num_samples}, found {self.iterations}, {self.num_elites}"
            )


def refine(
    costs: Costs,
    guesses: FloatArray,
    spec: ActionSpec,
    config: RefineConfig = RefineConfig(),
    seed: int = 0,
    limit: Callable[[FloatArray], FloatArray] = lambda plans: plans,
) -> Planned:
    """The best plan among guesses (n, horizon, a), n ≥ 2, and mixtures of the best; never worse than the best guess.

    At every step each joint stays within the range of the guesses at that step. limit: what a plan must be beside that, such as slow
    enough (sampling.limited): mixtures (n, horizon, a) → plans that are; the guesses are already. Equal arguments give equal plans.
    Raises ValueError.
    """
    plans = _require_guesses(guesses, spec)
    generator = np.random.default_rng(seed)
    lowest, highest = plans.min(axis=0), plans.max(axis=0)
    found = evaluated(costs, plans)
    history = [float(found.min())]
    for _ in range(config.iterations):
        # What nobody evaluated is no elite.
        elites = plans[np.argsort(found, kind="stable")[: min(config.num_elites, np.isfinite(found).sum())]]
        if len(elites) < 2:
            break
        mixed = _like(elites, config.num_samples - 1, generator)
        plans = np.concatenate([elites[:1], limit(np.clip(mixed, lowest, highest))])
        found = evaluated(costs, plans)
        history.append(float(found.min()))
    return Planned(plans[int(np.argmin(found))].copy(), history[-1], tuple(history))


def _like(elites: FloatArray, count: int, generator: np.random.Generator) -> FloatArray:
    """(count, horizon, a): the elites' mean, and draws from a Gaussian of their mean and covariance."""
    mean = elites.mean(axis=0)
    weights = generator.standard_normal((count, len(elites)), np.float32) / np.sqrt(
        np.float32(len(elites) - 1)
    )
    weights[0] = 0
    return mean + np.tensordot(weights, elites - mean, axes=1)


def _require_guesses(guesses: FloatArray, spec: ActionSpec) -> FloatArray:
    """Inside the trained range. Raises ValueError."""
    if guesses.ndim != 3 or guesses.shape[2] != spec.dim or len(guesses) < 2 or not guesses.shape[1]:
        raise ValueError(
            f"guesses: expected (n, horizon, {spec.dim}) positions of two plans or more, found {guesses.shape}; to search"
            " around one plan, see planning.cem"
        )
    return spec.clip(np.asarray(guesses, np.float32))
