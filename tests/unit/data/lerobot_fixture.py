"""Small datasets that tests know exactly: pictures whose brightness says episode and frame."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import ActionSchema, DatasetWriter
from astra_ros.types import NANOSECONDS, ByteArray

ARM = ActionSchema("small_arm", "arm", "joint_position", ("shoulder", "elbow"), ("rad", "rad"))
FPS, FRAMES, SIZE = 10.0, 12, 32
NAMES = ("first", "second", "third")


def level(number: int, frame: int) -> int:
    """Brightness of a frame of the `number`-th episode."""
    return 20 + 70 * number + 5 * frame


def pictures(number: int, height: int = SIZE, width: int = SIZE) -> ByteArray:
    levels = np.array([level(number, frame) for frame in range(FRAMES)], np.uint8)
    return np.tile(levels[:, None, None, None], (1, height, width, 3))


def episode(number: int, dim: int = 2) -> Episode:
    rng = np.random.default_rng(number)
    stamps = (
        1_700_000_000 * NANOSECONDS
        + np.arange(FRAMES) * (NANOSECONDS // 10)
        + rng.integers(0, 999_999, FRAMES)
    )
    measured, commanded = rng.normal(size=(2, FRAMES, dim)).astype(np.float32)
    return Episode(NAMES[number], stamps, pictures(number), measured, commanded)


def write(path: Path, numbers: tuple[int, ...] = (0, 1, 2)) -> Path:
    with DatasetWriter(path, "small", ARM, FPS, SIZE) as writer:
        for number in numbers:
            writer.append(episode(number), f"task {number}")
    return path


def rewrite_column(file: Path, name: str, values: list[Any] | None) -> None:
    """Replace a column of a parquet file, or remove it."""
    table = pq.read_table(file)
    index = table.column_names.index(name)
    table = table.remove_column(index) if values is None else table.set_column(index, name, pa.array(values))
    pq.write_table(table, file)


def encode(path: Path, frames: ByteArray, pixel_format: str = "yuv420p") -> None:
    """A video as other programs write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "10", "g": "7"})
        stream.pix_fmt = pixel_format
        stream.height, stream.width = frames.shape[1:3]
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))


def levels(pixels: ByteArray) -> list[int]:
    return [round(float(frame.mean())) for frame in pixels]
