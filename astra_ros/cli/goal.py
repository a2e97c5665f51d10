"""`astra goal`: what shall be reached, given to a running world model as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

DESCRIPTION = """Set what a running world model shall reach, until another goal is set.

Plans are then scored by how near their futures end to the picture, which may be of any size, like the camera's."""
EXAMPLE = "example: astra goal cup_on_shelf.jpg --node /robot1/world_model"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra goal`."""
    parser = subparsers.add_parser(
        "goal",
        help="set the goal picture of a running node",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "pictures",
        type=Path,
        nargs="+",
        metavar="PICTURE",
        help="JPEG or PNG file; of a model of several cameras one of each, in its order",
    )
    parser.add_argument("--node", default="/world_model", help="full name of the node (default: %(default)s)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send it, and wait for the answer."""
    for picture in arguments.pictures:
        if not picture.is_file():
            raise ValueError(f"picture: expected a JPEG or PNG file, found none at {picture}")

    from astra_ros.ros.goal_picture import set_goal

    node = "/" + arguments.node.strip("/")
    set_goal(node, arguments.pictures)
    print(f"{node}: the goal is {', '.join(map(str, arguments.pictures))}")
    return 0
