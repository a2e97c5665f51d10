"""Teach a bundle how much its predictions can be trusted, from the recordings that its model was made of.

    python -m export.calibrate BUNDLE --data DATASET [--later DATASET ...]

Training episodes say what usual pictures look like. Every second held-out episode says how far from them a usual picture may
be, and how wrong a prediction is when its samples spread; the others are left to test that (astra evaluate BUNDLE --test
trust). So do all of recordings that were made later: how wrong predictions are differs from episode to episode, and a dozen
do not settle it. Views and pieces of one trajectory are one episode. Fitted are all frames that the bundle predicts, or as many
as half of these recordings hold. Adds trust.npz to the bundle, through the backend that runs it here, or with --precision int8 or
int8_bf16 trust_integers.npz beside it: rounding to integers makes other errors than floating point does. Needs no torch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import describe_file, load_bundle, restored_on_error, write_manifest
from astra_ros.backends.manifest import Manifest, TrustSpec
from astra_ros.cli.signals import ended_by_sigterm
from astra_ros.data.held_out import LEAST_HELD_OUT
from astra_ros.data.lerobot import Dataset
from astra_ros.data.suitability import require_own_name
from astra_ros.evaluation.intervals import by_episode
from astra_ros.evaluation.reliving import common_horizon, long_enough, reach
from astra_ros.evaluation.trust import TrustConfig, doubt, encoded
from astra_ros.rollout.trust import Trust, describe, fit_familiarity, fit_spread
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import FloatArray
from export.recordings import Later, Recordings, add_arguments, name_skipped, read_episodes

TRUST_FILE, INTEGERS_FILE = "trust.npz", "trust_integers.npz"
# Of usual pictures, the share that is not flagged.
USUAL = 0.99
# Training pictures that are looked at; 384 numbers describe each.
MAX_PICTURES = 6000


def calibrate(
    bundle: Path, recordings: Recordings, later: Sequence[Later], config: TrustConfig, precision: str = ""
) -> tuple[TrustSpec, int]:
    """Write the file and the manifest that names it. Returns what that says, and the number of frames that were fitted.

    precision: of the predictions, as for open_backend; empty: the graphs' own. Raises BundleError, BackendError or ValueError.
    """
    independent = by_episode(recordings.held_out)
    halved = tuple(recordings.held_out[row] for rows in independent[::2] for row in rows)
    if len(independent) < LEAST_HELD_OUT:
        raise ValueError(
            f"{recordings.dataset.path}: expected {LEAST_HELD_OUT} held-out episodes or more (views and pieces of one count once), of which"
            f" every second one is left to test on, found {len(independent)}; hold more out and train again"
        )
    precision = precision or load_bundle(bundle).manifest.precision
    with WorldModel.load(bundle, precision=precision) as world_model:
        manifest, ran_in = world_model.manifest, world_model.backend.precision
        familiarity = fit_familiarity(_usual(world_model, recordings))
        distances, doubts = [], []
        fitted = {recordings.dataset: halved, **{one.dataset: one.names for one in later}}
        horizon = _horizon(manifest, fitted)
        read = chain(
            recordings.read(manifest, halved, "predicted"),
            *(read_episodes(one.dataset, one.names, manifest, "predicted") for one in later),
        )
        for episode in long_enough(read, manifest, horizon, name_skipped):
            pictures = encoded(world_model.backend, episode.pixels[:: config.every])
            distances.append(familiarity.distances(pictures))
            doubts.append(doubt(world_model, episode, horizon, config))
    limit = float(np.quantile(np.concatenate(distances), USUAL))
    spread, error = (np.concatenate([getattr(one, name) for one in doubts]) for name in ("spread", "error"))
    intercept, slope, low, high = fit_spread(spread, error)
    fitted_on = (*halved, *(name for one in later for name in one.names))
    file = INTEGERS_FILE if ran_in.startswith("int8") else TRUST_FILE
    spec = TrustSpec(file, round(low, 4), round(high, 4), fitted_on, config.num_samples, ran_in)
    _add(bundle, Trust(familiarity, limit, intercept, slope), spec)
    return spec, horizon


def _add(bundle: Path, trust: Trust, spec: TrustSpec) -> None:
    """The file, and what the manifest says of it."""
    loaded = load_bundle(bundle)
    with restored_on_error(loaded, spec.file):
        trust.save(loaded.file(spec.file))
        files = loaded.manifest.files | {spec.file: describe_file(loaded.file(spec.file))}
        manifest = replace(loaded.manifest, files=files)
        is_integers = spec.file == INTEGERS_FILE
        write_manifest(
            loaded.root,
            replace(manifest, trust_integers=spec) if is_integers else replace(manifest, trust=spec),
        )


def _horizon(manifest: Manifest, fitted: Mapping[Dataset, Sequence[str]]) -> int:
    """Frames that are fitted: from what the datasets say of the episodes' lengths, for not all of them are in memory at once."""
    reaches = {}
    for dataset, names in fitted.items():
        stride = max(1, round(dataset.fps * manifest.action.step_dt))
        for name in names:
            reaches[f"{dataset.name}/{name}"] = reach(manifest, dataset.num_frames(name), stride)
    return common_horizon(reaches, manifest.max_horizon)


def _usual(world_model: WorldModel, recordings: Recordings) -> FloatArray:
    """Descriptions (n, p) of training pictures, evenly from all episodes."""
    each = max(1, MAX_PICTURES // len(recordings.training))
    return np.concatenate(
        [
            describe(encoded(world_model.backend, episode.pixels[:: -(-len(episode.pixels) // each)]))
            for episode in recordings.read(world_model.manifest, recordings.training, "looked at")
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Calibrate and say what came out."""
    parser = argparse.ArgumentParser(
        prog="python -m export.calibrate",
        description="Fit a bundle's uncertainty and its sense of unusual pictures to recordings.",
        epilog="example: python -m export.calibrate astra_ros/bundles/tiny --data runs/data/panda_sim",
    )
    add_arguments(parser)
    parser.add_argument(
        "--later",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="recordings that were made after the training: all their held-out episodes are fitted to",
    )
    parser.add_argument(
        "--precision",
        default="",
        metavar="NAME",
        help="of the predictions; bf16 errs alike, integers do not: for a robot that runs int8 or int8_bf16, name it"
        " (default: the graphs' own)",
    )
    parser.add_argument("--samples", type=int, default=4, help="futures of one plan (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        recordings = Recordings.open(options)
        later = [Later.open(path, options) for path in options.later]
        for number, one in enumerate(later):
            require_own_name(one.dataset, [recordings.dataset, *(other.dataset for other in later[:number])])
        spec, horizon = calibrate(
            options.bundle, recordings, later, TrustConfig(num_samples=options.samples), options.precision
        )
    except (OSError, ValueError, BackendError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    most = load_bundle(options.bundle).manifest.max_horizon
    untold = " (later ones get no uncertainty: fewer than half of these recordings hold more)" * (
        horizon < most
    )
    print(
        f"{options.bundle}: nine of ten real errors lie between {spec.interval_low:.2f} and {spec.interval_high:.2f} times the"
        f" expected one, in frames 1 to {horizon} of {most}{untold}; test it on the other {len({*recordings.held_out} - {*spec.fitted_on})} held-out episodes:\n"
        f"  astra evaluate {options.bundle} --test trust --data {options.data} --held-out {options.held_out}"
    )
    return 0


if __name__ == "__main__":
    with ended_by_sigterm():
        sys.exit(main())
