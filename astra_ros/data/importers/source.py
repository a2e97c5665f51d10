"""What every importer gives: the recordings of one set by name, loaded when asked for, and the way into a dataset."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.episode import Episode, IntArray
from astra_ros.data.schema import ActionSchema, EpisodeError
from astra_ros.frames.preprocess import share_of, unenlarged
from astra_ros.types import NANOSECONDS


@dataclass(frozen=True)
class Source:
    """A set of recordings.

    fps: frames per second of the episodes it loads; picture_size: height and width of the camera's pictures, pixels, or of
    several cameras by name, in the order in which episodes have them.
    episodes: by name; calling one loads it. tasks: what was done in them, in words, where that is known.
    notes: what of the recordings cannot be used although they are not bad, a line each.
    """

    schema: ActionSchema
    fps: float
    picture_size: tuple[int, int] | Mapping[str, tuple[int, int]]
    episodes: Mapping[str, Callable[[], Episode]]
    tasks: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class ImportProgress:
    """done: episodes in the dataset; bad: those that could not be used; total: of the source."""

    done: int
    bad: int
    total: int


def import_source(
    source: Source, out: Path, size: int | tuple[int, int], on_bad: Callable[[str], None]
) -> Iterator[ImportProgress]:
    """Add to the dataset `out` the episodes of a source that it lacks; yields after every one. Its name is the folder's.

    Pictures are cropped to the shape of `size`, a square's side or (height, width), which several cameras share, and reduced
    to it, but never enlarged. A bad recording is left out and told to `on_bad` in one line that names the file.
    """
    from astra_ros.data.lerobot_writer import DatasetWriter  # needs pyarrow, which a robot does not have

    bad, total = 0, len(source.episodes)
    stored = stored_size(source.picture_size, (size, size) if isinstance(size, int) else size)
    with DatasetWriter(out, out.name, source.schema, source.fps, stored, source.picture_size) as writer:
        for seen, (name, load) in enumerate(source.episodes.items(), 1):
            try:
                if not writer.has(name):
                    writer.append(load(), source.tasks.get(name, ""))
            except (ValueError, OSError) as error:
                bad += 1
                on_bad(" ".join(str(error).split()))
            yield ImportProgress(seen - bad, bad, total)


def stored_size(
    cameras: tuple[int, int] | Mapping[str, tuple[int, int]], size: tuple[int, int]
) -> tuple[int, int]:
    """(height, width) of each camera's pictures in a dataset for a model's `size`. A smaller one's are enlarged to the largest."""
    own = [*cameras.values()] if isinstance(cameras, Mapping) else [cameras]
    share = share_of(size[0], len(own))
    return max(unenlarged(*one, share, size[1]) for one in own)


def nominal_stamps(count: int, fps: float) -> IntArray:
    """Stamps (count,) of frames at an exact rate, from 0."""
    return np.rint(np.arange(count) * (NANOSECONDS / fps)).astype(np.int64)


def gaps(stamps_ns: IntArray, longest_s: float) -> list[int]:
    """Frames that come more than `longest_s` after the one before."""
    late = np.diff(stamps_ns) > longest_s * NANOSECONDS
    return [int(frame) + 1 for frame in np.flatnonzero(late)]


def segments(length: int, cuts: Sequence[int]) -> dict[str, slice]:
    """A recording of `length` frames cut before the frames `cuts`, so that whole segments can be held out."""
    edges = [0, *cuts, length]
    return {f"segment_{i:02d}": slice(a, b) for i, (a, b) in enumerate(pairwise(edges))}


def files(path: Path, pattern: str) -> list[Path]:
    """Sorted files of a pattern below `path`. Raises EpisodeError when there are none."""
    found = sorted(path.glob(pattern))
    if not found:
        raise EpisodeError(path, "content", pattern, "no such file")
    return found


def load_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an .npz file. Raises EpisodeError when the file is damaged or lacks one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise EpisodeError(path, "content", f"arrays {', '.join(names)}", str(error)) from None


def array(path: Path, fields: dict[str, Any], name: str) -> np.ndarray:
    """A list of numbers of a JSON file as a float array. Raises EpisodeError when it is missing or something else."""
    try:
        return np.array(fields[name], float)
    except (KeyError, TypeError, ValueError) as error:
        raise EpisodeError(path, name, "numbers", f"{type(error).__name__} {error}") from None


def json_lines(path: Path, content: bytes) -> list[dict[str, Any]]:
    """JSON objects, one a line; zero bytes after them are padding. Raises EpisodeError."""
    lines = [line.strip(b"\0 \r") for line in content.split(b"\n")]
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise EpisodeError(path, "content", "one JSON object per line", str(error)) from None
