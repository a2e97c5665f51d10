"""`astra bench`: how fast a bundle runs here, against the alternatives and against what the machine can do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_ros.benchmarking.names import GROUPS
from astra_ros.cli.options import add_json, write_json

if TYPE_CHECKING:
    from astra_ros.backends.manifest import Manifest

DESCRIPTION = """Time everything in turn, round after round, so that whatever disturbs this machine disturbs all alike.
Reported are medians over rounds, and medians of the ratios within each round, with 95 % intervals. Every runtime
runs in a process of its own, others' with threads that spin while they wait, which is their default. What cannot
run here is listed with the reason. Other programs falsify the result: run it on a quiet machine, and with --busy
to see what a robot's computer makes of it.

""" + "\n".join(f"{group:10}  {what}" for group, what in GROUPS.items())
EXAMPLES = """examples:
  astra bench --json benchmarks/results/speed_tiny_epyc2core_202611.json
  astra bench runs/tiny/bundle --only peaks latents/served/* latents/torch/*"""
PACKAGES = ("numpy", "onnxruntime", "openvino", "torch")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra bench`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure the speed of a model on this machine",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, nargs="?", help="(default: the shipped one)")
    parser.add_argument(
        "--threads", type=int, default=2, metavar="N", help="of each runtime (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of turns (default: %(default)s)")
    parser.add_argument(
        "--candidates",
        type=int,
        default=64,
        metavar="N",
        help="action sequences of one observation (default: %(default)s)",
    )
    parser.add_argument(
        "--busy",
        type=int,
        default=0,
        metavar="N",
        help="meanwhile keep N other processes busy, as a robot's computer is (default: %(default)s)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="NAME",
        help="groups, or patterns of the names that the result shows (default: everything)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints tables; with --json FILE also writes FILE, and the tables as FILE.md beside it."""
    from astra_ros.backends.bundle import load_bundle, shipped_bundle
    from astra_ros.benchmarking.interleaving import InterleavingConfig
    from astra_ros.benchmarking.report import markdown
    from astra_ros.benchmarking.suite import BenchConfig, Suite
    from astra_ros.benchmarking.workers import WorkerError
    from astra_ros.cli.progress import ProgressLine

    interleaving = InterleavingConfig(arguments.rounds, arguments.seed)
    config = BenchConfig(
        arguments.threads, arguments.candidates, arguments.busy, tuple(arguments.only), interleaving
    )
    bundle = load_bundle(arguments.bundle or shipped_bundle())
    progress = ProgressLine()
    try:
        result = Suite(bundle, config, progress.update).run()
    except WorkerError as error:
        raise ValueError(str(error)) from error
    progress.done("done: bench")
    tables = markdown(result)
    print(tables)
    if arguments.json is not None:
        header = describe(bundle.manifest, bundle.sha256, arguments)
        write_json(arguments.json, {**header, "result": result.to_json()})
        arguments.json.with_suffix(".md").write_text(f"{_title(header)}\n\n{tables}\n")
    return 0


def describe(manifest: Manifest, sha256: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What was measured, how, and on what."""
    from astra_ros.evaluation.machine import describe_machine

    return {
        "bundle": {
            "model_id": manifest.model_id,
            "preset": manifest.preset,
            "manifest_sha256": sha256,
            "pictures": [manifest.camera.height, manifest.camera.width],
            "chunk_len": manifest.chunk_len,
            "num_steps": manifest.num_steps,
            "batches": list(manifest.batches),
        },
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "seed": arguments.seed,
        "candidates": arguments.candidates,
        "busy": arguments.busy,
        "command": arguments.command_line,
        "machine": describe_machine(PACKAGES),
    }


def _title(header: dict[str, Any]) -> str:
    bundle, machine = header["bundle"], header["machine"]
    height, width = bundle["pictures"]
    return (
        f"# Speed: {bundle['model_id']}\n\n"
        f"`{bundle['preset']}` at {height}x{width}, chunks of {bundle['chunk_len']} frames in "
        f"{bundle['num_steps']} denoising steps, {header['threads']} threads, {header['rounds']} rounds, seed {header['seed']}, "
        f"beside {header['busy'] or 'no'} busy processes of others.\n"
        f"{machine['cpu']}, {machine['cores']} cores; "
        f"{', '.join(f'{package} {machine[package]}' for package in PACKAGES)}.\n"
        "Times are medians over rounds, ratios medians of the ratios within a round; in brackets 95 % intervals, "
        f"rounds resampled.\n\n    {header['command']}"
    )
