"""`astra plan`: from a moment of a recording to a picture, with the world model as the judge."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_ros.cli.options import add_json, add_topics, topics_from, write_json
from astra_ros.cli.progress import ProgressLine

if TYPE_CHECKING:
    from astra_ros.actions.spec import ActionSpec
    from astra_ros.backends.manifest import Manifest
    from astra_ros.data.episode import Episode
    from astra_ros.planning.goals import MakeGoalDistance
    from astra_ros.planning.recorded import Iteration, Optimise, PlannedTask
    from astra_ros.planning.sampling import Costs, Planned
    from astra_ros.rollout.proposals import Proposed
    from astra_ros.rollout.world_model import WorldModel
    from astra_ros.types import ByteArray, FloatArray

PLANNERS = ("auto", "propose", "refine", "cem", "mppi")
ITERATIONS = 5
# Fields of CemConfig and MppiConfig, which have the defaults.
KNOBS: dict[str, tuple[type, str]] = {
    "num_elites": (
        int,
        "cem, refine: plans that an iteration is fitted to (default: an eighth of --samples, 4 for refine)",
    ),
    "momentum": (float, "share of the old mean (default: 0.1 for cem, 0 for mppi)"),
    "initial_std": (float, "cem: first deviation, in halves of each joint's trained range (default: 0.3)"),
    "min_std": (float, "cem: least deviation, in the same unit (default: 0.01)"),
    "temperature": (float, "mppi: of the weights, in deviations of an iteration's costs (default: 0.3)"),
    "std": (float, "mppi: deviation, in halves of each joint's trained range (default: 0.2)"),
    "noise_beta": (float, "how smooth samples are; 0: white noise (default: 2)"),
    "max_step": (
        float,
        "largest change of a joint from row to row, in the action space's delta_std (default: 1.5)",
    ),
}
DESCRIPTION = """Plan joint positions, or velocities of a vehicle, whose predicted future ends at a picture, from a moment of a recording.

Leaves in --out: plan.json (positions, costs, distances) and plan.png (observed | predicted | goal, and below it what
really happened, where the recording goes on). A bundle that was taught proposals (python -m export.proposals) takes a near and likely one of
them (propose). The others' first guess is to hold still, and their plan never costs more: the mean distance of the last --goal-frames frames."""
EXAMPLE = "example: astra plan --recording examples/demo_bag --at 4 --goal +1.6 --out out"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra plan`."""
    parser = subparsers.add_parser(
        "plan",
        help="plan from a recorded moment to a goal picture",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path, nargs="?", help="(default: the shipped one)")
    parser.add_argument(
        "--recording", type=Path, required=True, metavar="PATH", help="bag, or DATASET/EPISODE"
    )
    parser.add_argument(
        "--at", type=float, required=True, metavar="S", help="moment to plan from, since the first frame [s]"
    )
    parser.add_argument(
        "--goal",
        required=True,
        metavar="PICTURE|+S",
        help="JPEG or PNG file, or the recording so many seconds later",
    )
    parser.add_argument(
        "--planner",
        choices=PLANNERS,
        default="auto",
        help="auto: propose where the bundle has proposals and no option of another is given, else cem (default: %(default)s)",
    )
    parser.add_argument(
        "--samples", type=int, default=32, metavar="N", help="plans per iteration (default: %(default)s)"
    )
    parser.add_argument(
        "--iterations", type=int, metavar="N", help=f"of a search; propose has none (default: {ITERATIONS})"
    )
    _add_knobs(parser)
    parser.add_argument("--horizon", type=int, default=8, metavar="N", help="frames (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the samples and of the model's noise (default: %(default)s)"
    )
    parser.add_argument(
        "--ranking-steps",
        type=int,
        default=0,
        metavar="N",
        help="denoising steps that plans are ranked by: 1 is fastest, 0 is all (default: %(default)s)",
    )
    parser.add_argument("--backend", default="auto", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument("--precision", default="auto", metavar="NAME", help="(default: %(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), metavar="DIR", help="folder for both (default: %(default)s)"
    )
    add_topics(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def _add_knobs(parser: argparse.ArgumentParser) -> None:
    """The usual ones of both planners, and what a goal is compared by."""
    for name, (kind, text) in KNOBS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar="X", help=text)
    parser.add_argument(
        "--goal-distance",
        default="codec",
        metavar="NAME",
        help="codec, perceptual, or a plug-in of the entry points astra_ros.goal_distance (default: %(default)s)",
    )
    parser.add_argument(
        "--goal-frames",
        type=int,
        default=3,
        metavar="N",
        help="frames at the end of a plan whose mean distance it costs, as the node's goal_frames (default: %(default)s)",
    )
    parser.add_argument(
        "--goal-encoder", default="", metavar="FILE", help="of perceptual (python -m export.perceptual)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Plan, write, and print a table."""
    from astra_ros.backends.bundle import shipped_bundle
    from astra_ros.rollout.world_model import WorldModel

    _require_counts(arguments)
    bundle, precision = arguments.bundle or shipped_bundle(), arguments.precision
    with WorldModel.load(bundle, arguments.backend, precision=precision) as world_model:
        return _plan(world_model, *_planner(arguments, world_model), arguments)


def _plan(
    world_model: WorldModel,
    planner: str,
    optimise: Optimise,
    config: dict[str, Any],
    arguments: argparse.Namespace,
) -> int:
    from astra_ros.evaluation.plan_sheet import write_plan_sheet
    from astra_ros.planning.recorded import PlanningTask, frame_at, plan_recorded

    def show(number: int, iteration: Iteration) -> None:
        line.update(f"iteration {number}: cost {iteration.best:.4f}, mean {iteration.mean:.4f}")

    line, backend = ProgressLine(), world_model.backend
    episode = _read(arguments, world_model.manifest)
    now = frame_at(episode, arguments.at)
    goal = _goal(arguments.goal, episode, now, world_model.manifest)
    task = PlanningTask(
        episode,
        now,
        goal,
        arguments.horizon,
        arguments.seed,
        _ranking_steps(arguments, world_model),
        arguments.samples if planner in ("propose", "refine") else 0,
        _distance_to(arguments, world_model.manifest),
        arguments.goal_frames,
    )
    planned = plan_recorded(world_model, task, optimise, show)
    result = {
        "command": arguments.command_line,
        "model_id": world_model.manifest.model_id,
        "backend": backend.description,
        "planner": {
            "name": planner,
            **config,
            "seed": arguments.seed,
            "ranking_steps": task.ranking_steps,
            "goal_distance": arguments.goal_distance,
            "goal_frames": arguments.goal_frames,
        },
        **planned.to_json(),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "plan.json", result)
    write_plan_sheet(arguments.out / "plan.png", task, planned)
    write_json(arguments.json, result)
    line.done(f"done: {result['candidates']} candidates in {planned.seconds:.2f} s")
    print(f"{_table(planned)}\n\nin {arguments.out}/: plan.json, plan.png")
    return 0


def _ranking_steps(arguments: argparse.Namespace, world_model: WorldModel) -> int:
    count, most = arguments.ranking_steps, world_model.manifest.num_steps
    if not 0 <= count <= most:
        raise ValueError(f"ranking-steps: expected 0 to {most}, the model's denoising steps, found {count}")
    return count


def _require_counts(arguments: argparse.Namespace) -> None:
    for name, least in (("samples", 1), ("iterations", 1), ("goal_frames", 1), ("seed", 0)):
        if (found := getattr(arguments, name)) is not None and found < least:
            raise ValueError(f"{name}: expected {least} or more, found {found}")


def _planner(arguments: argparse.Namespace, world_model: WorldModel) -> tuple[str, Optimise, dict[str, Any]]:
    """Its name, the planner, and its settings. As many elites to a sample as CemConfig has by default."""
    import numpy as np

    from astra_ros.planning.cem import CemConfig, cem
    from astra_ros.planning.mppi import MppiConfig, mppi
    from astra_ros.planning.refine import RefineConfig, refine
    from astra_ros.planning.weighing import weigh

    samples, iterations, seed = arguments.samples, arguments.iterations or ITERATIONS, arguments.seed
    knobs = {name: value for name in KNOBS if (value := getattr(arguments, name)) is not None}
    name = arguments.planner
    if name == "auto":
        proposals = world_model.proposals
        is_taught = proposals is not None and arguments.horizon <= proposals.horizon
        name = "propose" if is_taught and not knobs and arguments.iterations is None else "cem"
    known = {
        "propose": (),
        "refine": fields(RefineConfig),
        "cem": fields(CemConfig),
        "mppi": fields(MppiConfig),
    }
    if unknown := sorted(set(knobs) - {one.name for one in known[name]}):
        raise ValueError(f"{unknown[0]}: expected with another --planner only, found with {name}")
    if name == "propose" and arguments.iterations is not None:
        raise ValueError("iterations: expected with another --planner only, found with propose")
    if name == "propose":
        return name, lambda costs, first, proposed, spec: weigh(costs, proposed), {"num_samples": samples}
    if name == "refine":
        # Of the iterations the first is the proposals' own, and to hold still.
        mixed = RefineConfig(samples, iterations - 1, **{"num_elites": min(4, samples), **knobs})

        def mix(costs: Costs, first: FloatArray, proposed: Proposed, spec: ActionSpec) -> Planned:
            guesses = np.concatenate([first[None], proposed.plans[: samples - 1]])
            return refine(costs, guesses, spec, mixed, seed)

        return name, mix, asdict(mixed)
    if name == "mppi":
        weighted = MppiConfig(samples, iterations, **knobs)
        return (
            name,
            lambda costs, first, proposed, spec: mppi(costs, first, spec, weighted, seed),
            asdict(weighted),
        )
    fitted = CemConfig(samples, iterations, **{"num_elites": max(1, samples // 8), **knobs})
    return name, lambda costs, first, proposed, spec: cem(costs, first, spec, fitted, seed), asdict(fitted)


def _distance_to(arguments: argparse.Namespace, manifest: Manifest) -> MakeGoalDistance:
    from astra_ros.planning.goals import find_goal_distance

    return find_goal_distance(arguments.goal_distance, arguments.goal_encoder, manifest.camera.size)


def _read(arguments: argparse.Namespace, manifest: Manifest) -> Episode:
    """A bag, or DATASET/EPISODE, in the model's terms."""
    from astra_ros.data.episode import read_episode

    path, camera, spec = arguments.recording, manifest.camera, manifest.action
    if (path / "meta/info.json").is_file():
        raise ValueError(f"recording: expected a bag or DATASET/EPISODE, found a dataset; see {path}/meta/")
    if not (path.parent / "meta/info.json").is_file():
        topics = topics_from(arguments).of(spec.representation)
        camera.require_count(len(topics.images), "--image")
        return read_episode(path, spec.names, camera.size, topics, units=spec.units)
    from astra_ros.data.lerobot import Dataset
    from astra_ros.data.suitability import require_same

    dataset = Dataset.open(path.parent, camera.names)
    require_same(path.parent, dataset.schema, spec)
    return dataset.read(path.name, camera.size)


def _goal(text: str, episode: Episode, now: int, manifest: Manifest) -> ByteArray:
    """(h, w, 3) of the model's size."""
    from astra_ros.data.video import decode_picture
    from astra_ros.frames.preprocess import fit_stacked
    from astra_ros.planning.recorded import frame_after

    if Path(text).is_file():
        picture = decode_picture(Path(text).read_bytes(), text)
        return fit_stacked(picture, manifest.camera.count, *manifest.camera.size)
    try:
        seconds = float(text) if text.startswith("+") else None
    except ValueError:
        seconds = None
    if seconds is None:
        raise ValueError(f"goal: expected a picture's file or +SECONDS, found {text!r}, which is neither")
    return episode.pixels[frame_after(episode, now, seconds, manifest.action.step_dt)]


def _table(planned: PlannedTask) -> str:
    lines = ["| iteration | candidates | best cost | mean cost |", "|---|---|---|---|"]
    lines += [
        f"| {k} | {i.candidates} | {i.best:.4f} | {i.mean:.4f} |" for k, i in enumerate(planned.iterations, 1)
    ]
    lines += ["", "| goal distance in the end | |", "|---|---|"]
    rows = {
        "hold still, predicted": planned.final_distance.hold_still,
        "plan, predicted": planned.final_distance.plan,
        "recorded actions, predicted": planned.final_distance.recorded_actions,
        "what really happened": planned.final_distance.happened,
    }
    lines += [f"| {name} | {value:.4f} |" for name, value in rows.items() if value is not None]
    return "\n".join(lines)
