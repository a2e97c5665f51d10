"""`astra simulate`: episodes of simulated worlds as datasets, or of the simulated arm or rover as bags."""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from astra_ros.cli.options import add_json, write_json
from astra_ros.data.worlds.catalog import NAMES

PANDA, ROVER = "panda", "rover"
EPILOG = """worlds:
  panda      a Panda arm moves cubes; writes rosbag2 recordings, as a real robot would
  rover      a robot on two wheels drives through a home; likewise
  driving    a car on a country road: steering and speed
  rooms      a free camera in furnished rooms: camera poses
  command    the same rooms, walked with keys and mouse
  metaworld  a Sawyer arm at eight tasks: joints and gripper
  pusht      a disc that pushes a T over a table: two joints
The others write one dataset (LeRobot layout). The same seed gives the same episode. Run the same command again to
continue where it stopped.
example: astra simulate --world driving --out runs/data/driving_sim --episodes 120 --first-seed 0"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra simulate`."""
    parser = subparsers.add_parser(
        "simulate",
        help="record episodes of simulated robots",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--world", choices=(PANDA, ROVER, *NAMES), default=PANDA, help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder of the dataset, or of the bags")
    parser.add_argument("--episodes", type=int, default=150, help="number of episodes (default: %(default)s)")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="of the first episode (default: %(default)s)"
    )
    parser.add_argument(
        "--style",
        choices=("abrupt", "smooth", "both"),
        help="how actions change; both: abrupt for even seeds, smooth for odd ones (default: abrupt for panda, both for others)",
    )
    parser.add_argument(
        "--duration",
        type=float,
        default=15.0,
        help="seconds per episode of panda and rover (default: %(default)s)",
    )
    parser.add_argument("--wrist", action="store_true", help="panda: also record the camera on its hand")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record what is not there yet, so that an interrupted run is continued by the same command."""
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.episodes)
    return (_run_bags if arguments.world in (PANDA, ROVER) else _run_world)(arguments, seeds)


def _run_world(arguments: argparse.Namespace, seeds: range) -> int:
    from astra_ros.data.worlds.generate import GenerateConfig, generate

    style = None if arguments.style in (None, "both") else arguments.style
    config = GenerateConfig(arguments.world, seeds, style, arguments.workers)
    counts = {"written": 0, "failed": 0}

    def report(name: str, error: Exception | None) -> None:
        counts["failed" if error else "written"] += 1
        why = f" failed: {error}" if error else ""
        place = int(name.removeprefix("episode_")) - seeds.start + 1
        print(f"[{place}/{len(seeds)}] {arguments.out.name}/{name}{why}", flush=True)

    generate(arguments.out, config, report)
    there = len(seeds) - sum(counts.values())
    print(f"{there} episodes were there, {counts['written']} written, {counts['failed']} failed", flush=True)
    write_json(arguments.json, {"world": arguments.world, "there": there, **counts})
    return 1 if counts["failed"] else 0


def _run_bags(arguments: argparse.Namespace, seeds: range) -> int:
    folders = {arguments.out / f"episode_{seed:06d}": seed for seed in seeds}
    missing = {folder: seed for folder, seed in folders.items() if not folder.exists()}
    print(f"{len(folders) - len(missing)} episodes there, {len(missing)} to record", flush=True)
    with ProcessPoolExecutor(arguments.workers) as pool:
        style = arguments.style or ("abrupt" if arguments.world == PANDA else "both")
        jobs = [
            pool.submit(_record, arguments.world, folder, seed, style, arguments.duration, arguments.wrist)
            for folder, seed in missing.items()
        ]
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                print(f"[{done}/{len(jobs)}] {job.result()}", flush=True)
        except BrokenProcessPool as error:
            raise OSError(
                "workers: expected every process to live, found one killed, for want of memory perhaps; "
                "run the same command again to go on, with fewer --workers"
            ) from error
        finally:
            for job in jobs:  # else leaving the pool would wait for all of them
                job.cancel()
    write_json(
        arguments.json,
        {"world": arguments.world, "there": len(folders) - len(missing), "written": len(missing)},
    )
    return 0


def _record(world: str, folder: Path, seed: int, style: str, duration_s: float, wrist: bool) -> Path:  # noqa: FBT001
    from astra_ros.data.worlds.base import STYLES, style_of

    partial = folder.parent / ".partial" / folder.name
    if partial.exists():
        for leftover in partial.iterdir():
            leftover.unlink()
        partial.rmdir()
    partial.parent.mkdir(parents=True, exist_ok=True)
    (kind,) = [name for name in STYLES if name == style] or [style_of(seed)]
    if world == PANDA:
        from astra_ros.data.recording import record_episode

        record_episode(partial, seed, kind, duration_s, wrist=wrist)
    else:
        from astra_ros.data.rover_recording import record_drive

        record_drive(partial, seed, kind, duration_s)
    partial.rename(folder)
    return folder
