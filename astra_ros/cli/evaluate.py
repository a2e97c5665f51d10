"""`astra evaluate`: a bundle's predictions of recordings it has not seen, against what really happened."""

from __future__ import annotations

import argparse
from pathlib import Path

from astra_ros.cli.options import add_json, add_topics, topics_from, write_json

EXAMPLE = "example: astra evaluate --heldout runs/heldout --json benchmarks/results/held_out.json"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra evaluate`."""
    parser = subparsers.add_parser(
        "evaluate", help="measure a bundle's predictions on held-out recordings", epilog=EXAMPLE
    )
    parser.add_argument("--heldout", type=Path, required=True, help="folder of bags, none of them trained on")
    parser.add_argument("--bundle", type=Path, help="bundle of the model (default: the shipped one)")
    parser.add_argument("--horizon", type=int, default=10, help="frames (default: %(default)s)")
    parser.add_argument(
        "--every", type=int, default=5, help="camera frames between two predictions (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the model's noise (default: %(default)s)")
    add_topics(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints a table per horizon step; with --json also writes it."""
    from astra_ros.backends.bundle import shipped_bundle
    from astra_ros.data.episode import read_episode
    from astra_ros.evaluation.held_out_bundle import EvaluationConfig, evaluate
    from astra_ros.rollout.world_model import WorldModel

    bags = sorted(path.parent for path in arguments.heldout.glob("*/metadata.yaml"))
    if not bags:
        raise ValueError(f"--heldout {arguments.heldout}: expected rosbag2 folders, found none")
    with WorldModel.load(arguments.bundle or shipped_bundle()) as world_model:
        manifest = world_model.manifest
        topics = topics_from(arguments)
        episodes = [read_episode(bag, manifest.action.names, manifest.camera.height, topics) for bag in bags]
        config = EvaluationConfig(arguments.horizon, arguments.every, arguments.seed)
        quality = evaluate(world_model, episodes, config, lambda name: print(f"  {name}", flush=True))
    print(
        f"{quality.model_id}: {quality.predictions} predictions in {len(episodes)} recordings\n\n{quality.table()}"
    )
    write_json(arguments.json, quality.to_json())
    return 0
