"""A Franka Panda with a gripper and three cameras (DROID, the Ctrl-World excerpt). Each camera is an episode of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.episode import Episode
from astra_ros.data.importers.source import Source, array, files, nominal_stamps
from astra_ros.data.lerobot_index import read_json
from astra_ros.data.schema import ActionSchema, EpisodeError
from astra_ros.data.video import read_video
from astra_ros.types import FloatArray

FPS = 5.0
PICTURE_SIZE = (192, 320)
NUM_CAMERAS = 3
_ROWS_PER_FRAME = 3  # joints at 15 Hz
_NAMES = (*(f"panda_joint{i}" for i in range(1, 8)), "gripper")
_UNITS = ("rad",) * 7 + ("1",)  # gripper: 0 open, 1 closed
SCHEMA = ActionSchema("droid", "arm", "joint_position", _NAMES, _UNITS)


def open_source(path: Path) -> Source:
    """path: the folder with annotation/ and videos/, each with train/ and val/."""
    episodes, tasks = {}, {}
    for file in files(path, "annotation/*/*.json"):
        for camera in range(NUM_CAMERAS):
            name = f"{file.parent.name}_{file.stem.zfill(5)}_cam{camera}"
            episodes[name] = partial(_load, path, file, camera, name)
            tasks[name] = " ".join(read_json(file).get("texts", ()))
    return Source(SCHEMA, FPS, PICTURE_SIZE, episodes, tasks)


def _load(path: Path, file: Path, camera: int, name: str) -> Episode:
    rows = read_json(file)
    video = path / "videos" / file.parent.name / file.stem / f"{camera}.mp4"
    pixels = read_video(video)
    measured, sent = _joints(file, rows, "observation.state"), _joints(file, rows, "action")
    at_frames = np.arange(len(pixels)) * _ROWS_PER_FRAME
    if not len(measured) - _ROWS_PER_FRAME <= at_frames[-1] < len(measured):
        expected = f"{-(-len(measured) // _ROWS_PER_FRAME)} ({_ROWS_PER_FRAME} rows each)"
        raise EpisodeError(video, "frames", expected, str(len(pixels)))
    commanded = sent[np.maximum(at_frames - 1, 0)]  # a row's command is sent after its picture is taken
    return Episode(name, nominal_stamps(len(pixels), FPS), pixels, measured[at_frames], commanded)


def _joints(file: Path, rows: dict[str, Any], of: str) -> FloatArray:
    arm, gripper = array(file, rows, f"{of}.joint_position"), array(file, rows, f"{of}.gripper_position")
    if arm.shape != (len(gripper), 7):
        raise EpisodeError(file, f"{of}.joint_position", f"7 joints in {len(gripper)} rows", str(arm.shape))
    return np.concatenate([arm, gripper[:, None]], axis=1).astype(np.float32)
