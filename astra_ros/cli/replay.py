"""`astra replay`: play a recording onto its topics."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from astra_ros.cli.options import add_config, add_json, config_from, write_json
from astra_ros.cli.progress import ProgressLine
from astra_ros.data.playback import PlaybackConfig, PlaybackProgress

DESCRIPTION = """Play a rosbag2 recording onto its topics, as the robot did.

Header stamps: as recorded; with --clock the player also publishes /clock, for nodes with use_sim_time; with --restamp
(at rate 1) every header stamp becomes (system time at the start) + (stamp - start of the recording), one mapping for all
topics, for nodes on the system's clock. With --loop, /clock jumps back at each lap, restamped time does not.
Ctrl-C ends it."""
EXAMPLE = "example: astra replay examples/demo_bag --restamp --loop --remap /camera/image_raw/compressed:=/image/compressed"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra replay`."""
    parser = subparsers.add_parser(
        "replay",
        help="play a recording onto its topics",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bag", type=Path, help="rosbag2 folder, or a lone .mcap or .db3 file")
    add_config(parser, PlaybackConfig)
    parser.add_argument(
        "--remap", nargs="+", default=(), metavar="FROM:=TO", help="publish a topic under another name"
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play; the result counts the messages."""
    config = config_from(arguments, PlaybackConfig, bag=arguments.bag)
    from astra_ros.ros.bag_player import play_bag

    line = ProgressLine()
    remaps = [part for rule in arguments.remap for part in ("-r", rule)]
    progress = play_bag(config, remaps, lambda p: line.update(_text(p)))
    line.done(_text(progress))
    write_json(arguments.json, asdict(progress))
    return 0


def _text(progress: PlaybackProgress) -> str:
    lap = f"   lap {progress.lap}" if progress.lap > 1 else ""
    return f"playing {progress.seconds:6.1f} / {progress.total_s:.1f} s   {progress.messages} messages{lap}"
