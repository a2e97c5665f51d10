"""`astra attempts`: what comes of the plans that a bundle proposes, recorded as a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from astra_ros.cli.options import add_json, write_json
from astra_ros.cli.progress import ProgressLine

if TYPE_CHECKING:
    from astra_ros.data.episode import Episode

DESCRIPTION = """A simulated arm carries out what its bundle proposes, and is recorded as a dataset for `astra train`.

A model that has seen its driver's motions only is wrong about some of a planner's. Here it meets them: in each episode the robot
goes to a task's goal picture and back, several times, by plans of the bundle, a third of them those that the model expects most of. Run the same
command again to continue where it stopped. On a real robot, record the planner's own attempts instead (astra record)."""
EXAMPLE = "example: astra attempts astra_ros/bundles/tiny --out runs/data/panda_attempts --episodes 400"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra attempts`."""
    parser = subparsers.add_parser(
        "attempts",
        help="record what comes of a bundle's own plans, in simulation",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, help="a bundle that proposes plans (python -m export.proposals)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the dataset")
    parser.add_argument("--robot", default="panda", help="that the bundle is of (default: %(default)s)")
    parser.add_argument("--task", default="lift", help="whose goal it is given (default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=200, help="number of episodes (default: %(default)s)")
    parser.add_argument(
        "--first-seed", type=int, default=0, help="of the first episode (default: %(default)s)"
    )
    parser.add_argument("--attempts", type=int, default=4, help="plans per episode (default: %(default)s)")
    parser.add_argument("--backend", default="auto", help="that predicts (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the backend (default: %(default)s)")
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(".venv-sim/bin/python"),
        help="of the simulator's environment, which `make sim` makes (default: %(default)s)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record what is not there yet. One episode at a time: run several commands, of other seeds and folders, side by side."""
    from astra_ros.backends.bundle import load_bundle
    from astra_ros.data.lerobot_writer import DatasetWriter
    from astra_ros.data.worlds.base import episode_name
    from astra_ros.training.attempts import schema_of

    seeds = range(arguments.first_seed, arguments.first_seed + arguments.episodes)
    manifest, out = load_bundle(arguments.bundle).manifest, arguments.out
    size = (manifest.camera.height, manifest.camera.width)
    with DatasetWriter(
        out, out.name, schema_of(manifest.action), 1 / manifest.action.step_dt, size
    ) as writer:
        missing = {episode_name(seed): seed for seed in seeds if not writer.has(episode_name(seed))}
        line = ProgressLine()
        for done, episode in enumerate(_episodes(arguments, missing), 1):
            writer.append(episode, f"attempts at {arguments.task}")
            line.update(f"recorded {done} of {len(missing)} episodes")
    line.done(f"{out}: {len(seeds) - len(missing)} episodes were there, {len(missing)} written")
    counts = {"there": len(seeds) - len(missing), "written": len(missing)}
    write_json(arguments.json, {"dataset": str(out), **counts})
    return 0


def _episodes(arguments: argparse.Namespace, missing: Mapping[str, int]) -> Iterator[Episode]:
    """Of these names and seeds. Neither model nor simulator is opened for none. Raises OSError when the simulator ends."""
    from astra_ros.data.sim_client import SimClient, SimError
    from astra_ros.rollout.world_model import WorldModel
    from astra_ros.training.attempts import Attempts, AttemptsConfig

    if not missing:
        return
    try:
        with (
            SimClient(arguments.python, arguments.out / "simulator.log", arguments.robot) as sim,
            WorldModel.load(arguments.bundle, arguments.backend, arguments.threads) as model,
        ):
            attempts = Attempts(AttemptsConfig(arguments.task, arguments.attempts), model, sim)
            for name, seed in missing.items():
                yield attempts.episode(name, seed)
    except SimError as error:
        raise OSError(str(error)) from error
