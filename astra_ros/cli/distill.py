"""`astra distill`: a student that does in few steps, without guidance, what its teacher does in many with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from astra_ros.cli.options import add_json, write_json

DESCRIPTION = """Make a few-step student of a trained model, with guidance folded in.

key=value words override what the YAML file says. The same command goes on with an interrupted run.
On several processes: torchrun, as `astra train`."""
EXAMPLE = "example: astra distill config/distill/tiny.yaml --out runs/tiny_student teacher=runs/tiny space=panda_sim --minutes 5"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra distill`."""
    parser = subparsers.add_parser(
        "distill",
        help="make a few-step student of a trained model",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        usage="astra distill CONFIG --out DIR [--minutes MIN] [--json FILE] [key=value ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "config", type=Path, help="YAML file: teacher, steps, guidance, budget (config/distill/*.yaml)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for the student, log, curves and sample strips"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="MIN", help="budget; it ends with a usable checkpoint"
    )
    add_json(parser)
    parser.set_defaults(run=run, overrides=[])


def run(arguments: argparse.Namespace) -> int:
    """Distil. An interrupted run goes on when it is started again."""
    from astra_ros.cli.distillation_run import DistillationRun
    from astra_ros.training.distillation import load_distillation
    from astra_ros.training.machine import kept_precision, make_fabric

    minutes = [] if arguments.minutes is None else [f"minutes={arguments.minutes}"]
    config = load_distillation(arguments.config, [*arguments.overrides, *minutes])
    fabric = make_fabric(kept_precision(arguments.out))
    student = DistillationRun(config, arguments.out, fabric, arguments.command_line).run()
    if fabric.is_global_zero:
        write_json(arguments.json, student.provenance)
    return 0
