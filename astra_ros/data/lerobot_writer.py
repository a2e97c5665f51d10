"""Write datasets in LeRobot layout v2.1. A dataset is readable at any time; an episode is in it whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from astra_ros.data.episode import Episode, longest_pause
from astra_ros.data.lerobot_files import (
    CHUNK_SIZE,
    DATA_PATH,
    VIDEO_PATH,
    episode_stats,
    episode_table,
    features,
)
from astra_ros.data.lerobot_index import ASTRA, EPISODES, IMAGES, INFO, TASKS, read_json, read_lines
from astra_ros.data.schema import ActionSchema, EpisodeError
from astra_ros.data.video import encode_video
from astra_ros.frames.preprocess import fit, share_of
from astra_ros.types import NANOSECONDS, ByteArray

STATS = Path("meta/episodes_stats.jsonl")
# What the camera of a dataset that has but one is called.
ONLY_CAMERA = "camera"
_RATE_TOLERANCE = 0.1


class DatasetWriter:
    """Appends episodes to a dataset; reopened after an interruption, it continues where it stopped. A context manager.

    fps: camera rate of the episodes; size: of the stored pictures of a camera, side of a square or (height, width).
    camera: height and width of the camera's own pictures, which are cropped to the shape of `size`; by default these are stored
    whole. Of several cameras by name; the episodes' pictures are theirs one below the other, in this order.
    Raises ValueError when `path` holds a dataset of another declaration, or another process is writing it.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        schema: ActionSchema,
        fps: float,
        size: int | tuple[int, int],
        camera: tuple[int, int] | Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self.path, self._name, self._schema, self._fps = path, name, schema, fps
        self._size = (size, size) if isinstance(size, int) else size
        self._cameras = dict(camera) if isinstance(camera, Mapping) else {ONLY_CAMERA: camera or self._size}
        (path / "meta").mkdir(parents=True, exist_ok=True)
        self._declare()
        self._lock = _lock(path / ASTRA)
        # What an interruption left unfinished, after the last whole episode, goes.
        self._lines = read_lines(path / EPISODES)
        self._names = {line["name"] for line in self._lines}
        _write_lines(path / EPISODES, self._lines)
        _write_lines(path / STATS, read_lines(path / STATS)[: len(self._lines)])
        tasks = dict.fromkeys(task for line in self._lines for task in line["tasks"])
        self._tasks = {task: index for index, task in enumerate(tasks)}
        if self._lines:
            self._write_info()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._lines:
            (self.path / ASTRA).unlink()  # what failed wholly must not bind what is tried next
        self._lock.close()

    def has(self, name: str) -> bool:
        """Whether the episode of that name is in the dataset."""
        return name in self._names

    def append(self, episode: Episode, task: str = "") -> None:
        """Add an episode; its pictures are fitted to the dataset's size.

        task: what was done, in words; the dataset's name by default. Raises EpisodeError when the episode is not sound.
        """
        self._require_sound(episode)
        index, task = len(self._lines), task or self._name
        views = self._views(episode)
        table = episode_table(
            episode,
            self._fps,
            index=index,
            first_row=self._num_frames,
            task_index=self._tasks.setdefault(task, len(self._tasks)),
        )
        for camera, pixels in views.items():
            with _replacing(self._file(VIDEO_PATH, index, camera)) as part:
                encode_video(part, pixels, self._fps)
        with _replacing(self._file(DATA_PATH, index)) as part:
            pq.write_table(table, part)
        _append_line(self.path / STATS, {"episode_index": index, "stats": episode_stats(table, views)})
        line = {
            "episode_index": index,
            "tasks": [task],
            "length": len(episode.pixels),
            "name": episode.name,
            "first_command": [float(value) for value in episode.commanded[0]],
        }
        _append_line(self.path / EPISODES, line)  # from here on the episode is in the dataset
        self._lines.append(line)
        self._names.add(episode.name)
        self._write_info()

    @property
    def _num_frames(self) -> int:
        return sum(line["length"] for line in self._lines)

    def _views(self, episode: Episode) -> dict[str, ByteArray]:
        """(t, h, w, 3) that each camera saw, at the dataset's size."""
        share = share_of(episode.pixels.shape[1], len(self._cameras))
        return {
            camera: np.stack([fit(frame[row : row + share], *self._size) for frame in episode.pixels])
            for camera, row in zip(self._cameras, count(0, share), strict=False)
        }

    def _file(self, template: str, index: int, camera: str = "") -> Path:
        place = {"episode_chunk": index // CHUNK_SIZE, "episode_index": index, "video_key": IMAGES + camera}
        return self.path / template.format(**place)

    def _declare(self) -> None:
        is_one = [*self._cameras] == [ONLY_CAMERA]
        sizes = {"camera": self._cameras[ONLY_CAMERA]} if is_one else {"cameras": self._cameras}
        wanted = {
            "name": self._name,
            "schema": self._schema.to_json(),
            "fps": self._fps,
            "size": self._size,
            **sizes,
        }
        file, declared = self.path / ASTRA, json.loads(json.dumps(wanted))
        if not file.exists():
            _write_json(file, declared)
        asked = _fields(declared)
        for field, value in _fields(read_json(file)).items():
            if value != asked.get(field):
                raise ValueError(
                    f"{file}: {field}: expected {asked.get(field)} as asked for, found {value}; "
                    f"choose another folder, or remove this one (rm -r {self.path})"
                )

    def _require_sound(self, episode: Episode) -> None:
        frames, stamps = len(episode.pixels), episode.stamps_ns
        if self.has(episode.name):
            raise EpisodeError(self.path, "episode", "a new name", repr(episode.name))
        if frames < 2 or len(stamps) != frames:
            raise EpisodeError(
                episode.name, "pixels", "2 frames or more, one per stamp", f"{frames}, {len(stamps)} stamps"
            )
        for field in ("measured", "commanded"):
            values, wanted = getattr(episode, field), (frames, self._schema.dim)
            if values.shape != wanted:
                raise EpisodeError(episode.name, field, str(wanted), str(values.shape))
            if not np.isfinite(values).all():
                raise EpisodeError(
                    episode.name, field, "finite numbers", f"{np.sum(~np.isfinite(values))} others"
                )
        if (np.diff(stamps) <= 0).any():
            raise EpisodeError(episode.name, "stamps_ns", "growing", f"a step of {np.diff(stamps).min()}")
        if (pause := longest_pause(stamps)) is not None:
            found = f"one of {pause[1]:.3g} s after frame {pause[0]}; cut it there into two"
            raise EpisodeError(episode.name, "stamps_ns", "a camera without a pause", found)
        rate = NANOSECONDS / float(np.median(np.diff(stamps)))
        if abs(rate - self._fps) > _RATE_TOLERANCE * self._fps:
            remedy = "import it into a dataset of its own, or fix the exposure and record again"
            found = f"a camera at {rate:.3g} Hz; {remedy}"
            raise EpisodeError(episode.name, "stamps_ns", f"{self._fps:g} Hz, the dataset's rate", found)

    def _write_info(self) -> None:
        num_episodes = len(self._lines)
        tasks = [{"task_index": index, "task": task} for task, index in self._tasks.items()]
        _write_lines(self.path / TASKS, tasks)
        info = {
            "codebase_version": "v2.1",
            "robot_type": self._schema.space,
            "total_episodes": num_episodes,
            "total_frames": self._num_frames,
            "total_tasks": len(tasks),
            "total_videos": num_episodes * len(self._cameras),
            "total_chunks": -(-num_episodes // CHUNK_SIZE),
            "chunks_size": CHUNK_SIZE,
            "fps": int(self._fps) if self._fps == int(self._fps) else self._fps,
            "splits": {"train": f"0:{num_episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": features(self._schema, self._fps, self._cameras, *self._size),
        }
        _write_json(self.path / INFO, info)


def _fields(declared: dict[str, Any]) -> dict[str, Any]:
    """With the schema's fields among the others, so that what differs is named alone."""
    others = {field: value for field, value in declared.items() if field != "schema"}
    return others | {f"schema.{field}": value for field, value in declared.get("schema", {}).items()}


def _lock(path: Path) -> Any:
    """An open file that only one process can hold; the lock goes with the process."""
    file = path.open()
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(
            f"{path.parent.parent}: expected no other writer, found one; wait for it, or choose another folder"
        ) from None
    return file


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A file that appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _append_line(path: Path, fields: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(fields) + "\n")


def _write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    with _replacing(path) as part:
        part.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_json(path: Path, fields: dict[str, Any]) -> None:
    with _replacing(path) as part:
        part.write_text(json.dumps(fields, indent=1) + "\n")
