"""`astra demo`: the main job on a recording, judged against what really happened."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_ros.actions.velocities import VELOCITY_MESSAGES
from astra_ros.cli.options import add_json, write_json
from astra_ros.cli.progress import ProgressLine

if TYPE_CHECKING:
    from astra_ros.evaluation.report import Report
    from astra_ros.ros.demonstration import DemoConfig, DemoRun

IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
JOINT_TYPE = "sensor_msgs/msg/JointState"
PLAN_TYPE = "astra_ros/msg/ActionSequence"
HEADLINE_S = 1.0
RESULTS = {
    "contact_sheet.png": "observed | predicted over what really happened",
    "demo.mp4": "observed | predicted | what really happened",
    "predicted_futures": "what an independent subscriber received (rosbag2, MCAP)",
    "results.json": "these numbers",
    "world_model.log": "the node's output",
}

DESCRIPTION = """Play a recorded robot onto its topics, let the node predict, and judge the predictions by what really happened.

Leaves in --out: contact_sheet.png, demo.mp4, predicted_futures/ (MCAP), results.json, world_model.log. Runs on its own
ROS domain, on this machine only: a robot nearby neither sees nor disturbs it."""
EXAMPLE = "example: astra demo --out out --duration 8"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra demo`."""
    parser = subparsers.add_parser(
        "demo",
        help="play the shipped recording through the node; pictures and numbers",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bag", type=Path, help="recording to play (default: the shipped one)")
    parser.add_argument("--bundle", type=Path, help="bundle of the model (default: the shipped one)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="folder for the results (default: %(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=1.0, metavar="X", help="speed; not 1: simulated time (default: 1)"
    )
    parser.add_argument(
        "--duration", type=float, default=0.0, metavar="S", help="seconds to play; 0 plays all of it"
    )
    parser.add_argument(
        "--image-topic",
        nargs="+",
        metavar="TOPIC",
        help="camera, or those of the model in its order (default: the recording's only CompressedImage)",
    )
    parser.add_argument(
        "--joint-topic", metavar="TOPIC", default="/joint_states", help="default: %(default)s"
    )
    parser.add_argument(
        "--velocity",
        metavar="TOPIC",
        default="/odom",
        help="in its place, of a vehicle (default: %(default)s)",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when the node fails or predicts nothing."""
    from astra_ros.ros.demonstration import isolated, run_demo
    from astra_ros.ros.node_process import NodeFailedError

    began_s = time.monotonic()
    config = _config(arguments)
    _clear(config.out)
    line = ProgressLine()
    try:
        with isolated():
            played = run_demo(config, line.update)
    except NodeFailedError as error:
        print(f"\nastra demo: {error}", file=sys.stderr)
        return 1
    line.update("comparing with what really happened, drawing")
    report = _judge(config, played)
    line.done(f"done in {time.monotonic() - began_s:.0f} s")
    write_json(config.out / "results.json", report.to_json())
    write_json(arguments.json, report.to_json())
    _print_summary(config.out, report)
    return 0


def _config(arguments: argparse.Namespace) -> DemoConfig:
    from astra_ros.backends.bundle import load_bundle, shipped_bundle
    from astra_ros.backends.manifest import BundleError
    from astra_ros.data.bag import BagReader
    from astra_ros.ros.demonstration import DemoConfig

    bag = arguments.bag or shipped_bag()
    with BagReader(bag) as reader:
        types = {topic.name: topic.type for topic in reader.topics.values()}
    images = arguments.image_topic or [_only(bag, [n for n, t in types.items() if t == IMAGE_TYPE])]
    axes: Collection[str] = ()
    with suppress(BundleError):  # of which the node will tell
        manifest = load_bundle(arguments.bundle or shipped_bundle()).manifest
        manifest.camera.require_count(len(images), "--image-topic")
        axes = manifest.action.names if manifest.action.representation == "rate" else ()
    for image in images:
        _require_type(bag, types, "--image-topic", image, (IMAGE_TYPE,))
    inputs = _vehicle_inputs(arguments, bag, types, axes) if axes else _arm_inputs(arguments, bag, types)
    return DemoConfig(
        bag=bag,
        out=arguments.out,
        image_topics=tuple(images),
        **inputs,
        bundle=arguments.bundle,
        rate=arguments.rate,
        duration_s=arguments.duration,
    )


def _arm_inputs(arguments: argparse.Namespace, bag: Path, types: Mapping[str, str]) -> dict[str, Any]:
    _require_type(bag, types, "--joint-topic", arguments.joint_topic, (JOINT_TYPE,))
    return {"remaps": {"joint_states": arguments.joint_topic, **_plans(types)}}


def _vehicle_inputs(
    arguments: argparse.Namespace, bag: Path, types: Mapping[str, str], axes: Collection[str]
) -> dict[str, Any]:
    """Its commands stand for plans where none were recorded. axes: of the model."""
    topic = arguments.velocity
    _require_type(bag, types, "--velocity", topic, VELOCITY_MESSAGES)
    remaps = {"odom": topic, **_plans(types)}
    told = [name for name, kind in types.items() if _commands(kind, axes)]
    if "action_sequence" in remaps or not told:
        return {"remaps": remaps, "parameters": {"odom_type": types[topic]}}
    name = min(told, key=lambda one: (one != topic, one != "/cmd_vel"))
    parameters = {"odom_type": types[topic], "cmd_vel_type": types[name]}
    return {"remaps": {**remaps, "cmd_vel": name}, "parameters": parameters}


def _commands(type_name: str, axes: Collection[str]) -> bool:
    """Whether messages of a type command all of them."""
    kind = VELOCITY_MESSAGES.get(type_name)
    return kind is not None and not kind.is_measured and {*axes} <= {*kind.axes}


def _plans(types: Mapping[str, str]) -> dict[str, str]:
    """The first topic of plans, if there is one."""
    plans = [name for name, type_name in types.items() if type_name == PLAN_TYPE]
    return {"action_sequence": plans[0]} if plans else {}


def _require_type(
    bag: Path, types: Mapping[str, str], option: str, topic: str, expected: Collection[str]
) -> None:
    if types.get(topic) not in expected:
        raise ValueError(
            f"{option}: expected a topic of type {' or '.join(expected)} in {bag}, found {topic} ({types.get(topic)})"
        )


def shipped_bag() -> Path:
    """The recording that comes with the package."""
    from astra_ros.data.bag import shared_folder

    return shared_folder("examples/demo_bag", "metadata.yaml")


def _only(bag: Path, topics: Sequence[str]) -> str:
    if len(topics) != 1:
        found = ", ".join(topics) or "none"
        raise ValueError(
            f"{bag}: expected one topic of type {IMAGE_TYPE}, found {found}; choose with --image-topic"
        )
    return topics[0]


def _clear(out: Path) -> None:
    """Remove what an earlier demo left, and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (out / name for name in RESULTS):
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def _judge(config: DemoConfig, played: DemoRun) -> Report:
    """Compare, and draw the pictures."""
    from astra_ros.evaluation.contact_sheet import SheetConfig, write_contact_sheet
    from astra_ros.evaluation.metrics import percentiles
    from astra_ros.evaluation.recording import read_recording
    from astra_ros.evaluation.report import Report
    from astra_ros.evaluation.scoring import quality_by_step, score
    from astra_ros.evaluation.video import VideoConfig, write_video
    from astra_ros.ros.demonstration import FUTURE_TOPIC

    recording = read_recording(played.recording, config.image_topics, FUTURE_TOPIC)
    scored = score(recording)
    report = Report(
        model_id=recording.futures[0].model_id,
        bag=str(config.bag),
        rate=config.rate,
        predictions=len(recording.futures),
        predictions_without_plan=sum(future.is_hold_still for future in recording.futures),
        drops=played.drops(),
        latency_ms=percentiles(played.latencies_ms),
        inference_ms=percentiles([1e3 * future.inference_time_s for future in recording.futures]),
        psnr=tuple(quality_by_step(scored)),
    )
    title = f"astra_ros · {report.model_id}"
    write_contact_sheet(config.out / "contact_sheet.png", scored, title, _subtitle(report), SheetConfig())
    write_video(config.out / "demo.mp4", scored, VideoConfig())
    return report


def _subtitle(report: Report) -> str:
    step = report.at(HEADLINE_S)
    is_still = 2 * report.predictions_without_plan > report.predictions
    what = f"{report.predictions} predictions" + (
        " for holding still (no plans recorded)" if is_still else ""
    )
    if step is None:
        return what
    return (
        f"{what} on {report.bag.rsplit('/', 1)[-1]} · PSNR at +{step.seconds:.1f} s:"
        f" {step.model_db:.1f} dB, repeating the observed frame {step.copy_db:.1f} dB"
    )


def _print_summary(out: Path, report: Report) -> None:
    print(f"\n{report.table()}\n\nin {out}/:")
    for name, content in RESULTS.items():
        print(f"  {name:18}  {content}")
