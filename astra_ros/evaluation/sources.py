"""Datasets on disk → held-out data of a checkpoint's action spaces, and real transitions for the judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from astra_ros.codec.pictures import decode_latents, encode_episode
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.data.held_out import HeldOut, Split
from astra_ros.data.lerobot import Dataset
from astra_ros.data.suitability import require_own_name, require_same, require_unseen
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.evaluation.scenes import HeldOutData, UnsuitableDataError, at_model_rate, held_out_data


@dataclass(frozen=True)
class Source:
    """A dataset of one of the checkpoint's action spaces, and how its episodes are divided."""

    dataset: Dataset
    split: Split

    @property
    def space(self) -> str:
        return self.dataset.schema.space


def open_sources(
    folders: Sequence[Path], held_out: HeldOut, checkpoint: Checkpoint, space: str | None = None
) -> list[Source]:
    """Datasets that the checkpoint can be judged on; `space`: those of one action space only.

    Raises ValueError, one line, when none is left, when two have one name, when a dataset's actions are not the
    checkpoint's, or when an episode was trained on.
    """
    opened: list[Dataset] = []
    for dataset in (Dataset.open(folder, checkpoint.config.cameras) for folder in folders):
        if space in (None, dataset.schema.space):
            require_own_name(dataset, opened)
            opened.append(dataset)
    if not opened:
        raise ValueError(
            f"--data: expected datasets{f' of the action space {space}' if space else ''}, found none"
        )
    sources = [Source(dataset, held_out.split(dataset.name, dataset.episode_names)) for dataset in opened]
    for source in sources:
        require_suitable(source, checkpoint)
    return sources


def require_suitable(source: Source, checkpoint: Checkpoint) -> None:
    """Raises ValueError unless the checkpoint acts as the dataset's robot does and has not seen what is held out."""
    if source.space not in checkpoint.actions:
        raise ValueError(
            f"{source.dataset.path}: space: expected one of the checkpoint's, {', '.join(checkpoint.actions)}, "
            f"found {source.space}; leave this dataset out"
        )
    require_same(source.dataset.path, source.dataset.schema, checkpoint.actions[source.space])
    require_unseen(source.dataset.name, source.split.held_out, checkpoint.provenance)


def load_held_out(
    source: Source, checkpoint: Checkpoint, max_episodes: int, report: Callable[[str], None]
) -> HeldOutData:
    """At most `max_episodes` of its held-out episodes, evenly chosen. Raises UnsuitableDataError for none."""
    episodes, bad = _read(source, source.split.held_out, checkpoint, max_episodes, report)
    if not episodes:
        found = bad[0] if bad else "no episode of it is held out"
        raise UnsuitableDataError(f"{source.dataset.path}: expected held-out episodes, found none: {found}")

    def encode(pixels: np.ndarray) -> np.ndarray:
        report(f"encoding {source.dataset.name}: {len(pixels)} frames")
        return encode_episode(checkpoint.codec, pixels)

    data = held_out_data(source.dataset.name, checkpoint.actions[source.space], episodes, encode)
    return replace(data, bad=tuple(bad))


def training_episodes(
    sources: Sequence[Source], checkpoint: Checkpoint, max_frames: int, report: Callable[[str], None]
) -> list[Episode]:
    """Episodes that are trained on, at the model's rate, their pictures after the codec; about `max_frames` frames.

    Every source gives an equal share of its own. Raises UnsuitableDataError for none.
    """
    frames = sum(_training_frames(source, checkpoint) for source in sources)
    share = min(1.0, max_frames / max(frames, 1.0))
    passed, found = [], "all of it is held out"
    for source in sources:
        names = source.split.training
        episodes, bad = _read(source, names, checkpoint, max(1, round(len(names) * share)), report)
        found = bad[0] if bad else found
        for number, episode in enumerate(episodes, 1):
            report(f"through the codec: {source.dataset.name}, episode {number} of {len(episodes)}")
            passed.append(
                _through_the_codec(at_model_rate(episode, checkpoint.actions[source.space]), checkpoint)
            )
    if not passed:
        raise UnsuitableDataError(
            f"{sources[0].dataset.path}: expected training episodes for the judge to learn from, found none: {found}; "
            "hold out fewer, or leave this dataset out"
        )
    return passed


def _training_frames(source: Source, checkpoint: Checkpoint) -> float:
    """At the model's rate."""
    frames = sum(source.dataset.num_frames(name) for name in source.split.training)
    return frames / max(1.0, source.dataset.fps * checkpoint.actions[source.space].step_dt)


def _through_the_codec(episode: Episode, checkpoint: Checkpoint) -> Episode:
    latents = torch.from_numpy(encode_episode(checkpoint.codec, episode.pixels)).float()
    parts = [decode_latents(checkpoint.codec, part) for part in latents.split(64)]
    return replace(episode, pixels=np.concatenate(parts))


def _read(
    source: Source, names: Sequence[str], checkpoint: Checkpoint, count: int, report: Callable[[str], None]
) -> tuple[list[Episode], list[str]]:
    """Evenly chosen episodes, and a line for each bad one."""
    if not names:
        return [], []
    chosen = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    size, bad = (checkpoint.config.image_height, checkpoint.config.image_width), list[str]()
    step_dt = checkpoint.actions[source.space].step_dt

    def note(error: ValueError) -> None:
        bad.append(str(error))
        report(f"skipped a bad episode: {error}")

    episodes = []
    for episode in source.dataset.stream([names[index] for index in chosen], size, note):
        try:
            frame_stride(episode, step_dt)  # a camera of another rate cannot be used
        except ValueError as error:
            note(error)
            continue
        episodes.append(episode)
        report(f"reading {source.dataset.name}: {len(episodes)} of {len(chosen)} episodes")
    return episodes, bad
