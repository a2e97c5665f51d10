"""`astra train`: codec and denoiser from recorded bags, within a budget of minutes."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from astra_ros.cli.options import add_topics, topics_from

EXAMPLE = "example: astra train --data runs/train --heldout runs/heldout --out runs/tiny --minutes 60"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra train`."""
    parser = subparsers.add_parser("train", help="train a world model on recorded bags", epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="folder of bags to learn from")
    parser.add_argument("--heldout", type=Path, required=True, help="folder of bags that are only evaluated")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoint, log and sample strips"
    )
    add_topics(parser)
    parser.add_argument(
        "--preset", default="tiny", choices=["tiny"], help="model size (default: %(default)s)"
    )
    for stage, minutes in (("codec-", 12.0), ("", 60.0), ("decoder-", 6.0)):
        purpose = f"budget of the {stage.rstrip('-') or 'denoiser'} (default: %(default)g)"
        parser.add_argument(f"--{stage}minutes", type=float, default=minutes, metavar="MIN", help=purpose)
    parser.add_argument("--batch", type=int, default=8, help="segments per step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights, batches and noise (default: %(default)s)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train. An interrupted run leaves the last checkpoint; the codec is trained once per --out."""
    from astra_ros.cli.training_run import TrainingRun, TrainingRunConfig

    config = TrainingRunConfig(
        data=arguments.data,
        heldout=arguments.heldout,
        out=arguments.out,
        topics=topics_from(arguments),
        preset=arguments.preset,
        codec_minutes=arguments.codec_minutes,
        denoiser_minutes=arguments.minutes,
        decoder_minutes=arguments.decoder_minutes,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        seed=arguments.seed,
        threads=arguments.threads,
    )
    TrainingRun(config, shlex.join(["astra", *sys.argv[1:]])).run()
    return 0
