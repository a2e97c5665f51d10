"""Can the plan be read off the predicted pictures? Judged by an inverse-dynamics model that knows only real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.evaluation.intervals import Interval, Values, bootstrap_statistic, by_episode, wilson
from astra_ros.evaluation.movements import active_dims, movement_names, movement_units, movements, opposite
from astra_ros.evaluation.scenes import Predictor, Sampling, Scenes, UnsuitableDataError
from astra_ros.types import ByteArray, FloatArray

# A counterfactual is judged where plan and opposite differ at least this share as much as they typically do.
MIN_CONTRAST = 0.5
# R² on real pictures from which on a dimension counts in a counterfactual.
MIN_READABLE = 0.5


@dataclass(frozen=True)
class Recovery:
    """R² of the movement, as executed on command, that is recovered from pictures, over all moments and steps.

    predicted: from the model's pictures; real: from what happened (after the codec), the ceiling; copied: from the
    observed frame repeated. by_dimension: of the active dimensions, (predicted, real).
    """

    predicted: Interval
    real: Interval
    copied: Interval
    by_dimension: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Counterfactual:
    """Share of moments in which the opposite plan, from the same history and noise, changes the pictures the right way.

    share: mean over seeds, with Wilson's interval over moments. judged: moments; alike: left out because plan and opposite
    hardly differ.
    """

    share: Interval
    judged: int
    alike: int


class MovementReader(Protocol):
    """An inverse-dynamics model."""

    def recover(self, spec: ActionSpec, observed: ByteArray, frames: ByteArray) -> FloatArray:
        """observed (b, h, w, 3), frames (b, t, h, w, 3) uint8 → movements (b, t, m), as `movements` defines them."""


@dataclass(frozen=True)
class Judge:
    """Who reads the movements of one action space off pictures."""

    spec: ActionSpec
    network: MovementReader

    def recover(self, observed: ByteArray, frames: ByteArray) -> FloatArray:
        """observed (b, h, w, 3) after the codec, frames (b, t, h, w, 3) → movements (b, t, m)."""
        return self.network.recover(self.spec, observed, frames)


def recovery(model: Predictor, judge: Judge, scenes: Scenes, seeds: Sequence[int]) -> Recovery:
    """How much of what was commanded the pictures show. Raises UnsuitableDataError when no plan moves anything."""
    truth, observed = _Truth.of(judge.spec, scenes), _observed(model, scenes)
    drawn = {
        "predicted": [model.predict(scenes, scenes.plan, Sampling(seed)) for seed in seeds],
        "real": [model.reconstruct(scenes.latents)],
        "copied": [np.broadcast_to(observed[:, None], scenes.happened.shape)],
    }
    rows = {
        name: np.mean([truth.errors(judge.recover(observed, frames)) for frames in series], axis=0)
        for name, series in drawn.items()
    }
    each = np.round([_r_squared(rows[name].mean(axis=0)) for name in ("predicted", "real")], 4).T.tolist()
    return Recovery(
        **{
            name: bootstrap_statistic(row, _mean_r_squared, np.random.default_rng(0))
            for name, row in rows.items()
        },
        by_dimension={name: (own, real) for name, (own, real) in zip(truth.names, each, strict=True)},
    )


def counterfactual(model: Predictor, judge: Judge, scenes: Scenes, seeds: Sequence[int]) -> Counterfactual:
    """Opposite plans (`movements.opposite`) from the same history and noise.

    Right: the recovered change of movement points the same way as the commanded one, over all steps and over the
    dimensions that the judge reads off real pictures, each divided by its spread. Raises UnsuitableDataError when
    there is none, or no plan differs from its opposite.
    """
    spec, last, observed = judge.spec, scenes.last_action, _observed(model, scenes)
    contrary = opposite(spec, scenes.plan, last)
    wanted = movements(spec, scenes.plan, last) - movements(spec, contrary, last)
    readable = _readable(judge, scenes, observed, model.reconstruct(scenes.latents))
    spread = np.sqrt((wanted**2).mean(axis=(0, 1))) + 1e-9
    size = np.sqrt(((wanted / spread)[..., readable] ** 2).mean(axis=(1, 2)))
    if not size.any():
        raise UnsuitableDataError(
            f"{spec.space}: expected plans that differ readably from their opposites, found none"
        )
    judged = size >= MIN_CONTRAST * np.sqrt((size**2).mean())
    right = np.zeros(len(scenes))
    for seed in seeds:
        ahead, back = (
            judge.recover(observed, model.predict(scenes, plan, Sampling(seed)))
            for plan in (scenes.plan, contrary)
        )
        agreement = ((ahead - back) * wanted / spread**2)[..., readable].sum(axis=(1, 2))
        right += agreement > 0
    moments = int(judged.sum())
    # Not resampled: of shares of 0 and 1, which are common here, that would make intervals without width.
    share = wilson(float(right[judged].sum()) / len(seeds), moments)
    return Counterfactual(share, moments, len(scenes) - moments)


@dataclass(frozen=True)
class _Truth:
    """Executed movements (b, t, m), of active dimensions (all,) True; names: of the m."""

    moved: FloatArray
    active: np.ndarray
    names: tuple[str, ...]
    episodes: tuple[str, ...]

    @classmethod
    def of(cls, spec: ActionSpec, scenes: Scenes) -> _Truth:
        moved = movements(spec, scenes.executed, scenes.last_action)
        active = active_dims(moved.reshape(-1, moved.shape[-1]), movement_units(spec))
        if not active.any():
            raise UnsuitableDataError(f"{spec.space}: expected plans that move something, found none")
        names = tuple(name for name, use in zip(movement_names(spec), active, strict=True) if use)
        return cls(moved[..., active], active, names, scenes.episodes)

    def errors(self, recovered: FloatArray) -> Values:
        """Per episode: number of movements, and the squared error of every dimension over its variance; (e, 1 + m).

        The variance is that of all moments together, so that a resampled episode does not change the scale.
        """
        variance = self.moved.reshape(-1, self.moved.shape[-1]).var(axis=0)
        squared = (recovered[..., self.active] - self.moved) ** 2 / variance
        counts = np.full((len(squared), 1), float(squared.shape[1]))
        rows = np.concatenate([counts, squared.sum(axis=1, dtype=np.float64)], axis=1)
        return np.stack([rows[own].sum(axis=0) for own in by_episode(self.episodes)])


def _readable(judge: Judge, scenes: Scenes, observed: ByteArray, real: ByteArray) -> np.ndarray:
    """(all dimensions,) True where the judge is right about what happened."""
    truth = _Truth.of(judge.spec, scenes)
    readable = truth.active.copy()
    readable[readable] = _r_squared(truth.errors(judge.recover(observed, real)).mean(axis=0)) >= MIN_READABLE
    if not readable.any():
        raise UnsuitableDataError(
            f"{judge.spec.space}: expected movements that the judge reads off real pictures (R² of {MIN_READABLE}), "
            "found none; train it longer (--judge-steps)"
        )
    return readable


def _observed(model: Predictor, scenes: Scenes) -> ByteArray:
    """(b, h, w, 3): the observed frames as the codec shows them."""
    return model.reconstruct(scenes.history.latents[:, -1:])[:, 0]


def _r_squared(errors: Values) -> Values:
    """(..., 1 + m) → (..., m)."""
    return 1.0 - errors[..., 1:] / errors[..., :1]


def _mean_r_squared(errors: Values) -> Values:
    return _r_squared(errors).mean(axis=-1)
