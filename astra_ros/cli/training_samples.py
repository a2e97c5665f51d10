"""What a model in training predicts for held-out episodes: decibels for the log, strips of pictures to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from astra_ros.codec.pictures import decode_latents, encode_episode
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.data.lerobot import Dataset
from astra_ros.data.segments import Window, cut_window, step_actions
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.rollout import Memory, RolloutSettings, roll_out
from astra_ros.evaluation.metrics import psnr
from astra_ros.training.curves import GAIN
from astra_ros.training.mix import TrainingSet
from astra_ros.types import ByteArray

EPISODES, MOMENTS, STRIPS = 4, 4, 3  # per dataset; per episode; per picture
HORIZON_S, SCORED_S = 3.2, 1.0  # the horizon is shorter where an episode is


@dataclass(frozen=True)
class Sample:
    """Predictions from several moments. observed (b, h, w, 3); predicted, happened (b, t, h, w, 3); all uint8."""

    observed: ByteArray
    predicted: ByteArray
    happened: ByteArray

    def psnr_at(self, step: int) -> tuple[float, float]:
        """Mean dB of the prediction, and of copying the last frame, at a step of the horizon."""
        truth = self.happened[:, step]
        return tuple(float(psnr(frames, truth).mean()) for frames in (self.predicted[:, step], self.observed))  # type: ignore[return-value]

    def rows(self) -> list[ByteArray]:
        """Observed and predicted frames, below it the observed frame and what happened; for a few moments."""
        chosen = np.linspace(0, len(self.observed) - 1, min(STRIPS, len(self.observed))).astype(int)
        return [
            np.concatenate([self.observed[moment], *frames[moment]], axis=1)
            for moment in chosen
            for frames in (self.predicted, self.happened)
        ]


class TrainingSamples:
    """A few held-out episodes of every action space. Where none is held out training episodes are shown, and not scored."""

    def __init__(
        self, sets: Sequence[TrainingSet], size: tuple[int, int], step_dt: float, folder: Path
    ) -> None:
        self._sets, self._size, self._step_dt, self._folder = sets, size, step_dt, folder
        self._scored = {one.dataset.schema.space for one in sets if one.held_out}

    def evaluate(self, checkpoint: Checkpoint, share: float) -> dict[str, float]:
        """dB after one second by action space, and what is gained over copying the last frame. Strips go into the folder."""
        table: dict[str, float] = {}
        scored = round(SCORED_S / self._step_dt)
        for space, episodes in self._episodes.items():
            horizon = min(_horizon(one, self._step_dt) for one in episodes)
            sample = self._sample(checkpoint, space, episodes, horizon)
            if space in self._scored:
                predicted, copied = sample.psnr_at(scored - 1)
                table |= {space: round(predicted, 2), space + GAIN: round(predicted - copied, 2)}
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

    def _sample(
        self, checkpoint: Checkpoint, space: str, episodes: Sequence[Episode], horizon: int
    ) -> Sample:
        cut = [one for episode in episodes for one in _moments(checkpoint, space, episode, horizon)]
        windows, plans, observed, happened = zip(*cut, strict=True)
        memory = Memory(
            torch.from_numpy(np.stack([window.latents for window in windows])).to(
                checkpoint.codec.mean.device
            ),
            np.stack([window.actions for window in windows]),
            torch.from_numpy(np.stack([window.mask for window in windows])).to(checkpoint.codec.mean.device),
        )
        settings = RolloutSettings(checkpoint.config.num_steps)
        generator = torch.Generator().manual_seed(0)
        latents = roll_out(checkpoint, space, memory, np.stack(plans), settings, generator)
        predicted = [decode_latents(checkpoint.codec, one) for one in latents]
        return Sample(np.stack(observed), np.stack(predicted), np.stack(happened))


def spread(names: Sequence[str], count: int) -> list[str]:
    """All names, first so many that lie evenly among them: neighbours, of one day or scene, say less than others."""
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    chosen = [names[place] for place in places]
    return [*chosen, *(name for name in names if name not in chosen)]


def _moments(
    checkpoint: Checkpoint, space: str, episode: Episode, horizon: int
) -> Iterator[tuple[Window, np.ndarray, ByteArray, ByteArray]]:
    """(history, plan, observed frame, frames that happened) at a few moments of an episode."""
    spec = checkpoint.actions[space]
    stride = frame_stride(episode, spec.step_dt)
    latents = encode_episode(checkpoint.codec, episode.pixels)
    last = len(episode.pixels) - 1 - horizon * stride
    for now in np.unique(np.linspace(min(4 * stride, last), last, MOMENTS).astype(int)):
        target = now + stride * np.arange(1, horizon + 1)
        window = cut_window(episode, latents, spec, int(now))
        yield window, step_actions(episode, spec, target), episode.pixels[now], episode.pixels[target]


def _horizon(episode: Episode, step_dt: float) -> int:
    """Model steps that can be predicted and compared."""
    return min(round(HORIZON_S / step_dt), (len(episode.pixels) - 1) // frame_stride(episode, step_dt))
