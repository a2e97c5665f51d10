"""The program `astra`: one subcommand per module of this package."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import astra_ros
from astra_ros.backends.base import BackendError
from astra_ros.cli.options import require_json_folder
from astra_ros.cli.overrides import OverridableParser
from astra_ros.cli.signals import ended_by_sigterm

# Modules with `add_parser(subparsers)`, which sets the default `run`: Callable[[argparse.Namespace], int].
# They import what is heavy or optional (rclpy, torch, the simulator) inside `run`.
SUBCOMMANDS = (
    "demo",
    "replay",
    "record",
    "data",
    "doctor",
    "simulate",
    "attempts",
    "train",
    "distill",
    "evaluate",
    "plan",
    "goal",
    "bench",
)

DESCRIPTION = "astra: a world model that answers what your robot's camera will see if it does this."
EPILOG = """exit codes: 0 done, 1 failed (one line on stderr says what and how to fix it), 2 wrong usage, 130 interrupted, 143 ended by SIGTERM
example: astra demo --out out"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole program."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "astra", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=f"astra_ros {astra_ros.__version__}")
    subparsers = parser.add_subparsers(
        title="subcommands", metavar="", required=True, dest="subcommand", parser_class=OverridableParser
    )
    for name in SUBCOMMANDS:
        importlib.import_module(f"astra_ros.cli.{name}").add_parser(subparsers)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand. Returns its exit code."""
    # Before torch is imported: threads that spin while they wait for one that lost its core made a training step take
    # twelve times as long on two cores shared with other programs; on idle cores waiting asleep costs nothing.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = sys.argv[1:] if arguments is None else arguments
    parsed = build_parser().parse_args(words)
    parsed.command_line = shlex.join(["astra", *words])  # kept with what the command makes
    try:
        require_json_folder(parsed)
        with _log_on_stderr(), ended_by_sigterm():
            code: int = parsed.run(parsed)
    except ModuleNotFoundError as error:
        return _fail(
            parsed.subcommand,
            f"needs the Python module {error.name}, which is not installed here; see README.md",
        )
    # FloatingPointError: weights that answer NaN.
    except (ValueError, OSError, BackendError, FloatingPointError) as error:
        return _fail(parsed.subcommand, str(error))
    except KeyboardInterrupt:
        return 130
    return code


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    """What the package logs, such as which backend was taken and why others were not, a line each."""
    package, handler = logging.getLogger(astra_ros.__name__), logging.StreamHandler()
    package.setLevel(logging.INFO)
    package.addHandler(handler)
    try:
        yield
    finally:
        package.removeHandler(handler)


def _fail(subcommand: str, line: str) -> int:
    print(f"astra {subcommand}: {line}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
