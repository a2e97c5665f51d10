"""Every episode through the codec once: float16 latents in a file beside the actions, found again at the next start.

A file carries the fingerprint of the episode that it was made of, and is made again when the dataset holds another one. Files
of earlier versions carry none: they are taken as they are where frames and action dimensions are as many as the dataset's.
More would take reading all rows at every start; who imports a dataset again removes its folder of such latents.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from astra_ros.codec.autoencoder import Codec
from astra_ros.codec.pictures import encode_episode
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.training.mix import TrainingSet
from astra_ros.training.progress import EpisodeCount

_FINGERPRINT = "fingerprint"  # key of the file's metadata
# An episode and its latents (t, c, h, w) float16. Its pictures are left behind.
EncodedEpisode = tuple[Episode, np.ndarray]


class _StaleError(Exception):
    """The dataset holds another episode than the one that was encoded."""


class LatentStore:
    """The latents of one codec: `folder`/<digest of its encoder>/<dataset>/<episode>.safetensors."""

    def __init__(self, folder: Path, codec: Codec, fabric: Fabric, step_dt: float) -> None:
        self._folder, self._codec = folder / encoder_digest(codec), codec
        self._fabric, self._step_dt = fabric, step_dt

    def encode(self, one: TrainingSet, size: tuple[int, int]) -> None:
        """Encode what is not there yet, each process its share; bad episodes are told and skipped."""
        share = one.names[self._fabric.global_rank :: self._fabric.world_size]
        latent_size = tuple(side // self._codec.config.factor for side in size)
        own = [name for name in share if not self._has(one, name, latent_size)]
        progress = EpisodeCount(f"{one.dataset.name}: to latents", len(own))
        for episode in one.dataset.stream(own, size, progress.skip):
            self._write(one, episode)
            progress.good()
        progress.end()

    def load(self, one: TrainingSet) -> tuple[list[EncodedEpisode], list[str]]:
        """Episodes without pictures with their latents, mapped from the files; and the names of those without."""
        found: list[EncodedEpisode] = []
        bad = []
        progress = EpisodeCount(f"{one.dataset.name}: latents", 0)
        for name in one.names:
            try:
                tensors = self._read(one, name)
                episode = _episode(name, tensors)
                frame_stride(episode, self._step_dt)  # a camera of another rate cannot be used
                found.append((episode, tensors["latents"].numpy()))
            except (OSError, _StaleError):  # `encode` has told why
                bad.append(name)
            except (SafetensorError, KeyError, ValueError) as error:
                bad.append(name)
                progress.skip(error)
        return found, bad

    def _file(self, one: TrainingSet, name: str) -> Path:
        return self._folder / quote(one.dataset.name, safe="") / f"{quote(name, safe='')}.safetensors"

    def _has(self, one: TrainingSet, name: str, size: tuple[int, ...]) -> bool:
        """size: height and width of its latents; a codec may have encoded the episode for a model of another."""
        try:
            return tuple(self._read(one, name)["latents"].shape[2:]) == size
        except (OSError, SafetensorError, KeyError, _StaleError):
            return False

    def _read(self, one: TrainingSet, name: str) -> dict[str, Tensor]:
        """Mapped from the file, not read. Raises _StaleError for latents of another episode than the dataset's."""
        with safe_open(self._file(one, name), "pt") as file:
            made_of = (file.metadata() or {}).get(_FINGERPRINT)
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if made_of is None:
            found = (len(tensors["latents"]), tensors["measured"].shape[1])
            is_stale = found != (one.dataset.num_frames(name), one.dataset.schema.dim)
        else:
            is_stale = made_of != one.dataset.fingerprint(name)
        if is_stale:
            raise _StaleError
        return tensors

    def _write(self, one: TrainingSet, episode: Episode) -> None:
        file = self._file(one, episode.name)
        tensors = {
            "latents": torch.from_numpy(encode_episode(self._codec, episode.pixels)),
            "measured": torch.from_numpy(episode.measured),
            "commanded": torch.from_numpy(episode.commanded),
            "stamps_ns": torch.from_numpy(episode.stamps_ns),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        metadata = {_FINGERPRINT: one.dataset.fingerprint(episode.name)}
        save_file({key: value.contiguous() for key, value in tensors.items()}, partial, metadata)
        os.replace(partial, file)


@dataclass(frozen=True)
class EncodedSet:
    """A dataset of the mix as latents. bad: names of its episodes that could not be used."""

    source: TrainingSet
    episodes: list[EncodedEpisode]
    bad: list[str]


def encode_sets(
    store: LatentStore, sets: Sequence[TrainingSet], size: tuple[int, int], fabric: Fabric
) -> list[EncodedSet]:
    """All datasets, encoded by all processes together where they are not yet."""
    for one in sets:
        store.encode(one, size)
    fabric.barrier()
    return [EncodedSet(one, *store.load(one)) for one in sets]


def encoder_digest(codec: Codec) -> str:
    """Of what the latents depend on: the encoder and the statistics, not the decoder."""
    digest = hashlib.sha256()
    for name, tensor in sorted(codec.state_dict().items()):
        if not name.startswith("decoder."):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _episode(name: str, tensors: dict[str, Tensor]) -> Episode:
    measured, commanded, stamps = (tensors[key].numpy() for key in ("measured", "commanded", "stamps_ns"))
    return Episode(name, stamps, np.empty((0, 0, 0, 3), np.uint8), measured, commanded)
