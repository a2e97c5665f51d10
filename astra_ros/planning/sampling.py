"""What sampling planners share: the costs they minimise, noise over time, and the warm start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.types import FloatArray

# Plans (n, horizon, a) → costs (n,), smaller is better; NaN = worst. planning/evaluation.py makes one of a world model.
Costs = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Planned:
    """plan: (horizon, a), the best of the last iteration. cost: its own. history: best cost of every iteration.

    The best so far is evaluated again in every iteration: costs may change meanwhile, with the goal or the picture.
    """

    plan: FloatArray
    cost: float
    history: tuple[float, ...]


def require_sampling(noise_beta: float, max_step: float) -> None:
    """Raises ValueError."""
    if not 0 <= noise_beta <= 10:
        raise ValueError(f"noise_beta: expected 0 to 10, found {noise_beta:g}")
    if not 0 < max_step < np.inf:
        raise ValueError(f"max_step: expected more than 0 and finite, found {max_step:g}")


class Sampler:
    """Plans around a mean, inside the range that the model was trained on.

    noise_beta: exponent of the noise's power spectrum over the horizon, 0 to 10 (Pinneri et al. 2020, arXiv 2008.06389).
    0 = white noise; 2 = that of a random walk, which moves joints smoothly. The noise is periodic: its last row is as near to
    its first as neighbours are.
    max_step: largest change of a joint position from row to row, in delta_std of the action space. The first row is limited
    to the same change from `anchor` (a,), where the robot is.
    """

    def __init__(
        self, spec: ActionSpec, anchor: FloatArray, noise_beta: float, max_step: float, seed: int
    ) -> None:
        self._spec, self._anchor = spec, anchor.copy()
        self._beta = noise_beta
        self._max_step = max_step * np.array(spec.delta_std, np.float32)
        self._generator = np.random.default_rng(seed)
        self.half_range = ((np.array(spec.upper) - np.array(spec.lower)) / 2).astype(np.float32)

    def around(self, mean: FloatArray, std: FloatArray, count: int, best: FloatArray | None) -> FloatArray:
        """(count, horizon, a): the best plan so far if there is one, the mean itself, and samples. std: (horizon, a).

        The best so far comes first and unchanged. Of equal costs the first counts, so only a really better plan replaces it.
        """
        plans = mean + std * self._noise((count, *mean.shape))
        known = [mean] if best is None else [best, mean][:count]
        plans[: len(known)] = known
        return self._limited(self._spec.clip(plans.astype(np.float32)))

    def _limited(self, plans: FloatArray) -> FloatArray:
        """A robot that is told to jump follows as it can, and nothing like it was trained. Rates need no such limit."""
        if self._spec.representation == "joint_position":
            return limited(plans, self._anchor, self._max_step)
        return plans

    def _noise(self, shape: tuple[int, int, int]) -> FloatArray:
        """Of unit variance."""
        white = self._generator.standard_normal(shape, np.float32)
        if not self._beta or shape[1] == 1:
            return white
        frequencies = np.fft.rfftfreq(shape[1])
        frequencies[0] = frequencies[1]
        spectrum = np.fft.rfft(white, axis=1) * (frequencies ** (-self._beta / 2))[:, None]
        coloured = np.fft.irfft(spectrum, n=shape[1], axis=1)
        return (coloured / np.sqrt(np.square(coloured).mean())).astype(np.float32)


def limited(plans: FloatArray, anchor: FloatArray, max_step: FloatArray) -> FloatArray:
    """Plans (n, horizon, a) that change by max_step (a,) per row at most, the first row counted from anchor (a,).

    Where a plan changes faster than that, the limited one follows it as fast as it may.
    """
    rows, before = plans.copy(), np.broadcast_to(anchor, plans[:, 0].shape)
    for row in rows.swapaxes(0, 1):
        row[:] = np.clip(row, before - max_step, before + max_step)
        before = row
    return rows


def evaluated(costs: Costs, plans: FloatArray) -> FloatArray:
    """Costs (n,) of plans (n, horizon, a), NaN replaced by infinity. Raises ValueError unless there is one per plan."""
    found = np.asarray(costs(plans), np.float32)
    if found.shape != (len(plans),):
        raise ValueError(
            f"costs: expected one per plan, ({len(plans)},), found {found.shape}; mend the cost function"
        )
    return np.where(np.isnan(found), np.float32(np.inf), found)


def require_mean(mean: FloatArray, spec: ActionSpec) -> FloatArray:
    """Raises ValueError."""
    if mean.ndim != 2 or mean.shape[1] != spec.dim or not len(mean):
        raise ValueError(
            f"mean: expected (horizon, {spec.dim}) positions, found {mean.shape}; to start from rest, repeat the measured ones"
        )
    return np.asarray(mean, np.float32)


def shifted(plan: FloatArray, rows: int) -> FloatArray:
    """The plan (horizon, a) to start the next search from, `rows` rows later: the rest of it, its last row repeated."""
    rest = plan[min(rows, len(plan) - 1) :]
    return np.concatenate([rest, np.repeat(rest[-1:], len(plan) - len(rest), axis=0)])
