"""A WidowX arm (BridgeData V2) in RLDS: TFRecord files of whole episodes. Each camera is an episode of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.episode import Episode
from astra_ros.data.importers.source import Source, files, nominal_stamps
from astra_ros.data.importers.tfrecord import read_examples
from astra_ros.data.schema import ActionSchema, EpisodeError
from astra_ros.data.video import decode_picture

FPS = 5.0
PICTURE_SIZE = (64, 64)
NUM_CAMERAS = 4
_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
_UNITS = (
    "m",
    "m",
    "m",
    "rad",
    "rad",
    "rad",
    "1",
)  # change of the end effector in a step; gripper: 0 closed, 1 open
SCHEMA = ActionSchema("bridge", "arm", "rate", _NAMES, _UNITS)
_ACTION, _TEXT, _IMAGE = "steps/action", "steps/language_instruction", "steps/observation/image_{}"


def open_source(path: Path) -> Source:
    """path: a folder of *-train.tfrecord-* files.

    Only the training split: in the public excerpt the other one holds the same episodes in another order.
    """
    episodes, tasks = {}, {}
    examples = [
        (file, example) for file in files(path, "*-train.tfrecord-*") for example in read_examples(file)
    ]
    for index, (file, example) in enumerate(examples):
        for camera in range(NUM_CAMERAS):
            pictures = example.get(_IMAGE.format(camera), [])
            if len(set(pictures)) < 2:  # the picture of an absent camera is always the same
                continue
            name = f"episode_{index:06d}_cam{camera}"
            episodes[name] = partial(_load, file, example, pictures, name)
            tasks[name] = example.get(_TEXT, [b""])[0].decode()
    return Source(SCHEMA, FPS, PICTURE_SIZE, episodes, tasks)


def _load(file: Path, example: dict[str, Any], pictures: list[bytes], name: str) -> Episode:
    pixels = np.stack([decode_picture(data, f"{file}: {name}") for data in pictures])
    sent = example.get(_ACTION, np.zeros(0))
    if sent.size != len(pixels) * len(_NAMES):
        raise EpisodeError(file, f"{_ACTION} of {name}", f"{len(_NAMES)} values per picture", str(sent.size))
    rows = sent.reshape(len(pixels), len(_NAMES))
    led = np.concatenate([rows[:1], rows[:-1]])  # a row acts from its picture to the next
    return Episode(name, nominal_stamps(len(pixels), FPS), pixels, led, led)
