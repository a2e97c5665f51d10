"""`astra evaluate BUNDLE`: through the run-time path that a robot uses; needs no torch."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from astra_ros.backends.manifest import Manifest
from astra_ros.cli.options import topics_from, write_json
from astra_ros.data.bag import is_recording
from astra_ros.data.episode import Episode, EpisodeTopics
from astra_ros.data.importers.bags import BagsConfig, open_source
from astra_ros.evaluation.held_out_bundle import EvaluationConfig, HeldOutQuality, evaluate
from astra_ros.evaluation.trust import TrustConfig, TrustQuality, evaluate_trust
from astra_ros.frames.preprocess import fit_stacked
from astra_ros.rollout.world_model import WorldModel

# Episodes of each other camera.
_OTHERS = 20
_NUM_THREADS = 2


def run_bundle(path: Path, arguments: argparse.Namespace) -> int:
    """Prints a table per horizon step; with --json also writes it, and the table beside it."""
    with WorldModel.load(path, num_threads=_NUM_THREADS, precision=arguments.precision) as world_model:
        episodes = _all_episodes(world_model.manifest, arguments)
        config = EvaluationConfig(arguments.horizon, arguments.every)
        quality = evaluate(world_model, episodes, config, _tell, _tell_skipped)
    print(f"{quality.predictions} predictions in {len(quality.episodes)} recordings")
    return _deliver(quality, arguments)


def run_trust(path: Path, arguments: argparse.Namespace) -> int:
    """The same for what the bundle says about itself, on episodes that it was not fitted on, in whichever dataset."""
    with WorldModel.load(path, num_threads=_NUM_THREADS, precision=arguments.precision) as world_model:
        manifest = world_model.manifest
        spec = manifest.trust_for(world_model.backend.precision)
        fitted_on, num_samples = (spec.fitted_on, spec.num_samples) if spec else ((), 2)
        episodes = _all_episodes(manifest, arguments, fitted_on)
        others = {folder.name: _first_episodes(folder, manifest) for folder in arguments.others}
        config = TrustConfig(num_samples, every=arguments.every)
        quality = evaluate_trust(world_model, episodes, others, config, _tell, _tell_skipped)
    return _deliver(quality, arguments)


def _tell(name: str) -> None:
    print(f"  {name}", flush=True)


def _tell_skipped(why: object) -> None:
    print(f"skipped: {why}", flush=True)


def _deliver(quality: HeldOutQuality | TrustQuality, arguments: argparse.Namespace) -> int:
    file: Path | None = arguments.json
    unchecked = [str(folder) for folder in arguments.data if _holds_bags(folder)]
    text = f"{quality.model_id}\n\n{quality.backend}, {_NUM_THREADS} threads\n\n{quality.table()}"
    if unchecked:
        text += (
            f"\n\nNot checked: whether the model was trained on the recordings in {', '.join(unchecked)}, since recordings go by names"
            " that others may have; see to it that none of its training is among these."
        )
    print(text)
    write_json(file, {**quality.to_json(), "threads": _NUM_THREADS, "unchecked": unchecked})
    if file is not None:
        file.with_suffix(".md").write_text(f"# {text}\n")
    return 0


def _first_episodes(folder: Path, manifest: Manifest) -> list[Episode]:
    """Of another camera's dataset; what its robot did does not matter."""
    from astra_ros.data.lerobot import Dataset

    dataset = Dataset.open(folder)
    names = dataset.episode_names[:_OTHERS]
    return list(dataset.stream(names, manifest.camera.size, _tell_skipped))


def _all_episodes(
    manifest: Manifest, arguments: argparse.Namespace, fitted_on: Sequence[str] = ()
) -> list[Episode]:
    """Of every folder those of other names; of several folders as FOLDER/EPISODE, for equal names are then not one episode."""
    folders: list[Path] = arguments.data
    return [
        episode if len(folders) == 1 else replace(episode, name=f"{folder}/{episode.name}")
        for folder in folders
        for episode in _episodes(folder, manifest, arguments)
        if episode.name not in fitted_on
    ]


def _episodes(folder: Path, manifest: Manifest, arguments: argparse.Namespace) -> Iterator[Episode]:
    """Held-out episodes of a dataset, or all bags of a folder."""
    if _holds_bags(folder):
        yield from _recorded(folder, manifest, topics_from(arguments))
        return
    from astra_ros.data.held_out import held_out
    from astra_ros.data.lerobot import Dataset
    from astra_ros.data.suitability import require_same, require_unseen

    dataset = Dataset.open(folder, manifest.camera.names)
    require_same(folder, dataset.schema, manifest.action)
    names = held_out(arguments.held_out).split(dataset.name, dataset.episode_names).held_out
    require_unseen(dataset.name, names, manifest.provenance.get("training", {}))
    episodes = list(dataset.stream(names, manifest.camera.size, _tell_skipped))
    yield from episodes
    if not episodes:
        raise ValueError(f"{folder}: expected bags or a dataset with held-out episodes, found none")


def _holds_bags(folder: Path) -> bool:
    return any(is_recording(one) for one in (folder, *folder.glob("*")))


def _recorded(folder: Path, manifest: Manifest, topics: EpisodeTopics) -> Iterator[Episode]:
    """All bags of a folder, cut as an import cuts them; one that is bad is told and skipped."""
    action, camera = manifest.action, manifest.camera
    camera.require_count(len(topics.images), "--image")
    config = BagsConfig(
        action.space, action.names, action.units, camera.size, topics.of(action.representation)
    )
    source = open_source([folder], config)
    for load in source.episodes.values():
        try:
            episode = load()
        except (ValueError, OSError) as error:
            _tell_skipped(error)
        else:
            fitted = [fit_stacked(picture, camera.count, *camera.size) for picture in episode.pixels]
            yield replace(episode, pixels=np.stack(fitted))
