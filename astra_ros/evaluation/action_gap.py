"""Does the prediction depend on the plan? PSNR on moving pixels for the right plan and for another moment's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.evaluation.intervals import Interval, bootstrap, per_episode
from astra_ros.evaluation.metrics import masked_psnr, moving_pixels
from astra_ros.evaluation.movements import transplanted
from astra_ros.evaluation.scenes import HeldOutData, Predictor, Sampling, Scenes, UnsuitableDataError
from astra_ros.types import ByteArray, FloatArray

# Share of a future's pixels that must move for it to be judged.
MIN_MOVING = 0.005
# Frames remembered, the observed one included; they fill the packed history's blocks whole, the last one all of them.
HISTORY_LENGTHS = (1, 2, 4, 8, 16, 20)


@dataclass(frozen=True)
class ActionGap:
    """PSNR on moving pixels, dB; means over episodes.

    right: told what was done. shuffled: told the plan of another moment. gap: their difference, per moment.
    moved_gap: the same for a robot whose plan is a place (joint positions), told the other moment's movement from where
    it is, which is closer to the truth than jumping to another place; equal to gap for other robots.
    moments: judged; still: left out because almost nothing moved.
    """

    right_db: Interval
    shuffled_db: Interval
    gap_db: Interval
    moved_gap_db: Interval
    moments: int
    still: int


@dataclass(frozen=True)
class InertiaPoint:
    """Action gap with that many remembered frames."""

    history_length: int
    gap: ActionGap


def action_gap(model: Predictor, spec: ActionSpec, scenes: Scenes, seeds: Sequence[int]) -> ActionGap:
    """Raises UnsuitableDataError when fewer than two moments have something moving."""
    moving = moving_pixels(scenes.happened, scenes.observed)
    judged = moving.mean(axis=(1, 2, 3)) >= MIN_MOVING
    if judged.sum() < 2:
        raise UnsuitableDataError(
            f"{spec.space}: expected two moments or more in which something moves, found {judged.sum()}"
        )
    other = np.roll(np.arange(len(scenes)), len(scenes) // 2)
    moved = transplanted(spec, scenes.plan[other], scenes.last_action[other], scenes.last_action)
    plans = {"right": scenes.plan, "shuffled": scenes.plan[other], "moved": moved}
    if np.array_equal(moved, plans["shuffled"]):
        del plans["moved"]
    db = {name: _moving_db(model, scenes, plan, seeds, moving)[judged] for name, plan in plans.items()}
    db.setdefault("moved", db["shuffled"])
    names = [name for name, use in zip(scenes.episodes, judged, strict=True) if use]
    return ActionGap(
        *_intervals(db, names),
        moments=int(judged.sum()),
        still=int((~judged).sum()),
    )


def inertia_curve(
    model: Predictor, data: HeldOutData, horizon: int, count: int, seeds: Sequence[int]
) -> tuple[InertiaPoint, ...]:
    """Action gap at the same moments against the length of the history (visual inertia: it falls with the length)."""
    longest = max(HISTORY_LENGTHS)
    points = []
    for length in HISTORY_LENGTHS:
        scenes = data.scenes(horizon, count, memory=longest, remembered=length)
        points.append(InertiaPoint(length, action_gap(model, data.spec, scenes, seeds)))
    return tuple(points)


def _moving_db(
    model: Predictor, scenes: Scenes, plan: FloatArray, seeds: Sequence[int], moving: np.ndarray
) -> FloatArray:
    """(b,) mean over seeds."""
    pictures: list[ByteArray] = [model.predict(scenes, plan, Sampling(seed)) for seed in seeds]
    return np.mean([masked_psnr(frames, scenes.happened, moving) for frames in pictures], axis=0)


def _intervals(
    db: dict[str, FloatArray], episodes: Sequence[str]
) -> tuple[Interval, Interval, Interval, Interval]:
    """right, shuffled, gap and gap from the same place."""
    rng = np.random.default_rng(0)

    def mean(values: FloatArray) -> Interval:
        return bootstrap(per_episode(values, episodes), rng)

    right, shuffled, moved = db["right"], db["shuffled"], db["moved"]
    return mean(right), mean(shuffled), mean(right - shuffled), mean(right - moved)
