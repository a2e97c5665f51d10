"""How well a bundle predicts recordings that it was not trained on, through the run-time path that a robot uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from astra_ros.data.episode import Episode
from astra_ros.evaluation.intervals import Interval, bootstrap_columns, per_episode
from astra_ros.evaluation.machine import describe_machine
from astra_ros.evaluation.metrics import psnr
from astra_ros.evaluation.reliving import long_enough, plans_of, relived
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import FloatArray

SERIES = ("predicted", "other_actions", "copy_last", "ceiling")


@dataclass(frozen=True)
class EvaluationConfig:
    """horizon: frames. every: camera frames between two predictions. seed: of the model's noise and the resampling."""

    horizon: int = 10
    every: int = 5
    seed: int = 0


@dataclass(frozen=True)
class HeldOutQuality:
    """PSNR per horizon step against what really happened, dB; 95 % intervals over episodes.

    other_actions: predicted for the actions of another moment of the recording, of those that have two (none: empty); the
    further below `predicted`, the more the actions are obeyed. ceiling: what happened, after the codec alone.
    backend: what computed it.
    """

    model_id: str
    backend: str
    step_dt: float
    episodes: tuple[str, ...]
    predictions: int
    predicted: tuple[Interval, ...]
    other_actions: tuple[Interval, ...]
    copy_last: tuple[Interval, ...]
    ceiling: tuple[Interval, ...]
    gain: tuple[Interval, ...]

    def to_json(self) -> dict[str, Any]:
        """With the machine it was measured on."""
        return {**asdict(self), "machine": describe_machine()}

    def table(self) -> str:
        """Markdown."""
        lines = [
            "| horizon | predicted | copy last | gain | other actions | codec ceiling |",
            "|---|---|---|---|---|---|",
        ]
        others = [f"{other.mean:.2f} dB" for other in self.other_actions] or [""] * len(self.predicted)
        rows = zip(self.predicted, self.copy_last, self.gain, others, self.ceiling, strict=True)
        for k, (predicted, copy, gain, other, ceiling) in enumerate(rows, 1):
            lines.append(
                f"| +{k * self.step_dt:.1f} s | {predicted.mean:.2f} dB | {copy.mean:.2f} dB "
                f"| {gain.text('+.2f')} dB | {other} | {ceiling.mean:.2f} dB |"
            )
        return "\n".join(lines)


def evaluate(
    world_model: WorldModel,
    episodes: Sequence[Episode],
    config: EvaluationConfig,
    on_episode: Callable[[str], None] = lambda name: None,
    on_skip: Callable[[str], None] = lambda why: None,
) -> HeldOutQuality:
    """Predict from many moments of every episode that is long enough. Raises ValueError when none is."""
    names, tables = [], []
    for episode in long_enough(episodes, world_model.manifest, config.horizon, on_skip):
        names.append(episode.name)
        tables.append(_evaluate_episode(world_model, episode, config))
        on_episode(episode.name)
    means = {series: _means(series, tables, names) for series in SERIES}
    means["gain"] = means["predicted"] - means["copy_last"]
    rng = np.random.default_rng(config.seed)
    return HeldOutQuality(
        model_id=world_model.manifest.model_id,
        backend=world_model.backend.description,
        step_dt=world_model.manifest.action.step_dt,
        episodes=tuple(names),
        predictions=sum(len(table["predicted"]) for table in tables),
        **{name: bootstrap_columns(values, rng) for name, values in means.items()},
    )


def _evaluate_episode(
    world_model: WorldModel, episode: Episode, config: EvaluationConfig
) -> dict[str, FloatArray]:
    """(predictions, horizon) PSNR of each series; of one prediction alone no other actions are known."""
    rows: dict[str, list[FloatArray]] = {name: [] for name in SERIES}
    plans = plans_of(world_model.manifest, episode, config.horizon, config.every)
    others = np.roll(plans, -(len(plans) // 2), axis=0)
    for moment, other in zip(
        relived(world_model, episode, config.horizon, config.every), others, strict=True
    ):
        pictures = {
            "predicted": world_model.predict(moment.t0_ns, moment.plan, config.seed).frames,
            "other_actions": world_model.predict(moment.t0_ns, other, config.seed).frames,
            "copy_last": np.broadcast_to(moment.pixels, moment.happened.shape),
            "ceiling": world_model.reconstruct(moment.happened),
        }
        for name, frames in pictures.items():
            rows[name].append(psnr(frames, moment.happened))
    if len(plans) < 2:
        del rows["other_actions"]
    return {name: np.stack(values) for name, values in rows.items()}


def _means(
    series: str, tables: Sequence[Mapping[str, FloatArray]], names: Sequence[str]
) -> npt.NDArray[np.floating[Any]]:
    """(independent episodes that have the series, horizon)."""
    found = {row: table[series].mean(axis=0) for row, table in enumerate(tables) if series in table}
    if not found:
        return np.empty((0, 0))
    return per_episode(np.stack([*found.values()]), [names[row] for row in found])
