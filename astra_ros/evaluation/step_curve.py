"""What each number of denoising steps is worth, and how much of a teacher's quality a student keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from astra_ros.evaluation.intervals import Interval, bootstrap, bootstrap_ratio, per_episode
from astra_ros.evaluation.quality import PSNR, Metric
from astra_ros.evaluation.scenes import Predictor, Sampling, Scenes

NUM_STEPS = (1, 2, 4, 8, 16, 50)


@dataclass(frozen=True)
class StepPoint:
    """metrics: at the end of the scenes' horizon. kept: share of the teacher's PSNR."""

    num_steps: int
    metrics: dict[str, Interval]
    kept: Interval


def step_curve(
    model: Predictor,
    teacher: tuple[Predictor, int],
    scenes: Scenes,
    compare: dict[str, Metric],
    report: Callable[[str], None],
) -> tuple[tuple[StepPoint, ...], dict[str, Interval]]:
    """The model at every number of steps, and the teacher at its own. The same seed, so the same noise, for all."""
    last = (scenes.plan.shape[1] - 1,)
    happened = scenes.happened[:, -1]

    def measured(predictor: Predictor, num_steps: int) -> dict[str, np.ndarray]:
        report(f"steps: K = {num_steps}")
        frames = predictor.predict(scenes, scenes.plan, Sampling(num_steps=num_steps, frames=last))[:, 0]
        return {
            name: per_episode(metric(frames, happened), scenes.episodes) for name, metric in compare.items()
        }

    rng = np.random.default_rng(0)
    reference = measured(*teacher)
    points = []
    for num_steps in NUM_STEPS:
        own = measured(model, num_steps)
        kept = bootstrap_ratio(own[PSNR], reference[PSNR], rng)
        points.append(StepPoint(num_steps, {name: bootstrap(row, rng) for name, row in own.items()}, kept))
    return tuple(points), {name: bootstrap(row, rng) for name, row in reference.items()}
