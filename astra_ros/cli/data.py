"""`astra data`: make datasets from recordings, list them, and check that they are whole."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from astra_ros.cli.options import add_json, add_topics, topics_from, write_json
from astra_ros.cli.progress import ProgressLine

if TYPE_CHECKING:
    from astra_ros.data.importers.source import Source
    from astra_ros.data.lerobot import Dataset
    from astra_ros.data.schema import ActionSchema

DESCRIPTION = """Datasets are folders in LeRobot layout (parquet and video): what `astra train` reads. Written in v2.1; public
ones of v2.0, v2.1 and v3.0 are read as they are."""
EXAMPLE = """examples:
  astra data import bags recordings/monday --out runs/data/my_arm
  astra data list runs/data --held-out held_out.yaml
  astra data list runs/data/my_arm --episodes
  astra data check runs/data/my_arm"""
KINDS = {
    "bags": "rosbag2 recordings of an arm (a camera, joint states and, if recorded, joint commands) or a vehicle (--velocity)",
    "g1": "Unitree G1 with Inspire hands: G1-policy-train, thinned (one .npz and one video per episode)",
    "droid": "Franka Panda, three cameras: DROID as excerpted by Ctrl-World (annotation/, videos/)",
    "bridge": "WidowX: BridgeData V2 in RLDS (*-train.tfrecord-*)",
    "donkey": "radio-controlled car: a tub of Donkey Car, as a folder or a tar.gz file",
    "tum": "handheld camera with poses: TUM RGB-D (rgb/, poses.npz)",
}
_CUTTABLE = ("donkey", "tum")
_SIZE_PX, _CHECK_SIZE_PX = 128, 32


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `astra data`."""
    parser = _command(subparsers, "data", "make, list and check datasets", DESCRIPTION, EXAMPLE)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_import(commands)
    for name, summary, run in (
        ("list", "what datasets hold", run_list),
        ("check", "read every episode; exit code 1 if one is bad", run_check),
    ):
        command = _command(commands, name, summary, summary, f"example: astra data {name} runs/data")
        command.add_argument(
            "folders", nargs="+", type=Path, metavar="DIR", help="datasets, or folders of datasets"
        )
        if name == "list":
            command.add_argument(
                "--held-out", type=Path, metavar="FILE", help="also show what this file holds out"
            )
            command.add_argument(
                "--episodes", action="store_true", help="also their names, as FILE of --held-out has them"
            )
        add_json(command)
        command.set_defaults(run=run)


def _add_import(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    summary = "make a dataset from recordings"
    more = "What is in the dataset already is left as it is: run it again after an interruption, or with more recordings."
    example = "example: astra data import donkey tub.tar.gz --out runs/data/rc_track"
    parser = _command(commands, "import", summary, f"{summary}. {more}", example)
    kinds = parser.add_subparsers(metavar="KIND", required=True, dest="kind")
    for kind, what in KINDS.items():
        one = _command(
            kinds, kind, what, what, f"example: astra data import {kind} SOURCE --out runs/data/{kind}"
        )
        one.add_argument("source", nargs="+" if kind == "bags" else 1, type=Path, metavar="SOURCE")
        one.add_argument(
            "--out", type=Path, required=True, metavar="DIR", help="the dataset; its name is the folder's"
        )
        one.add_argument(
            "--size",
            type=int,
            nargs="+",
            default=(),
            metavar="PX",
            help=f"of the model's pictures: side of a square, or height and width (default: the dataset's, or {_SIZE_PX})",
        )
        if kind in _CUTTABLE:
            one.add_argument(
                "--cut", type=float, nargs="+", default=(), metavar="S",
                help="cut the recording at these seconds, so that parts can be held out",
            )  # fmt: skip
        if kind == "bags":
            one.add_argument("--space", help="name of the action space (default: the dataset's, or its name)")
            one.add_argument(
                "--joints",
                nargs="+",
                default=(),
                metavar="NAME",
                help="which, in this order (default: the dataset's, or as first recorded)",
            )
            one.add_argument(
                "--units",
                nargs="+",
                default=(),
                metavar="UNIT",
                help="one for all joints, or one each (default: the dataset's, or rad)",
            )
            one.add_argument(
                "--axes",
                nargs="+",
                default=(),
                metavar="AXIS",
                help="of --velocity, in this order (default: the dataset's, or linear.x angular.z, or steering_angle speed)",
            )
            add_topics(one)
        add_json(one)
        one.set_defaults(run=run_import)


def _command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    text: str,
    example: str,
) -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    return subparsers.add_parser(
        name, help=summary, description=text, epilog=example, formatter_class=formatter
    )


def run_import(arguments: argparse.Namespace) -> int:
    """Import. Exit code 1 when a recording could not be used."""
    from astra_ros.data.importers.source import ImportProgress, import_source

    source, line, bad = _open_source(arguments), ProgressLine(), []

    def report(problem: str) -> None:
        bad.append(problem)
        print(f"astra data: {problem}", file=sys.stderr)

    for note in source.notes:
        print(f"astra data: {note}", file=sys.stderr)
    progress = ImportProgress(0, 0, len(source.episodes))
    for progress in import_source(source, arguments.out, _size(arguments), report):
        line.update(f"importing {progress.done} of {progress.total} episodes   {progress.bad} bad")
    line.done(f"{arguments.out}: {progress.done} of {progress.total} episodes, {progress.bad} bad")
    if isinstance(source.picture_size, Mapping):
        print(f"its cameras; train with 'data.cameras=[{', '.join(source.picture_size)}]'")
    write_json(
        arguments.json,
        {"dataset": str(arguments.out), "episodes": progress.done, "bad": bad, "notes": list(source.notes)},
    )
    return 1 if bad else 0


def _size(arguments: argparse.Namespace) -> tuple[int, int]:
    """Height and width: as asked for, else those of the dataset that is added to, else of a square."""
    dataset = _added_to(arguments.out)
    if not arguments.size and dataset and dataset.stored_size:
        height, width = dataset.stored_size
        return height * len(dataset.cameras), width
    sides = arguments.size or (_SIZE_PX,)
    if len(sides) > 2 or min(sides) < 1:
        raise ValueError(
            f"size: expected one side or HEIGHT WIDTH, 1 pixel or more, found {' '.join(map(str, sides))}"
        )
    return sides[0], sides[-1]


def _open_source(arguments: argparse.Namespace) -> Source:
    module: Any = importlib.import_module(f"astra_ros.data.importers.{arguments.kind}")
    if arguments.kind == "bags":
        dataset = _added_to(arguments.out)
        schema = dataset.schema if dataset else None
        topics = topics_from(arguments).of(schema.representation if schema else "")
        joints, units = _joints(arguments, schema, is_vehicle=bool(topics.velocity))
        space = arguments.space or (schema.space if schema else arguments.out.name)
        config = module.BagsConfig(space, joints, units, _size(arguments), topics)
        source: Source = module.open_source(arguments.source, config)
        # Recordings of another rate are refused one by one.
        return replace(source, fps=dataset.fps) if dataset else source
    (path,) = arguments.source
    return (
        module.open_source(path, tuple(arguments.cut))
        if arguments.kind in _CUTTABLE
        else module.open_source(path)
    )


def _added_to(folder: Path) -> Dataset | None:
    """The dataset that recordings are added to, if it is there."""
    from astra_ros.data.lerobot import Dataset
    from astra_ros.data.lerobot_index import INFO

    return Dataset.open(folder) if (folder / INFO).is_file() else None


def _joints(
    arguments: argparse.Namespace, schema: ActionSchema | None, *, is_vehicle: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which joints or axes, and their units: as asked for, else the dataset's. Raises ValueError for options of the other kind."""
    others = (
        {"--joints": arguments.joints, "--units": arguments.units}
        if is_vehicle
        else {"--axes": arguments.axes}
    )
    if given := [option for option, value in others.items() if value]:
        what = "a vehicle (--velocity), whose axes (--axes) have units" if is_vehicle else "joint states"
        raise ValueError(f"{given[0]}: expected none for {what}, found some; leave it out")
    names, units = tuple(arguments.axes if is_vehicle else arguments.joints), tuple(arguments.units)
    if schema:
        return names or schema.names, units or schema.units
    return names, units or ("rad",)


def run_list(arguments: argparse.Namespace) -> int:
    """Print what the meta folders say."""
    from astra_ros.data.held_out import held_out
    from astra_ros.data.lerobot import Dataset

    aside, rows, episodes = held_out(arguments.held_out) if arguments.held_out else None, [], []
    for dataset in map(Dataset.open, _paths(arguments.folders)):
        split = aside.split(dataset.name, dataset.episode_names) if aside else None
        rows.append({**_summary(dataset), **({"held_out": len(split.held_out)} if split else {})})
        if arguments.episodes:
            episodes += [
                {"dataset": dataset.name, "episode": name, "frames": dataset.num_frames(name)}
                for name in dataset.episode_names
            ]
    _print_table(rows)
    if episodes:
        print()
        _print_table(episodes)
    write_json(arguments.json, {"datasets": rows, **({"episodes": episodes} if arguments.episodes else {})})
    return 0


def run_check(arguments: argparse.Namespace) -> int:
    """Read everything. Exit code 1 when a dataset or an episode is bad."""
    from astra_ros.data.lerobot import Dataset, EpisodeError

    line, rows, bad = ProgressLine(), [], []
    for path in _paths(arguments.folders):
        try:
            dataset = Dataset.open(path, Dataset.open(path).cameras)
        except EpisodeError as error:
            bad.append(str(error))
            continue
        found = _bad_episodes(dataset, line)
        rows.append({**_summary(dataset), "bad": len(found)})
        bad += found
    line.done(
        f"checked {sum(row['episodes'] for row in rows)} episodes in {len(rows)} datasets   {len(bad)} bad"
    )
    _print_table(rows)
    for problem in bad:
        print(f"astra data: {problem}", file=sys.stderr)
    write_json(arguments.json, {"datasets": rows, "bad": bad})
    return 1 if bad else 0


def _bad_episodes(dataset: Dataset, line: ProgressLine) -> list[str]:
    """What is wrong with each episode that is bad."""
    bad: list[str] = []
    names, size = dataset.episode_names, (_CHECK_SIZE_PX * len(dataset.cameras), _CHECK_SIZE_PX)
    for read, _ in enumerate(dataset.stream(names, size, lambda error: bad.append(str(error))), 1):
        line.update(f"{dataset.name} {read + len(bad)} of {len(names)} episodes checked   {len(bad)} bad")
    return bad


def _paths(folders: list[Path]) -> list[Path]:
    """The datasets in the folders; a folder that neither is one nor holds any stands for itself."""
    from astra_ros.data.lerobot_index import INFO

    paths: list[Path] = []
    for folder in folders:
        inside = sorted(file.parents[1] for file in folder.glob(f"*/{INFO}"))
        paths += [folder] if (folder / INFO).exists() or not inside else inside
    return paths


def _summary(dataset: Dataset) -> dict[str, Any]:
    frames = sum(dataset.num_frames(name) for name in dataset.episode_names)
    schema = dataset.schema
    return {
        "dataset": dataset.name,
        "space": schema.space,
        "modality": schema.modality,
        "representation": schema.representation,
        "actions": schema.dim,
        "fps": dataset.fps,
        "cameras": ",".join(dataset.cameras),
        "episodes": len(dataset.episode_names),
        "frames": frames,
        "minutes": round(frames / dataset.fps / 60, 2),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    cells = [
        list(rows[0]),
        *([f"{v:g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows),
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
