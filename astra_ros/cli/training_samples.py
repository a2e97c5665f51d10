"""What a model in training predicts for held-out episodes: decibels for the log, strips of pictures to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from astra_ros.codec.pictures import encode_episode
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.data.lerobot import Dataset
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.rollout import RolloutSettings
from astra_ros.evaluation.metrics import psnr
from astra_ros.evaluation.predictor import CheckpointPredictor
from astra_ros.evaluation.scenes import Sampling, Scenes, held_out_data
from astra_ros.training.curves import CODEC, GAIN
from astra_ros.training.mix import TrainingSet
from astra_ros.types import ByteArray

EPISODES, MOMENTS, STRIPS = 4, 4, 3  # per dataset; per episode; per picture
HORIZON_S, SCORED_S = 3.2, 1.0  # the horizon is shorter where an episode is


@dataclass(frozen=True)
class Sample:
    """Predictions from several moments. predicted (b, t, h, w, 3) uint8; codec: what the codec alone leaves, after SCORED_S."""

    scenes: Scenes
    predicted: ByteArray
    codec: ByteArray

    def scores(self, step: int) -> dict[str, float]:
        """Mean dB at the step of the horizon that is SCORED_S ahead, by the suffix of its name."""
        truth = self.scenes.happened[:, step]
        shown = (self.predicted[:, step], self.scenes.observed, self.codec)
        predicted, copied, codec = (float(psnr(frames, truth).mean()) for frames in shown)
        return {"": round(predicted, 2), GAIN: round(predicted - copied, 2), CODEC: round(codec, 2)}

    def rows(self) -> list[ByteArray]:
        """Observed and predicted frames, below it the observed frame and what happened; for a few moments."""
        observed = self.scenes.observed
        chosen = np.linspace(0, len(observed) - 1, min(STRIPS, len(observed))).astype(int)
        return [
            np.concatenate([observed[moment], *frames[moment]], axis=1)
            for moment in chosen
            for frames in (self.predicted, self.scenes.happened)
        ]


class TrainingSamples:
    """A few held-out episodes of every action space. Where none is held out training episodes are shown, and not scored."""

    def __init__(
        self, sets: Sequence[TrainingSet], size: tuple[int, int], step_dt: float, folder: Path
    ) -> None:
        self._sets, self._size, self._step_dt, self._folder = sets, size, step_dt, folder
        self._scored = {one.dataset.schema.space for one in sets if one.held_out}

    def evaluate(self, checkpoint: Checkpoint, share: float) -> dict[str, float]:
        """dB after one second by action space, what is gained over copying the last frame, and what the codec alone reaches.

        Strips go into the folder.
        """
        table: dict[str, float] = {}
        scored = round(SCORED_S / self._step_dt)
        for space, episodes in self._episodes.items():
            try:
                sample = _sample(checkpoint, space, episodes, scored - 1)
            except FloatingPointError as error:
                print(f"not sampled: {error}")
                continue
            if space in self._scored:
                table |= {space + name: score for name, score in sample.scores(scored - 1).items()}
            name = space if space in self._scored else f"{space}_trained_on"
            file = self._folder / f"{round(100 * share):03d}_{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate(sample.rows())).save(file)
        return table

    @cached_property
    def _episodes(self) -> dict[str, list[Episode]]:
        episodes: dict[str, list[Episode]] = {}
        for one in self._sets:
            space = one.dataset.schema.space
            if space not in self._scored:
                print(
                    f"{one.dataset.name}: found no held-out episodes; strips show training episodes, no score"
                )
            names = one.held_out if space in self._scored else one.names
            chosen = list(islice(self._long_enough(one.dataset, spread(names, EPISODES)), EPISODES))
            if names and not chosen:
                print(
                    f"{one.dataset.name}: found none of {SCORED_S:g} s in {len(names)} episodes; not sampled"
                )
            episodes[space] = episodes.get(space, []) + chosen
        return {space: chosen for space, chosen in episodes.items() if chosen}

    def _long_enough(self, dataset: Dataset, names: Sequence[str]) -> Iterator[Episode]:
        def tell(error: ValueError) -> None:
            print(f"not sampled: {error}")

        for episode in dataset.stream(names, self._size, tell):
            try:
                horizon = _horizon(episode, self._step_dt)
            except ValueError as error:  # a camera of another rate
                tell(error)
                continue
            if horizon >= round(SCORED_S / self._step_dt):
                yield episode


def spread(names: Sequence[str], count: int) -> list[str]:
    """All names, first so many that lie evenly among them: neighbours, of one day or scene, say less than others."""
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    chosen = [names[place] for place in places]
    return [*chosen, *(name for name in names if name not in chosen)]


def _sample(checkpoint: Checkpoint, space: str, episodes: Sequence[Episode], scored: int) -> Sample:
    """What is predicted at moments that lie evenly in the episodes. scored: the step whose pictures the codec is judged by."""
    spec = checkpoint.actions[space]
    horizon = min(_horizon(one, spec.step_dt) for one in episodes)
    data = held_out_data(space, spec, episodes, partial(encode_episode, checkpoint.codec))
    scenes = data.scenes(horizon, MOMENTS * len(episodes))
    predictor = CheckpointPredictor(checkpoint, space, RolloutSettings(checkpoint.config.num_steps))
    codec = predictor.reconstruct(scenes.latents[:, scored : scored + 1])[:, 0]
    return Sample(scenes, predictor.predict(scenes, scenes.plan, Sampling()), codec)


def _horizon(episode: Episode, step_dt: float) -> int:
    """Model steps that can be predicted and compared."""
    return min(round(HORIZON_S / step_dt), (len(episode.pixels) - 1) // frame_stride(episode, step_dt))
