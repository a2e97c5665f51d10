"""Teach a bundle how much its predictions can be trusted, from the recordings that its model was made of.

    python -m export.calibrate BUNDLE --data DATASET

Training episodes say what usual pictures look like. Every second held-out episode says how far from them a usual picture may
be, and how wrong a prediction is when its samples spread; the others are left to test that (astra evaluate BUNDLE --test
trust). Adds trust.npz to the bundle, through the backend that runs it here; needs no torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from astra_ros.backends.bundle import describe_file, load_bundle, write_manifest
from astra_ros.backends.manifest import TrustSpec
from astra_ros.cli.progress import ProgressLine
from astra_ros.data.episode import Episode
from astra_ros.data.held_out import held_out
from astra_ros.data.lerobot import Dataset
from astra_ros.evaluation.trust import TrustConfig, doubt, encoded
from astra_ros.rollout.trust import Trust, describe, fit_familiarity, fit_spread
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import FloatArray

TRUST_FILE = "trust.npz"
# Of usual pictures, the share that is not flagged.
USUAL = 0.99
# Training pictures that are looked at; 384 numbers describe each.
MAX_PICTURES = 6000


@dataclass(frozen=True)
class Recordings:
    """training: names of episodes that the model learned from. fitting: held-out ones."""

    dataset: Dataset
    training: tuple[str, ...]
    fitting: tuple[str, ...]

    def __post_init__(self) -> None:
        if min(len(self.training), len(self.fitting)) < 2:
            raise ValueError(
                f"{self.dataset.path}: expected two training and two held-out episodes to fit on, or more, found"
                f" {len(self.training)} and {len(self.fitting)}; record more, or hold more out"
            )


def calibrate(bundle: Path, recordings: Recordings, config: TrustConfig) -> TrustSpec:
    """Write trust.npz and the manifest that names it. Raises BundleError, BackendError or ValueError."""
    with WorldModel.load(bundle) as world_model:
        familiarity = fit_familiarity(_usual(world_model, recordings))
        distances, doubts = [], []
        for episode in _read(world_model, recordings.dataset, recordings.fitting, "predicted"):
            pictures = encoded(world_model.backend, episode.pixels[:: config.every])
            distances.append(familiarity.distances(pictures))
            doubts.append(doubt(world_model, episode, config))
    limit = float(np.quantile(np.concatenate(distances), USUAL))
    spread, error = (np.concatenate([getattr(one, name) for one in doubts]) for name in ("spread", "error"))
    intercept, slope, low, high = fit_spread(spread, error)
    spec = TrustSpec(TRUST_FILE, round(low, 4), round(high, 4), recordings.fitting, config.num_samples)
    loaded = load_bundle(bundle)
    Trust(familiarity, limit, intercept, slope).save(loaded.file(TRUST_FILE))
    files = loaded.manifest.files | {TRUST_FILE: describe_file(loaded.file(TRUST_FILE))}
    write_manifest(loaded.root, replace(loaded.manifest, files=files, trust=spec))
    return spec


def _usual(world_model: WorldModel, recordings: Recordings) -> FloatArray:
    """Descriptions (n, p) of training pictures, evenly from all episodes."""
    each = max(1, MAX_PICTURES // len(recordings.training))
    return np.concatenate(
        [
            describe(encoded(world_model.backend, episode.pixels[:: -(-len(episode.pixels) // each)]))
            for episode in _read(world_model, recordings.dataset, recordings.training, "looked at")
        ]
    )


def _read(world_model: WorldModel, dataset: Dataset, names: Sequence[str], done: str) -> Iterator[Episode]:
    camera, progress = world_model.manifest.camera, ProgressLine()
    episodes = dataset.stream(
        names, (camera.height, camera.width), lambda bad: progress.done(f"skipped: {bad}")
    )
    for number, episode in enumerate(episodes, 1):
        yield episode
        progress.update(f"{done} {number}/{len(names)}: {episode.name}")


def main(arguments: list[str] | None = None) -> int:
    """Calibrate and say what came out."""
    parser = argparse.ArgumentParser(
        prog="python -m export.calibrate",
        description="Fit a bundle's uncertainty and its sense of unusual pictures to recordings.",
        epilog="example: python -m export.calibrate astra_ros/bundles/tiny --data runs/data/panda_sim",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="the dataset it was trained on"
    )
    parser.add_argument(
        "--held-out",
        type=Path,
        default=Path("config/held_out.yaml"),
        metavar="FILE",
        help="which episodes were not trained on (default: %(default)s)",
    )
    parser.add_argument("--samples", type=int, default=4, help="futures of one plan (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        dataset = Dataset.open(options.data)
        split = held_out(options.held_out).split(dataset.name, dataset.episode_names)
        recordings = Recordings(dataset, split.training, split.held_out[::2])
        spec = calibrate(options.bundle, recordings, TrustConfig(num_samples=options.samples))
    except (OSError, ValueError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    print(
        f"{options.bundle}: nine of ten real errors lie between {spec.interval_low:.2f} and {spec.interval_high:.2f} times the"
        f" expected one; test it on the other {len(split.held_out) - len(spec.fitted_on)} held-out episodes:\n"
        f"  astra evaluate {options.bundle} --test trust --data {options.data}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
