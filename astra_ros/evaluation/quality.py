"""How close predictions are to what happened, beside what could be said without a model and what the codec allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from astra_ros.evaluation.intervals import Interval, Values, bootstrap, bootstrap_ratio, per_episode
from astra_ros.evaluation.metrics import psnr
from astra_ros.evaluation.scenes import Predictor, Sampling, Scenes
from astra_ros.evaluation.similarity import PerceptualDistance, ssim
from astra_ros.types import ByteArray, FloatArray

Metric = Callable[[ByteArray, ByteArray], FloatArray]
PSNR = "psnr_db"


@dataclass(frozen=True)
class Quality:
    """At one time of the horizon.

    metrics: of each, the mean of every series. predicted: by the model, mean over seeds. history_only: by its
    action-free branch, which knows the past but not the plan. copy_last: the observed frame. ceiling: what happened,
    after the codec alone. gain_db: predicted less copy_last, PSNR; share_of_possible: that gain over the ceiling's, None
    where the codec alone is no better than copying. moments: judged, of so many episodes.
    """

    seconds: float
    moments: int
    episodes: int
    metrics: dict[str, dict[str, Interval]]
    gain_db: Interval
    gain_over_history_only_db: Interval
    share_of_possible: Interval | None


def metrics(perceptual: PerceptualDistance | None) -> dict[str, Metric]:
    """What pictures are compared by; the perceptual distance only where its weights are installed."""
    known: dict[str, Metric] = {PSNR: psnr, "ssim": ssim}
    return known if perceptual is None else {**known, perceptual.name: perceptual}


def quality(
    model: Predictor,
    scenes: Scenes,
    steps: Sequence[int],
    seeds: Sequence[int],
    compare: dict[str, Metric],
    step_dt: float,
) -> tuple[Quality, ...]:
    """Quality at each of `steps` (1 = the first predicted frame). History-only predictions use the first seed."""
    frames = tuple(step - 1 for step in steps)
    happened = scenes.happened[:, frames]
    served = [Sampling(seed, frames=frames) for seed in seeds]
    pictures = {
        "predicted": [model.predict(scenes, scenes.plan, sampling) for sampling in served],
        "history_only": [model.predict(scenes, scenes.plan, replace(served[0], guidance=0.0))],
        "copy_last": [np.broadcast_to(scenes.observed[:, None], happened.shape)],
        "ceiling": [model.reconstruct(scenes.latents[:, frames])],
    }
    measured = {
        name: {
            series: _measured(metric, drawn, happened, scenes.episodes) for series, drawn in pictures.items()
        }
        for name, metric in compare.items()
    }
    return tuple(_at(k, step * step_dt, len(scenes), measured) for k, step in enumerate(steps))


def _measured(
    metric: Metric, drawn: Sequence[ByteArray], happened: ByteArray, episodes: Sequence[str]
) -> Values:
    """(episodes, steps), mean over seeds and the moments of an episode."""
    flat = happened.reshape(-1, *happened.shape[2:])
    values = [metric(one.reshape(flat.shape), flat).reshape(happened.shape[:2]) for one in drawn]
    return per_episode(np.mean(values, axis=0), episodes)


def _at(k: int, seconds: float, moments: int, measured: dict[str, dict[str, Values]]) -> Quality:
    rng = np.random.default_rng(0)
    intervals = {
        name: {series: bootstrap(values[:, k], rng) for series, values in table.items()}
        for name, table in measured.items()
    }
    db = {series: values[:, k] for series, values in measured[PSNR].items()}
    gain, possible = db["predicted"] - db["copy_last"], db["ceiling"] - db["copy_last"]
    return Quality(
        seconds=round(seconds, 6),
        moments=moments,
        episodes=len(gain),
        metrics=intervals,
        gain_db=bootstrap(gain, rng),
        gain_over_history_only_db=bootstrap(db["predicted"] - db["history_only"], rng),
        share_of_possible=bootstrap_ratio(gain, possible, rng) if possible.mean() > 0 else None,
    )
