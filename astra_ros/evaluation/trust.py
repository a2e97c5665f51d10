"""Is a bundle as sure as it says, and does it notice pictures that are unlike its training?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from astra_ros.backends.base import Backend
from astra_ros.backends.manifest import Manifest, TrustSpec
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.evaluation.intervals import Interval, bootstrap, per_episode
from astra_ros.evaluation.machine import describe_machine
from astra_ros.evaluation.reliving import common_horizon, long_enough, reach, relived
from astra_ros.planning.evaluation import Evaluation, Question
from astra_ros.rollout.candidates import Candidates
from astra_ros.rollout.trust import Trust
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import ByteArray, FloatArray

# Of the picture's area, from and to; `hand` is what a hand or a cloth before the lens takes, `object` something near it.
COVERED = {"object": (0.1, 0.25), "hand": (0.25, 0.6)}


@dataclass(frozen=True)
class TrustConfig:
    """num_samples: futures of one plan. every: camera frames between two moments. seed: of noise, coverings, intervals."""

    num_samples: int = 4
    every: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ValueError(f"num_samples: expected 2 or more, found {self.num_samples}")


@dataclass(frozen=True)
class Doubt:
    """Of one episode's predictions, (n, horizon) each. spread: of the samples. error: of the first one, RMS of latents."""

    spread: FloatArray
    error: FloatArray


@dataclass(frozen=True)
class TrustQuality:
    """Intervals are over episodes.

    coverage: share of real errors inside the 90 % interval. correlation: rank correlation, within a frame's index, of expected
    and real error, mean over indices. false_alarms: share of held-out pictures flagged. auroc: held-out pictures against others, by
    what the others are. detected: share of the others flagged. backend: what computed it. horizon: frames of each prediction
    that were judged; fitted_horizon, max_horizon: that were fitted, and that the model predicts.
    """

    model_id: str
    backend: str
    episodes: tuple[str, ...]
    predictions: int
    horizon: int
    fitted_horizon: int
    max_horizon: int
    coverage: Interval
    correlation: float
    false_alarms: Interval
    auroc: dict[str, float]
    detected: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """With the machine it was measured on."""
        return {**asdict(self), "machine": describe_machine()}

    def table(self) -> str:
        """Markdown."""
        lines = [
            f"Real errors inside the 90 % interval: {self.coverage.text()}, of {self.predictions} predictions of {self.horizon}"
            f" frames in {len(self.episodes)} recordings. Rank correlation of expected and real error: {self.correlation:.2f}."
            f"{self._not_judged()}",
            "",
            "| pictures | AUROC | flagged |",
            "|---|---|---|",
            f"| held out, as trained | | {self.false_alarms.text('.3f')} |",
            *(f"| {name} | {self.auroc[name]:.3f} | {self.detected[name]:.3f} |" for name in self.auroc),
        ]
        return "\n".join(lines)

    def _not_judged(self) -> str:
        if self.horizon == self.max_horizon:
            return ""
        why = (
            "no more were fitted"
            if self.horizon == self.fitted_horizon
            else "half of the recordings hold no more"
        )
        return f" Frames {self.horizon + 1} to {self.max_horizon} are not judged: {why}."


def doubt(world_model: WorldModel, episode: Episode, horizon: int, config: TrustConfig) -> Doubt:
    """Predict from many moments of an episode, several times each, and look what happened. horizon: frames."""
    candidates = Candidates(world_model.backend)
    spreads, errors = [], []
    for moment in relived(world_model, episode, horizon, config.every):
        question = Question(moment.plan[None], seed=config.seed, num_samples=config.num_samples)
        (future,) = Evaluation(candidates, world_model.past(moment.t0_ns), question).finish().futures
        happened = encoded(world_model.backend, moment.happened)
        spreads.append(future.uncertainty)
        errors.append(np.sqrt(np.square(future.latents - happened).mean(axis=(1, 2, 3))))
    return Doubt(np.stack(spreads), np.stack(errors))


def _reach(manifest: Manifest, episode: Episode) -> int:
    try:
        return reach(manifest, len(episode.pixels), frame_stride(episode, manifest.action.step_dt))
    except ValueError:  # its camera does not fit the model's step: it is told and passed over, however long
        return 0


def encoded(backend: Backend, frames: ByteArray) -> FloatArray:
    """(n, h, w, 3) → (n, c, h, w)."""
    return np.stack([backend.encode(frame) for frame in frames])


def evaluate_trust(
    world_model: WorldModel,
    episodes: Sequence[Episode],
    others: Mapping[str, Sequence[Episode]],
    config: TrustConfig,
    on_episode: Callable[[str], None] = lambda name: None,
    on_skip: Callable[[str], None] = lambda why: None,
) -> TrustQuality:
    """episodes: held out and not fitted on. others: from other cameras, by name.

    Raises ValueError for a bundle without trust, or when no episode is long enough.
    """
    manifest, rng = world_model.manifest, np.random.default_rng(config.seed)
    _require_episodes({"episodes": episodes, **others})
    trust, spec = _require_calibrated(world_model)
    fitted = min(manifest.max_horizon, trust.horizon)
    horizon = common_horizon({one.name: _reach(manifest, one) for one in episodes}, fitted)
    episodes = list(long_enough(episodes, manifest, horizon, on_skip))
    doubts, usual = [], []
    for episode in episodes:
        doubts.append(doubt(world_model, episode, horizon, config))
        usual.append(_novelties(world_model, episode.pixels[:: config.every]))
        on_episode(episode.name)
    expected = [trust.expected_error(one.spread) for one in doubts]
    unusual = {name: _pooled(world_model, group, config) for name, group in others.items()}
    unusual |= _covered(world_model, episodes, config, rng)
    names = tuple(episode.name for episode in episodes)
    inside = np.array([_share_inside(spec, *pair) for pair in zip(doubts, expected, strict=True)])
    flagged = np.array([(one > 1).mean() for one in usual])
    return TrustQuality(
        model_id=manifest.model_id,
        backend=world_model.backend.description,
        episodes=names,
        predictions=sum(len(one.error) for one in doubts),
        horizon=horizon,
        fitted_horizon=trust.horizon,
        max_horizon=manifest.max_horizon,
        coverage=bootstrap(per_episode(inside, names), rng),
        correlation=rank_correlation(np.concatenate(expected), np.concatenate([d.error for d in doubts])),
        false_alarms=bootstrap(per_episode(flagged, names), rng),
        auroc={name: auroc(np.concatenate(usual), found) for name, found in unusual.items()},
        detected={name: float((found > 1).mean()) for name, found in unusual.items()},
    )


def _require_episodes(groups: Mapping[str, Sequence[Episode]]) -> None:
    for name, found in groups.items():
        if not found:
            raise ValueError(
                f"{name}: expected episodes, found none that can be read and were not fitted on; hold more out"
            )


def _require_calibrated(world_model: WorldModel) -> tuple[Trust, TrustSpec]:
    trust, spec = world_model.trust, world_model.manifest.trust_for(world_model.backend.precision)
    if trust is None or spec is None:
        raise ValueError(
            f"{world_model.manifest.model_id}: expected a calibrated bundle, found none; run python -m export.calibrate BUNDLE"
            " --data DATASET"
        )
    return trust, spec


def _share_inside(spec: TrustSpec, found: Doubt, expected: FloatArray) -> float:
    """Share of an episode's real errors that lie inside the 90 % interval around the expected ones (n, horizon)."""
    times = found.error / expected
    return float(((times >= spec.interval_low) & (times <= spec.interval_high)).mean())


def _covered(
    world_model: WorldModel, episodes: Sequence[Episode], config: TrustConfig, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Novelties of the episodes' pictures with something in front of the camera, by how much it covers."""
    found = {}
    for name, (least, most) in COVERED.items():
        frames = [frame for episode in episodes for frame in episode.pixels[:: config.every]]
        covered = [cover(frame, rng, least, most) for frame in frames]
        found[f"covered by {least:.0%} to {most:.0%} ({name})"] = _novelties(world_model, covered)
    return found


def cover(frame: ByteArray, rng: np.random.Generator, least: float, most: float) -> ByteArray:
    """A frame behind an ellipse of one colour that takes between `least` and `most` of its area, with some texture."""
    height, width = frame.shape[:2]
    rows, columns = np.mgrid[:height, :width] / np.array([height, width]).reshape(2, 1, 1)
    colour, wanted = rng.uniform(20, 220, 3), rng.uniform(least, most)
    (y, x), stretch = rng.uniform(0.1, 0.9, 2), rng.uniform(0.6, 1.6)
    distance = np.square(rows - y) * stretch + np.square(columns - x) / stretch
    hidden = distance <= np.quantile(distance, wanted)
    covered = frame.copy()
    covered[hidden] = np.clip(colour + rng.normal(0, 6, (int(hidden.sum()), 3)), 0, 255)
    return covered


def auroc(usual: FloatArray, unusual: FloatArray) -> float:
    """Probability that an unusual value is the larger one; ties count half (Mann and Whitney 1947)."""
    ordered = np.sort(usual)
    below = np.searchsorted(ordered, unusual, "left") + np.searchsorted(ordered, unusual, "right")
    return float(below.mean() / (2 * len(usual)))


def _pooled(world_model: WorldModel, episodes: Sequence[Episode], config: TrustConfig) -> FloatArray:
    return np.concatenate([_novelties(world_model, one.pixels[:: config.every]) for one in episodes])


def _novelties(world_model: WorldModel, frames: Sequence[ByteArray] | ByteArray) -> FloatArray:
    assert world_model.trust is not None
    latents = encoded(world_model.backend, np.asarray(frames))
    return world_model.trust.novelties(latents)


def rank_correlation(one: FloatArray, other: FloatArray) -> float:
    """Spearman's, of every column (n, horizon), averaged; constants count as 0."""
    ranks = [
        np.argsort(np.argsort(values, axis=0), axis=0) * (np.ptp(values, axis=0) > 0)
        for values in (one, other)
    ]
    centred = [rank - rank.mean(axis=0) for rank in ranks]
    scale = np.sqrt(np.prod([np.square(rank).sum(axis=0) for rank in centred], axis=0))
    return float((np.prod(centred, axis=0).sum(axis=0) / np.maximum(scale, 1e-9)).mean())
