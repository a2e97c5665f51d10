"""A Unitree G1 humanoid with Inspire hands, head camera: a LeRobot v2.1 set thinned to one video and one .npz per episode."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from astra_ros.data.episode import Episode
from astra_ros.data.importers.source import Source, files, load_arrays, nominal_stamps
from astra_ros.data.lerobot_index import read_json
from astra_ros.data.schema import ActionSchema, EpisodeError
from astra_ros.data.video import read_video
from astra_ros.types import FloatArray

FPS = 10.0
PICTURE_SIZE = (240, 320)
TASK = "Pick up the yellow bottle on the table."
_ARM_JOINTS, _HAND_JOINTS = 14, 12
# The recorder sent commands at 30 Hz, with every camera frame; the set keeps every third row.
_COMMAND_AGE_FRAMES = 1 / 3


def open_source(path: Path) -> Source:
    """path: the folder with info.json, data/ and videos/."""
    names = _joint_names(path / "info.json")
    # The hands' joints are shares of their range.
    units = ("rad",) * _ARM_JOINTS + ("1",) * _HAND_JOINTS
    found = [file.stem for file in files(path, "data/*.npz")]
    return Source(
        schema=ActionSchema("g1", "arm", "joint_position", names, units),
        fps=FPS,
        picture_size=PICTURE_SIZE,
        episodes={name: partial(_load, path, name) for name in found},
        tasks=dict.fromkeys(found, TASK),
    )


def _joint_names(file: Path) -> tuple[str, ...]:
    try:
        (names,) = read_json(file)["features"]["action"]["names"]
    except (KeyError, TypeError, ValueError) as error:
        raise EpisodeError(file, "features.action.names", "a list in a list", str(error)) from None
    return tuple(names)


def _load(path: Path, name: str) -> Episode:
    measured, sent = load_arrays(path / f"data/{name}.npz", "state", "action")
    video = path / f"videos/{name}.mp4"
    pixels = read_video(video)
    if len(pixels) != len(measured):
        raise EpisodeError(video, "frames", f"{len(measured)} (one per row)", str(len(pixels)))
    stamps = nominal_stamps(len(pixels), FPS)
    return Episode(name, stamps, pixels, measured, before_frames(sent, _COMMAND_AGE_FRAMES))


def before_frames(sent: FloatArray, age: float) -> FloatArray:
    """Commands `age` frames before each frame, linearly between those sent with the frames: the last that led to each."""
    previous = np.concatenate([sent[:1], sent[:-1]])
    return (sent + age * (previous - sent)).astype(np.float32)
