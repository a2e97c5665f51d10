"""Long rollouts: how much worse a prediction gets with time beyond what the scene itself changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astra_ros.evaluation.intervals import Interval, Values, bootstrap, per_episode
from astra_ros.evaluation.metrics import colour, psnr, sharpness
from astra_ros.evaluation.scenes import HeldOutData, Predictor, Sampling, UnsuitableDataError

SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0)


@dataclass(frozen=True)
class DriftPoint:
    """At one time of the rollout.

    drift_db: what the prediction's PSNR fell since the first time, less what copy-last's PSNR fell over the same span.
    A model that stays as far ahead of copying the observed frame as it was after one second has none. Against the real
    frames of that time: colour_shift, difference of the mean colour, grey levels (mean over channels); contrast_ratio,
    of the standard deviation; sharpness_ratio, of the Laplacian's energy (1: as sharp; less: blurred).
    """

    seconds: float
    predicted_db: Interval
    copy_last_db: Interval
    drift_db: Interval
    colour_shift: Interval
    contrast_ratio: Interval
    sharpness_ratio: Interval


def drift(
    model: Predictor, data: HeldOutData, seconds: Sequence[float], count: int, seed: int
) -> tuple[DriftPoint, ...]:
    """Drift at each time, as far as half of the recordings go. Raises UnsuitableDataError when none goes beyond the first."""
    reach = data.longest_horizon()
    steps = [step for step in (round(s * data.second) for s in seconds) if step <= reach]
    if len(steps) < 2:
        raise UnsuitableDataError(
            f"{data.name}: expected recordings longer than {seconds[1] + 1:g} s, found {reach / data.second:.1f} s"
        )
    scenes = data.scenes(steps[-1], count)
    frames = tuple(step - 1 for step in steps)
    predicted = model.predict(scenes, scenes.plan, Sampling(seed, frames=frames))
    happened = scenes.happened[:, frames]
    copies = np.broadcast_to(scenes.observed[:, None], happened.shape)
    own, copied = psnr(predicted, happened), psnr(copies, happened)
    (mean, spread), (real_mean, real_spread) = colour(predicted), colour(happened)
    values: dict[str, Values] = {
        "predicted_db": own,
        "copy_last_db": copied,
        "drift_db": (own[:, :1] - own) - (copied[:, :1] - copied),
        "colour_shift": np.abs(mean - real_mean).mean(axis=-1),
        "contrast_ratio": (spread / np.maximum(real_spread, 1.0)).mean(axis=-1),
        "sharpness_ratio": sharpness(predicted) / np.maximum(sharpness(happened), 1.0),
    }
    rng = np.random.default_rng(0)
    rows = {name: per_episode(value, scenes.episodes) for name, value in values.items()}
    return tuple(
        DriftPoint(step / data.second, **{name: bootstrap(row[:, k], rng) for name, row in rows.items()})
        for k, step in enumerate(steps)
    )
