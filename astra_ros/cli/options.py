"""Options that several subcommands have, and what becomes of them."""

from __future__ import annotations

import argparse
import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from astra_ros.data.episode import EpisodeTopics

TOPIC_OPTIONS = ("image", "joint_states", "joint_commands", "velocity", "velocity_commands")
_VELOCITY_HELP = """of a robot that drives, in place of joint states: nav_msgs/Odometry, or, where it has none, the commands (Twist,
TwistStamped, AckermannDriveStamped)"""
_UNITS = ("_s", "_hz")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")


def add_held_out(parser: argparse.ArgumentParser) -> None:
    """`--held-out FILE`."""
    parser.add_argument(
        "--held-out",
        type=Path,
        default=Path("config/held_out.yaml"),
        metavar="FILE",
        help="which episodes were not trained on (default: %(default)s)",
    )


def add_topics(parser: argparse.ArgumentParser) -> None:
    """Where the recordings keep camera, joint states and commands."""
    default = EpisodeTopics()
    parser.add_argument(
        "--image",
        nargs="+",
        default=default.images,
        metavar="TOPIC",
        help=f"of the camera in the recordings, or of several, whose pictures are one below the other (default: {default.image})",
    )
    for name in TOPIC_OPTIONS[1:]:
        help_text = _VELOCITY_HELP if name == "velocity" else "topic in the recordings (default: %(default)s)"
        option = "--" + name.replace("_", "-")
        parser.add_argument(option, default=getattr(default, name), metavar="TOPIC", help=help_text)


def topics_from(arguments: argparse.Namespace) -> EpisodeTopics:
    """What `add_topics` parsed. Raises ValueError for a camera that comes twice."""
    image, *others = arguments.image
    if len({image, *others}) != len(arguments.image):
        raise ValueError(f"--image: expected every topic once, found {' '.join(arguments.image)}")
    found = {name: getattr(arguments, name) for name in TOPIC_OPTIONS[1:]}
    return EpisodeTopics(image, **found, other_images=tuple(others))


def require_json_folder(arguments: argparse.Namespace) -> None:
    """Raise ValueError when what `--json` asks for could not be written: hours of work must not be lost in the end."""
    file: Path | None = getattr(arguments, "json", None)
    if file is not None and file.suffix in (".md", ".png"):
        raise ValueError(
            f"--json: expected a file beside which one of that name with .md or .png may be written, found {file}; name it"
            f" {file.with_suffix('.json')}"
        )
    if file is not None and not file.parent.is_dir():
        raise ValueError(
            f"--json: expected a file in an existing folder, found {file}; mkdir -p {file.parent}"
        )


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write what `--json` asked for; nothing when it was not given."""
    if path is not None:
        path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


def add_config(parser: argparse.ArgumentParser, config: type[Any]) -> None:
    """One option per field of a config dataclass that has a default, named like the field less its unit."""
    for field in fields(config):
        if field.default is MISSING:
            continue
        name, description = "--" + _option(field.name), field.metadata["description"]
        if isinstance(field.default, bool):
            parser.add_argument(name, dest=field.name, action="store_true", help=description)
        elif isinstance(field.default, tuple):
            parser.add_argument(
                name, dest=field.name, nargs="+", default=(), metavar="NAME", help=description
            )
        else:
            metavar = "HZ" if field.name.endswith("_hz") else "S" if field.name.endswith("_s") else "X"
            description += " (default: %(default)g)"
            parser.add_argument(
                name, dest=field.name, type=float, default=field.default, metavar=metavar, help=description
            )


def config_from(arguments: argparse.Namespace, config: type[Any], **values: Any) -> Any:
    """The config whose options `add_config` added; `values` are the fields without a default."""
    optional = {f.name: getattr(arguments, f.name) for f in fields(config) if f.default is not MISSING}
    return config(**values, **{name: tuple(v) if isinstance(v, list) else v for name, v in optional.items()})


def _option(field_name: str) -> str:
    for unit in _UNITS:
        field_name = field_name.removesuffix(unit)
    return field_name.replace("_", "-")
