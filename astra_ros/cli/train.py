"""`astra train`: codec and denoiser from recorded bags, within a budget of minutes."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astra_ros.data.episode import Episode
    from astra_ros.denoiser.checkpoint import Checkpoint

EXAMPLE = "example: astra train --data runs/train --heldout runs/heldout --out runs/tiny --minutes 60"
logger = logging.getLogger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra train`."""
    parser = subparsers.add_parser("train", help="train a world model on recorded bags", epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="folder of bags to learn from")
    parser.add_argument("--heldout", type=Path, required=True, help="folder of bags that are only evaluated")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoint, log and sample strips"
    )
    parser.add_argument("--preset", default="tiny", help="model size (default: %(default)s)")
    parser.add_argument(
        "--codec-minutes", type=float, default=12.0, help="budget of the codec (default: %(default)s)"
    )
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="budget of the denoiser (default: %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=8, help="segments per step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights, batches and noise (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Codec first; it is kept in the output folder, so that a second run goes on with the denoiser."""
    import torch

    from astra_ros.data.episode import EpisodeTopics, fit_action_spec, joint_names
    from astra_ros.denoiser.checkpoint import load_codec, new_checkpoint, save_codec
    from astra_ros.denoiser.presets import PRESETS

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    config = PRESETS[arguments.preset]()
    bags = sorted(arguments.data.glob("*/metadata.yaml"))
    if not bags:
        raise SystemExit(
            f"--data {arguments.data}: expected rosbag2 folders, found none; record some with `astra record`"
        )
    names = joint_names(bags[0].parent, EpisodeTopics().joint_states)
    training = _read(arguments.data, names, config.image_size)
    held_out = _read(arguments.heldout, names, config.image_size)
    units = tuple("m" if "finger" in name or "gripper" in name else "rad" for name in names)
    checkpoint = new_checkpoint(config, fit_action_spec(training, names, units, config.step_dt))
    codec_file = arguments.out / "codec.safetensors"
    if codec_file.is_file():
        checkpoint.codec = load_codec(codec_file, config.codec)
    else:
        _train_codec(checkpoint, training, arguments)
        save_codec(codec_file, checkpoint.codec)
    checkpoint.provenance = {
        "command": shlex.join(["astra", *sys.argv[1:]]),
        "seed": arguments.seed,
        "episodes": len(training),
        "held_out_episodes": [episode.name for episode in held_out],
    }
    _train_denoiser(checkpoint, training, held_out, arguments)
    return 0


def _read(folder: Path, names: tuple[str, ...], size: int) -> list[Episode]:
    from astra_ros.data.episode import read_episode

    bags = [path.parent for path in sorted(folder.glob("*/metadata.yaml"))]
    episodes = []
    for count, bag in enumerate(bags, 1):
        episodes.append(read_episode(bag, names, size))
        if count % 20 == 0 or count == len(bags):
            print(f"{folder}: {count} of {len(bags)} bags read", flush=True)
    return episodes


def _train_codec(checkpoint: Checkpoint, episodes: list[Episode], arguments: argparse.Namespace) -> None:
    from astra_ros.training.codec import CodecTrainingConfig, train_codec
    from astra_ros.training.progress import Progress

    config = CodecTrainingConfig(minutes=arguments.codec_minutes, seed=arguments.seed)
    progress = Progress("codec", arguments.out / "log.jsonl")
    checkpoint.codec = train_codec(checkpoint.codec, episodes, config, progress)


def _train_denoiser(
    checkpoint: Checkpoint, training: list[Episode], held_out: list[Episode], arguments: argparse.Namespace
) -> None:
    from astra_ros.codec.pictures import encode_episode
    from astra_ros.data.segments import SegmentConfig, SegmentSampler
    from astra_ros.denoiser.checkpoint import save_checkpoint
    from astra_ros.denoiser.dit import Denoiser
    from astra_ros.evaluation.held_out import held_out_rollouts, summarise
    from astra_ros.evaluation.strips import save_strips
    from astra_ros.training.denoiser import DenoiserTrainingConfig, train_denoiser
    from astra_ros.training.progress import Progress

    progress = Progress("denoiser", arguments.out / "log.jsonl")
    dims = checkpoint.config.denoiser
    latents = [encode_episode(checkpoint.codec, episode.pixels) for episode in training]
    segments = SegmentSampler(
        training, latents, checkpoint.action, SegmentConfig(dims.history_slots, dims.chunk_len)
    )

    def evaluate_and_save(denoiser: Denoiser, share: float, every: int = 60) -> None:
        rollouts = held_out_rollouts(
            checkpoint.codec,
            denoiser,
            checkpoint.config.sigmas,
            checkpoint.action,
            held_out,
            2 * dims.chunk_len,
            every,
        )
        table = summarise(rollouts)
        one_second = round(1.0 / checkpoint.config.step_dt) - 1
        progress.report(share, **{f"{name}_db_at_1s": values[one_second] for name, values in table.items()})
        save_strips(
            rollouts[:: max(1, len(rollouts) // 6)][:6],
            arguments.out / "strips" / f"{round(100 * share):03d}.png",
        )
        checkpoint.denoiser = denoiser
        checkpoint.provenance["held_out_psnr_db"] = {**table, "rollouts": len(rollouts)}
        save_checkpoint(arguments.out, checkpoint)
        (arguments.out / "held_out.json").write_text(json.dumps(checkpoint.provenance, indent=2) + "\n")

    config = DenoiserTrainingConfig(
        minutes=arguments.minutes,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
    )
    trained = train_denoiser(checkpoint.denoiser, segments, config, progress, evaluate_and_save)
    evaluate_and_save(trained, 1.0, every=10)
