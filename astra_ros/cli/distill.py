"""`astra distill`: a student that does in few steps, without guidance, what its teacher does in many with it."""

from __future__ import annotations

import argparse
from pathlib import Path

from astra_ros.cli.options import add_json, write_json

EXAMPLE = "example: astra distill runs/tiny --out runs/tiny_student --steps 2 --guidance 1.5 --minutes 5 --space panda_sim"

LEARNING_RATE = 5e-4  # peak; the student starts as a trained network


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra distill`."""
    parser = subparsers.add_parser(
        "distill",
        help="make a few-step student of a trained model",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the teacher, made by `astra train`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the student")
    parser.add_argument("--steps", type=int, default=2, help="served steps (default: %(default)s)")
    parser.add_argument(
        "--teacher-steps",
        type=int,
        default=8,
        metavar="N",
        help="steps of the teacher (default: %(default)s)",
    )
    parser.add_argument(
        "--guidance", type=float, default=1.5, help="scale folded in; 1: none (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="budget (default: %(default)g)")
    parser.add_argument("--space", help="keep this action space only: a model for one robot (default: all)")
    parser.add_argument("--batch", type=int, default=16, help="segments per step (default: %(default)s)")
    parser.add_argument(
        "--max-steps", type=int, metavar="N", help="end after N optimiser steps instead of by the clock"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Distil. An interrupted run goes on when it is started again."""
    from astra_ros.cli.distillation_run import DistillationRun
    from astra_ros.training.config import OptimisationConfig
    from astra_ros.training.distillation import DistillationConfig
    from astra_ros.training.machine import kept_precision, make_fabric

    config = DistillationConfig(
        arguments.steps, arguments.guidance, arguments.minutes, arguments.space, arguments.teacher_steps
    )
    optimisation = OptimisationConfig(
        batch=arguments.batch, learning_rate=LEARNING_RATE, max_steps=arguments.max_steps
    )
    fabric = make_fabric(kept_precision(arguments.out))
    student = DistillationRun(
        arguments.checkpoint, config, optimisation, arguments.out, fabric, arguments.command_line
    ).run()
    if fabric.is_global_zero:
        write_json(arguments.json, student.provenance)
    return 0
