"""`astra simulate`: record episodes of the simulated robot as bags."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

EXAMPLE = "example: astra simulate --out runs/episodes --episodes 150 --duration 15 --first-seed 0"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra simulate`."""
    parser = subparsers.add_parser(
        "simulate", help="record episodes of the simulated robot as bags", epilog=EXAMPLE
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the bags, one folder per episode")
    parser.add_argument("--episodes", type=int, default=150, help="number of episodes (default: %(default)s)")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="seed of the first episode (default: %(default)s)"
    )
    parser.add_argument(
        "--duration", type=float, default=15.0, help="seconds per episode (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record what is not there yet, so that an interrupted run is continued by the same command."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.episodes)
    folders = {arguments.out / f"episode_{seed:06d}": seed for seed in seeds}
    missing = {folder: seed for folder, seed in folders.items() if not folder.exists()}
    print(f"{len(folders) - len(missing)} episodes there, {len(missing)} to record", flush=True)
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = [pool.submit(_record, folder, seed, arguments.duration) for folder, seed in missing.items()]
        for done, job in enumerate(as_completed(jobs), 1):
            print(f"[{done}/{len(jobs)}] {job.result()}", flush=True)
    return 0


def _record(folder: Path, seed: int, duration_s: float) -> Path:
    from astra_ros.data.recording import record_episode

    partial = folder.parent / ".partial" / folder.name
    if partial.exists():
        for leftover in partial.iterdir():
            leftover.unlink()
        partial.rmdir()
    partial.parent.mkdir(parents=True, exist_ok=True)
    record_episode(partial, seed, duration_s)
    partial.rename(folder)
    return folder
