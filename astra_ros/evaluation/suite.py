"""The tests of `astra evaluate`, over all datasets of a checkpoint. A dataset that a test cannot use is skipped, and said so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.lerobot import Dataset
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.rollout import RolloutSettings
from astra_ros.evaluation.action_gap import InertiaPoint, action_gap, inertia_curve
from astra_ros.evaluation.drift import SECONDS, DriftPoint, drift
from astra_ros.evaluation.free_run import free_run
from astra_ros.evaluation.inverse_dynamics import (
    InverseDynamics,
    InverseDynamicsConfig,
    cached_inverse_dynamics,
    fingerprint,
    train_inverse_dynamics,
    transitions,
)
from astra_ros.evaluation.predictor import CheckpointPredictor
from astra_ros.evaluation.quality import Metric, Quality, metrics, quality
from astra_ros.evaluation.recovery import Judge, counterfactual, recovery
from astra_ros.evaluation.results import ActionsResult, DriftResult, HeldOutResult, Judged, StepsResult
from astra_ros.evaluation.routes import routed
from astra_ros.evaluation.routing import Load, RoutingReport, load, routing_report
from astra_ros.evaluation.scenes import HeldOutData, UnsuitableDataError
from astra_ros.evaluation.similarity import PerceptualDistance
from astra_ros.evaluation.sources import Source, load_held_out, training_episodes
from astra_ros.evaluation.step_curve import step_curve
from astra_ros.types import ByteArray, FloatArray

LONG_SECONDS = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0)
LONG_CHUNKS = 10  # the long horizon, in chunks: ten times what is trained
TEACHER_STEPS = 50


@dataclass(frozen=True)
class SuiteConfig:
    """windows: moments per dataset at one second; long_windows: for long rollouts. seeds: of the model's noise.

    episodes: read per dataset at most. judge_frames: real frames that the inverse-dynamics model learns from.
    cache: folder of its weights. served: how the model is sampled; teacher_guidance: how its teacher is.
    """

    served: RolloutSettings
    cache: Path
    windows: int = 24
    long_windows: int = 4
    seeds: tuple[int, ...] = (0, 1, 2)
    episodes: int = 24
    judge: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)
    judge_frames: int = 8000
    teacher_guidance: float = 1.0
    free_run_s: float = 600.0

    @property
    def router_windows(self) -> int:
        """Moments per dataset whose actions are routed, which costs little."""
        return 4 * self.windows


class Suite:
    """lessons: further datasets whose training episodes the judge learns from, where the action space is the same.

    skipped: datasets that a test could not use, and why. pictures: frames of the free runs, by dataset.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        sources: Sequence[Source],
        config: SuiteConfig,
        report: Callable[[str], None],
        teacher: Checkpoint | None = None,
        lessons: Sequence[Source] = (),
    ) -> None:
        self._checkpoint, self._sources, self._config, self._report = checkpoint, sources, config, report
        self._teacher, self._lessons = teacher or checkpoint, lessons
        self.skipped: dict[str, str] = {}
        self.pictures: dict[str, ByteArray] = {}

    def held_out(self) -> list[Judged]:
        """PSNR, SSIM and perceptual distance at one second and over ten times the training horizon."""
        return self._each(self._held_out)

    def actions(self) -> list[Judged]:
        """Right against shuffled plans, plans read off the pictures, and opposite plans."""
        return self._each(self._actions)

    def inertia(self) -> list[Judged]:
        """Right against shuffled plans, by length of the history."""
        return self._each(self._inertia)

    def drift(self) -> list[Judged]:
        """Long rollouts, and minutes without end."""
        return self._each(self._drift)

    def steps(self) -> list[Judged]:
        """Quality by number of denoising steps, beside the teacher's."""
        return self._each(self._steps)

    def router(self) -> tuple[RoutingReport, dict[str, Load]]:
        """By modality, and each action space's load."""
        rows: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        judged = self._each(self._routed)
        for one in judged:
            rows.setdefault(one.modality, []).append(one.result)
        loads = {name: load(*map(np.concatenate, zip(*parts, strict=True))) for name, parts in rows.items()}
        return routing_report(loads), {one.name: load(*one.result) for one in judged}

    def _held_out(self, source: Source, data: HeldOutData) -> HeldOutResult:
        config, second, step_dt = self._config, data.second, data.spec.step_dt
        model = self._model(source)
        near = quality(
            model, data.scenes(second, config.windows), (1, second), config.seeds, self._metrics, step_dt
        )
        wanted = LONG_CHUNKS * self._checkpoint.config.denoiser.chunk_len
        reached = min(wanted, data.longest_horizon())
        marks = sorted({round(s * second) for s in LONG_SECONDS if s * second <= reached} | {reached})
        far: tuple[Quality, ...] = ()
        if reached > second:
            scenes = data.scenes(reached, config.long_windows)
            far = quality(model, scenes, marks, config.seeds[:1], self._metrics, step_dt)
        return HeldOutResult(near, far, reached * step_dt)

    def _actions(self, source: Source, data: HeldOutData) -> ActionsResult:
        model, seeds = self._model(source), self._config.seeds
        scenes = data.scenes(data.second, self._config.windows)
        judge = Judge(data.spec, self._judge_network(source))
        contrary, why = None, ""
        try:
            contrary = counterfactual(model, judge, scenes, seeds)
        except UnsuitableDataError as error:
            why = str(error)
        gap = action_gap(model, data.spec, scenes, seeds)
        return ActionsResult(gap, recovery(model, judge, scenes, seeds), contrary, why)

    def _inertia(self, source: Source, data: HeldOutData) -> tuple[InertiaPoint, ...]:
        return inertia_curve(
            self._model(source), data, data.second, self._config.windows, self._config.seeds[:1]
        )

    def _drift(self, source: Source, data: HeldOutData) -> DriftResult:
        model, config = self._model(source), self._config
        points: tuple[DriftPoint, ...] = ()
        why = ""
        try:
            points = drift(model, data, SECONDS, config.long_windows, config.seeds[0])
        except UnsuitableDataError as error:
            why = str(error)
        run = None
        if config.free_run_s:
            run, frames = free_run(model, data, config.free_run_s, config.free_run_s / 10, config.seeds[0])
            self.pictures[data.name] = frames
        return DriftResult(points, why, run)

    def _steps(self, source: Source, data: HeldOutData) -> StepsResult:
        scenes = data.scenes(data.second, self._config.windows)
        taught = RolloutSettings(TEACHER_STEPS, self._config.teacher_guidance)
        teacher = CheckpointPredictor(self._teacher, source.space, taught, self._report)
        return StepsResult(
            *step_curve(self._model(source), (teacher, TEACHER_STEPS), scenes, self._metrics, self._report)
        )

    def _routed(self, source: Source, data: HeldOutData) -> tuple[FloatArray, np.ndarray]:
        scenes = data.scenes(data.second, self._config.router_windows)
        return routed(self._checkpoint, source.space, scenes)

    @cached_property
    def _metrics(self) -> dict[str, Metric]:
        return metrics(PerceptualDistance.load())

    def _each(self, test: Callable[[Source, HeldOutData], Any]) -> list[Judged]:
        """Raises UnsuitableDataError when no dataset can be used."""
        judged = []
        for source, data in self._loaded():
            try:
                result = test(source, data)
            except UnsuitableDataError as error:
                self._skip(source, error)
                continue
            spec = data.spec
            judged.append(Judged(data.name, spec.space, spec.modality, len(data.episodes), data.bad, result))
        if not judged:
            raise UnsuitableDataError(next(iter(self.skipped.values())))
        return judged

    def _loaded(self) -> Iterator[tuple[Source, HeldOutData]]:
        """One dataset in memory at a time."""
        for source in self._sources:
            try:
                data = load_held_out(source, self._checkpoint, self._config.episodes, self._report)
            except UnsuitableDataError as error:
                self._skip(source, error)
                continue
            yield source, data

    def _skip(self, source: Source, error: UnsuitableDataError) -> None:
        self.skipped[source.dataset.name] = str(error)
        self._report(f"skipped {source.dataset.name}: {error}")

    def _model(self, source: Source) -> CheckpointPredictor:
        return CheckpointPredictor(self._checkpoint, source.space, self._config.served, self._report)

    def _judge_network(self, source: Source) -> InverseDynamics:
        """Trained once per codec, dataset and choice of training episodes."""
        config, spec, name = self._config.judge, self._checkpoint.actions[source.space], source.dataset.name
        taught = [source, *(lesson for lesson in self._lessons if lesson.space == source.space)]
        key = {
            "codec": fingerprint(self._checkpoint.codec),
            "dataset": name,
            "episodes": _digest(taught),
            "frames": str(self._config.judge_frames),
            "names": " ".join(spec.names),
        }

        def train() -> InverseDynamics:
            episodes = training_episodes(taught, self._checkpoint, self._config.judge_frames, self._report)
            return train_inverse_dynamics(transitions(spec, episodes, config.max_gap), config, self._report)

        return cached_inverse_dynamics(
            self._config.cache / f"inverse_dynamics_{name}.safetensors", key, config, train
        )


def _digest(sources: Sequence[Source]) -> str:
    """16 hexadecimal digits of what is trained on: names and fingerprints of the episodes."""
    episodes = [
        {name: _fingerprint(source.dataset, name) for name in source.split.training} for source in sources
    ]
    return sha256(json.dumps(episodes).encode()).hexdigest()[:16]


def _fingerprint(dataset: Dataset, name: str) -> str | None:
    """None of an episode whose files cannot be read, which is told when it is read."""
    try:
        return dataset.fingerprint(name)
    except OSError:
        return None
