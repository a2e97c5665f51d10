"""Teach a bundle to propose plans towards a goal picture, from the recordings that its model was made of.

    python -m export.proposals BUNDLE --data DATASET [--further DATASET ...]
    python -m export.proposals BUNDLE --earlier OTHER    # a bundle with the same encoder, whose proposals are taken over

What the robot's driver did between any two pictures of a training episode is learned as a way from the one to the other; planners begin
at such ways instead of at "hold still". Pictures are encoded by the bundle itself. Held-out episodes say how good it is. Adds
proposals.npz to the bundle, or replaces it. Needs torch, no GPU.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeAlias

try:
    from astra_ros.training.proposals import (
        Drive,
        Hindsight,
        Latents,
        ProposalNetwork,
        ProposalsConfig,
        Quality,
        quality,
        train_proposals,
    )
except ImportError as error:
    raise SystemExit(f"error: {error}; in a clone: pip install -e '.[train]'") from error

import numpy as np

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import (
    Bundle,
    describe_file,
    load_bundle,
    replace_file,
    restored_on_error,
    write_manifest,
)
from astra_ros.backends.factory import open_backend
from astra_ros.backends.manifest import Manifest, ProposalsSpec
from astra_ros.cli.progress import ProgressLine
from astra_ros.cli.signals import ended_by_sigterm
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.data.lerobot import Dataset
from astra_ros.data.suitability import require_own_name
from astra_ros.evaluation.trust import encoded
from astra_ros.rollout.proposals import LEARN, load_proposals, save_proposals
from astra_ros.types import FloatArray
from export.recordings import Further, Recordings, add_arguments, read_episodes

FILE = "proposals.npz"
# Of latents that are kept in memory while it learns; of more episodes, some are left out, evenly.
MAX_BYTES = 2 << 30

Chosen: TypeAlias = Sequence[tuple[Dataset, Sequence[str]]]


def learn_proposals(
    bundle: Path, recordings: Recordings, further: Sequence[Further], config: ProposalsConfig
) -> dict[int, Quality]:
    """Write the file and the manifest that names it. Returns how good it is on held-out episodes, by rows to the goal.

    Raises BundleError, BackendError or ValueError.
    """
    loaded, progress = load_bundle(bundle), ProgressLine()
    action, latents = loaded.manifest.action, loaded.manifest.latents
    horizon = min(config.horizon, loaded.manifest.max_horizon)
    config = replace(config, horizon=horizon, rank=min(config.rank, horizon * action.dim))
    learned = [(recordings.dataset, recordings.training), *((one.dataset, one.names) for one in further)]
    with open_backend(loaded) as backend:
        training = _drives(backend, _kept(learned, backend.manifest))
        held_out = _drives(backend, _kept([(recordings.dataset, recordings.held_out)], backend.manifest))
    hindsight, unseen = (Hindsight(drives, action, horizon) for drives in (training, held_out))
    network = train_proposals(hindsight, action, config, Latents.of(latents, training), progress.update)
    progress.done(f"proposals: {config.steps} steps on {len(training)} episodes")
    add_proposals(bundle, network, config.spec(FILE, tuple(dataset.name for dataset, _ in learned)))
    lengths = [rows for rows in (horizon // 4, horizon // 2) if 0 < rows <= unseen.longest]
    return {rows: quality(network, unseen, action, rows) for rows in lengths}


def _kept(learned: Chosen, manifest: Manifest) -> Chosen:
    """As many episodes as there is memory for."""
    seconds = sum(dataset.num_frames(name) / dataset.fps for dataset, names in learned for name in names)
    num_bytes = 2 * math.prod(asdict(manifest.latents).values()) * seconds / manifest.action.step_dt
    every = math.ceil(num_bytes / MAX_BYTES)
    if every > 1:
        ProgressLine().done(
            f"of every {every} episodes one is read: all would take {num_bytes / 2**30:.1f} GiB of memory"
        )
    return [(dataset, names[:: max(1, every)]) for dataset, names in learned]


def _drives(backend: Backend, chosen: Chosen) -> list[Drive]:
    return [
        _drive(backend, episode)
        for dataset, names in chosen
        for episode in read_episodes(dataset, names, backend.manifest, "encoded")
    ]


def _drive(backend: Backend, episode: Episode) -> Drive:
    """At the model's rate."""
    action = backend.manifest.action
    stride = frame_stride(episode, action.step_dt)
    frames = np.arange(0, len(episode.pixels), stride)
    latents = encoded(backend, episode.pixels[frames]).astype(np.float16)
    did, told = (action.steps(rows, frames, stride) for rows in (episode.measured, episode.commanded))
    return Drive(latents, did, action.clip(told))


def add_proposals(bundle: Path, network: ProposalNetwork, spec: ProposalsSpec) -> None:
    """The file, and what the manifest says of it. Raises BundleError."""
    loaded = load_bundle(bundle)
    with restored_on_error(loaded, spec.file):
        weights = {name: value.detach().float().numpy() for name, value in network.state_dict().items()}
        save_proposals(weights, loaded.file(spec.file))
        _declare(loaded, spec)


def take_over(bundle: Path, earlier: Path) -> ProposalsSpec:
    """Proposals know latents and joints, not the denoiser: they outlive its training as long as the encoder stays what it is.

    Raises BundleError, BackendError, or ValueError where the two bundles differ in more than that.
    """
    loaded, other = load_bundle(bundle), load_bundle(earlier)
    spec, theirs = other.manifest.proposals, load_proposals(other)
    if spec is None or theirs is None:
        raise ValueError(f"{earlier}: expected a bundle with proposals, found none; {LEARN}")
    ours = loaded.manifest
    # Further recordings widen the range that was seen.
    their_action = replace(other.manifest.action, lower=ours.action.lower, upper=ours.action.upper)
    pairs = {
        "action": (ours.action, their_action),
        **{name: (getattr(ours, name), getattr(other.manifest, name)) for name in ("camera", "latents")},
    }
    for name, (expected, found) in pairs.items():
        if expected != found:
            raise ValueError(f"{earlier}: {name}: expected that of {bundle}, found another; {LEARN}")
    if spec.horizon > ours.max_horizon:
        raise ValueError(
            f"{earlier}: proposals.horizon: expected {ours.max_horizon} rows or fewer, found {spec.horizon}; {LEARN}"
        )
    if not np.array_equal(_encoded(loaded), _encoded(other)):
        raise ValueError(f"{earlier}: expected the encoder of {bundle}, found another; {LEARN}")
    with restored_on_error(loaded, spec.file):
        replace_file(loaded.file(spec.file), other.file(spec.file).read_bytes())
        _declare(loaded, spec)
    return spec


def _encoded(bundle: Bundle) -> FloatArray:
    """Latents of a picture that no encoder but the same has the same of."""
    camera = bundle.manifest.camera
    picture = np.random.default_rng(0).integers(0, 256, (camera.height, camera.width, 3), np.uint8)
    with open_backend(bundle, "onnxruntime", precision="fp32") as backend:
        return backend.encode(picture).copy()


def _declare(bundle: Bundle, spec: ProposalsSpec) -> None:
    files = bundle.manifest.files | {spec.file: describe_file(bundle.file(spec.file))}
    write_manifest(bundle.root, replace(bundle.manifest, files=files, proposals=spec))


def main(arguments: list[str] | None = None) -> int:
    """Learn, and say how good it is."""
    default = ProposalsConfig()
    parser = argparse.ArgumentParser(
        prog="python -m export.proposals",
        description="Teach a bundle to propose plans towards a goal picture, from recordings.",
        epilog="example: python -m export.proposals bundles/mine --data runs/data/my_arm --held-out held_out.yaml",
    )
    add_arguments(parser, needs_data=False)
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="BUNDLE",
        help="instead of --data: with the same encoder, from before the denoiser was trained on; its proposals are taken over",
    )
    parser.add_argument(
        "--further",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="more recordings of the same robot and camera to learn from",
    )
    parser.add_argument("--steps", type=int, default=default.steps, help="of training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if (options.data is None) == (options.earlier is None):
        parser.error("expected --data DIR, or --earlier BUNDLE instead of it")
    try:
        if options.earlier is not None:
            spec = take_over(options.bundle, options.earlier)
            print(f"{options.bundle}: the {spec.count} proposals of {options.earlier}")
            return 0
        config = ProposalsConfig(steps=options.steps, seed=options.seed)
        recordings = Recordings.open(options)
        further = [Further.open(path, options) for path in options.further]
        for number, one in enumerate(further):
            require_own_name(
                one.dataset, [recordings.dataset, *(other.dataset for other in further[:number])]
            )
        found = learn_proposals(options.bundle, recordings, further, config)
    except (OSError, ValueError, BackendError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    step_dt = load_bundle(options.bundle).manifest.action.step_dt
    print(
        f"{options.bundle}: of the squared way that holding still would leave on held-out episodes, is left at the goal:"
    )
    for rows, worth in found.items():
        print(
            f"  after {rows * step_dt:.1f} s: {worth.likeliest:.0%} by the likeliest of {config.count} plans, {worth.best:.1%} by the best"
        )
    return 0


if __name__ == "__main__":
    with ended_by_sigterm():
        sys.exit(main())
