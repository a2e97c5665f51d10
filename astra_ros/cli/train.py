"""`astra train`: codec and denoiser from datasets, within a budget of minutes."""

from __future__ import annotations

import argparse
from pathlib import Path

from astra_ros.cli.options import add_json, write_json

DESCRIPTION = """Train a world model: codec, its decoder once more, denoiser.

key=value words override what the YAML file says. The same command goes on with an interrupted run.
On several processes: torchrun --nproc-per-node 2 -m astra_ros.cli.main train config/train/tiny.yaml --out runs/tiny"""
EXAMPLE = "example: astra train config/train/tiny.yaml --out runs/tiny denoiser.width=320 training.batch=16 --minutes 70"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra train`."""
    parser = subparsers.add_parser(
        "train",
        help="train a world model on datasets",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        usage="astra train CONFIG --out DIR [--minutes MIN] [--json FILE] [key=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", type=Path, help="YAML file: preset, data mix, budgets (config/train/*.yaml)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for checkpoint, log, curves and sample strips"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="MIN",
        help="budget of the whole run, reading the data included; it ends with a usable checkpoint",
    )
    add_json(parser)
    parser.set_defaults(run=run, overrides=[])


def run(arguments: argparse.Namespace) -> int:
    """Train. An interrupted run goes on when it is started again."""
    from astra_ros.cli.training_run import TrainingRun
    from astra_ros.training.config import load_config
    from astra_ros.training.machine import kept_precision, make_fabric

    minutes = [] if arguments.minutes is None else [f"budget.minutes={arguments.minutes}"]
    config = load_config(arguments.config, [*arguments.overrides, *minutes])
    fabric = make_fabric(kept_precision(arguments.out))
    checkpoint = TrainingRun(config, arguments.out, fabric, arguments.command_line).run()
    if fabric.is_global_zero:
        write_json(arguments.json, checkpoint.provenance)
    return 0
