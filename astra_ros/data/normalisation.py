"""Fit an action space's normalisation and range to recorded episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from astra_ros.actions.representations import REPRESENTATIONS, Scales
from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.data.schema import ActionSchema

SPAN = 4  # model steps over which changes are measured
RANGE_MARGIN = 0.02  # of the range seen, allowed beyond it


def fit_action_spec(episodes: Sequence[Episode], schema: ActionSchema, step_dt: float) -> ActionSpec:
    """Pixels are not looked at. Raises ValueError when no episode is SPAN model steps long."""
    parts = [_rows_and_totals(e, schema, step_dt) for e in episodes if _fits(e, step_dt)]
    if not parts:
        raise ValueError(
            f"{schema.space}: expected an episode of at least {SPAN * step_dt:g} s, found none in {len(episodes)}"
        )
    rows, totals = (np.concatenate(column) for column in zip(*parts, strict=True))
    margin = RANGE_MARGIN * (rows.max(0) - rows.min(0))
    return ActionSpec(
        space=schema.space,
        modality=schema.modality,
        representation=schema.representation,
        names=schema.names,
        units=schema.units,
        step_dt=step_dt,
        mean=_listed(rows.mean(0)),
        std=_listed(_spread(rows.std(0))),
        delta_std=_listed(_spread(np.sqrt(np.square(totals).mean(0)))),
        lower=_listed(rows.min(0) - margin),
        upper=_listed(rows.max(0) + margin),
    )


def _fits(episode: Episode, step_dt: float) -> bool:
    return len(episode.measured) > SPAN * frame_stride(episode, step_dt)


def _rows_and_totals(episode: Episode, schema: ActionSchema, step_dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Per-step actions, and what they add up to over spans that begin anywhere."""
    kind, stride = REPRESENTATIONS[schema.representation], frame_stride(episode, step_dt)
    zero, one = np.zeros(schema.dim, np.float32), np.ones(schema.dim, np.float32)
    unscaled = Scales(zero, one, one, step_dt)
    totals = []
    for now in range(0, len(episode.measured) - SPAN * stride, stride):
        frames = now + stride * np.arange(1, SPAN + 1)
        actions = kind.steps(episode.commanded, frames, stride)
        previous = kind.steps(episode.measured, np.array([now]), stride)[0]
        values = kind.features(actions, previous, unscaled, is_past=False)
        totals.append(values[:, -schema.dim :])
    every = np.arange(stride, len(episode.measured))
    rows = [kind.steps(recorded, every, stride) for recorded in (episode.measured, episode.commanded)]
    return np.concatenate(rows), np.concatenate(totals)


def _spread(values: np.ndarray) -> np.ndarray:
    """What never changes must not be blown up by its rounding noise."""
    return np.maximum(values, np.maximum(1e-3 * values.max(), 1e-6))


def _listed(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)
