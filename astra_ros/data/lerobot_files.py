"""What the files of layout v2.1 contain, as this project writes it: pure functions of an episode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from astra_ros.data.episode import Episode
from astra_ros.data.lerobot_index import ACTION, IMAGES, STAMP, STATE
from astra_ros.data.schema import ActionSchema
from astra_ros.data.video import CODEC, PIXEL_FORMAT
from astra_ros.types import ByteArray

CHUNK_SIZE = 1000
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_SCALARS = {
    STAMP: "int64",
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
_PICTURES_IN_STATS = 100


def episode_table(episode: Episode, fps: float, *, index: int, first_row: int, task_index: int) -> pa.Table:
    """The rows of an episode. first_row: rows of the episodes before it.

    A row's action is what acted from its frame on, LeRobot's convention. The last one is not known: what acted last is held.
    """
    length = len(episode.pixels)
    frame_index = np.arange(length)
    scalars = {
        STAMP: episode.stamps_ns,
        "timestamp": frame_index / fps,
        "frame_index": frame_index,
        "episode_index": np.full(length, index),
        "index": first_row + frame_index,
        "task_index": np.full(length, task_index),
    }
    columns = {key: pa.array(values.astype(_SCALARS[key])) for key, values in scalars.items()}
    action = np.concatenate([episode.commanded[1:], episode.commanded[-1:]])
    return pa.table({STATE: _vectors(episode.measured), ACTION: _vectors(action), **columns})


def features(
    schema: ActionSchema, fps: float, cameras: Iterable[str], height: int, width: int
) -> dict[str, Any]:
    """The columns and the cameras' videos, as info.json describes them."""
    vector = {"dtype": "float32", "shape": [schema.dim], "names": list(schema.names)}
    video = {
        "video.fps": fps,
        "video.height": height,
        "video.width": width,
        "video.channels": 3,
        "video.codec": CODEC,
        "video.pix_fmt": PIXEL_FORMAT,
        "video.is_depth_map": False,
        "has_audio": False,
    }
    names = ["height", "width", "channels"]
    film = {"dtype": "video", "shape": [height, width, 3], "names": names, "info": video}
    return {
        STATE: vector,
        ACTION: vector,
        **{IMAGES + camera: film for camera in cameras},
        **{key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in _SCALARS.items()},
    }


def episode_stats(table: pa.Table, views: Mapping[str, ByteArray]) -> dict[str, Any]:
    """Per feature min, max, mean, std and count, as LeRobot expects them; pictures per channel in [0, 1].

    views: (t, h, w, 3) of each camera.
    """
    columns = {key: np.array(table[key].to_pylist(), float) for key in table.column_names}
    stats = {key: _summary(values.reshape(len(values), -1)) for key, values in columns.items()}
    return stats | {IMAGES + camera: _picture_stats(pixels) for camera, pixels in views.items()}


def _picture_stats(pixels: ByteArray) -> dict[str, list[Any]]:
    some = pixels[:: 1 + len(pixels) // _PICTURES_IN_STATS]
    channels = _summary(some.reshape(-1, 3) / 255.0)
    pictures = {key: [[[value]] for value in values] for key, values in channels.items()}
    return {**pictures, "count": [len(some)]}


def _summary(values: np.ndarray) -> dict[str, list[Any]]:
    reduced = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    return {**{key: value.tolist() for key, value in reduced.items()}, "count": [len(values)]}


def _vectors(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(np.float32).ravel()), values.shape[1])
