"""`astra doctor`: why does the node not predict?"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from astra_ros.cli.options import add_json, write_json

if TYPE_CHECKING:
    from astra_ros.ros.gates import Inspection, TopicFacts

DESCRIPTION = """Look at a running world model from outside: its lifecycle state, its topics with the QoS of both ends, their
rates and ages, its diagnostics, and the first condition that is not met with the line that mends it.
Exit code 0 when it predicts, 1 otherwise."""
EXAMPLE = "example: astra doctor --node /robot1/world_model"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra doctor`."""
    parser = subparsers.add_parser(
        "doctor",
        help="say why the node does not predict, and what mends it",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--node", default="/world_model", help="full name of the node (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, metavar="S", help="how long to look (default: %(default)g)"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Inspect and print."""
    from astra_ros.ros.inspection import inspect_node

    inspection = inspect_node("/" + arguments.node.strip("/"), arguments.seconds)
    write_json(arguments.json, asdict(inspection))
    _print(inspection)
    return 1 if inspection.first_failing() else 0


def _print(inspection: Inspection) -> None:
    for topic in inspection.topics:
        print(_topic_text(topic))
    for gate in inspection.gates:
        print(f"{'FAIL' if gate.fix else 'ok':4}  {gate.name:12}  {gate.found}")
    failing = inspection.first_failing()
    if failing:
        print(f"\nmend first: {failing.name}\n  {failing.fix}")


def _topic_text(topic: TopicFacts) -> str:
    age = "" if topic.age_s is None else f", last one {topic.age_s:.2f} s old"
    lines = [f"{topic.name}  {topic.type}  {topic.flow}{age}"]
    lines += [f"    from {publisher}" for publisher in topic.publishers]
    if topic.node:
        lines.append(f"    to   {topic.node}")
    return "\n".join(lines)
