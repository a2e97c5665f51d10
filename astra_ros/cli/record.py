"""`astra record`: record topics into a rosbag2 folder."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from astra_ros.actions.velocities import VELOCITY_MESSAGES
from astra_ros.cli.options import add_json, write_json
from astra_ros.cli.progress import ProgressLine

if TYPE_CHECKING:
    from collections.abc import Collection

    from astra_ros.actions.spec import ActionSpec
    from astra_ros.ros.bag_recorder import Recorded

CAMERA_TYPES = ("sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image")
JOINT_TYPE = "sensor_msgs/msg/JointState"
PLAN_TYPE = "astra_ros/msg/ActionSequence"

DESCRIPTION = """Record topics into a rosbag2 folder (MCAP), with the QoS that their publishers offer.

Give topics by name, --all, or --contract BUNDLE for what that model learns from: cameras, joint states and what a controller was told,
or velocities, and action sequences; its joints or axes are then checked in what was recorded. Ctrl-C ends the recording; the bag is whole."""
EXAMPLE = "example: astra record --out runs/monday /camera/image_raw/compressed /joint_states --duration 60"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra record`."""
    parser = subparsers.add_parser(
        "record",
        help="record topics into a rosbag2 folder",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help="topics to record")
    parser.add_argument("--out", type=Path, required=True, help="folder to create")
    parser.add_argument("--all", action="store_true", help="record every topic but hidden ones")
    parser.add_argument(
        "--contract", type=Path, metavar="BUNDLE", help="record what the model of this bundle learns from"
    )
    parser.add_argument(
        "--duration", type=float, default=0.0, metavar="S", help="stop after this; 0 goes on until Ctrl-C"
    )
    add_json(parser)
    parser.set_defaults(run=run, usage=parser.error)


def run(arguments: argparse.Namespace) -> int:
    """Record. Exit code 1 when something asked for did not come."""
    if sum(map(bool, (arguments.topics, arguments.all, arguments.contract))) != 1:
        arguments.usage("expected topics, --all or --contract BUNDLE, exactly one of the three")
    action = _contract_action(arguments.contract) if arguments.contract else None
    from astra_ros.ros.bag_recorder import RecorderConfig, record_bag

    types = _contract_types(action) if action else ()
    config = RecorderConfig(arguments.out, tuple(arguments.topics), types, arguments.duration)
    line = ProgressLine()
    recorded = record_bag(config, lambda r: line.update(_text(r)))
    line.done(_text(recorded))
    _print_topics(recorded)
    lacking = [f"{topic}: nothing came; check its name with `ros2 topic list`" for topic in recorded.missing]
    if action:
        lacking += _lacks_of_contract(arguments.out, recorded, action)
    for text in lacking:
        print(f"astra record: {text}", file=sys.stderr)
    write_json(arguments.json, {**asdict(recorded), "lacking": lacking})
    return 1 if lacking else 0


def _contract_action(bundle: Path) -> ActionSpec:
    from astra_ros.backends.bundle import load_bundle

    return load_bundle(bundle).manifest.action


def _contract_types(action: ActionSpec) -> tuple[str, ...]:
    from astra_ros.data.episode import CONTROLLER_STATE

    is_arm = action.representation == "joint_position"
    robot = (JOINT_TYPE, CONTROLLER_STATE) if is_arm else tuple(VELOCITY_MESSAGES)
    return (*CAMERA_TYPES, *robot, PLAN_TYPE)


def _lacks_of_contract(bag: Path, recorded: Recorded, action: ActionSpec) -> list[str]:
    seen_types = {tally.type for tally in recorded.tallies.values() if tally.messages}
    lacks = []
    if seen_types.isdisjoint(CAMERA_TYPES):
        lacks.append(
            "no camera: expected a topic of type Image or CompressedImage, found none; start the driver"
        )
    is_arm = action.representation == "joint_position"
    if line := _lack_of_joints(bag, action.names) if is_arm else _lack_of_axes(seen_types, action.names):
        lacks.append(line)
    return lacks


def _lack_of_axes(seen_types: Collection[str], axes: tuple[str, ...]) -> str:
    """Empty when something tells of all of them."""
    if any({*axes} <= {*kind.axes} for name, kind in VELOCITY_MESSAGES.items() if name in seen_types):
        return ""
    return f"no velocity: expected odometry or commands of {', '.join(axes)}, found none; start the robot's driver"


def _lack_of_joints(bag: Path, joints: tuple[str, ...]) -> str:
    """Empty when one topic tells of all of them, in one message or in several."""
    from astra_ros.data.bag import BagReader

    told: dict[str, set[str]] = {}
    with BagReader(bag) as reader:
        topics = [topic.name for topic in reader.topics.values() if topic.type == JOINT_TYPE]
        for recorded in reader.messages(topics) if topics else ():
            message = reader.deserialize(recorded)
            on_topic = told.setdefault(recorded.topic, set())
            on_topic |= {*message.name[: len(message.position)]}
            if set(joints) <= on_topic:
                return ""
    if missing := set(joints).difference(*told.values()):
        lacking = ", ".join(sorted(missing))
        return f"joint states lack {lacking}, which the model needs; start joint_state_broadcaster for them"
    parts = " and ".join(f"{', '.join(sorted(names))} ({topic})" for topic, names in told.items())
    return (
        f"joint states: expected {', '.join(joints)} on one topic, found {parts}; remap their publishers to one topic, then"
        " record again"
    )


def _text(recorded: Recorded) -> str:
    tallies = recorded.tallies.values()
    megabytes = sum(tally.bytes for tally in tallies) / 1e6
    waiting = f"   waiting for {', '.join(recorded.missing)}" if recorded.missing else ""
    return f"recording {recorded.seconds:6.1f} s   {sum(t.messages for t in tallies)} messages   {megabytes:.1f} MB{waiting}"


def _print_topics(recorded: Recorded) -> None:
    for topic, tally in sorted(recorded.tallies.items()):
        print(
            f"{tally.messages:8d}  {tally.rate_hz:7.1f} Hz  {tally.bytes / 1e6:9.2f} MB  {topic}  {tally.type}"
        )
