"""Datasets in LeRobot layout, read one episode at a time: v2.1 as this project writes it, public v2.x and v3.0 as they are.

A row's `action` is what acted from its frame to the next one (LeRobot's convention); an Episode's `commanded` row is what
led to its frame, so reading moves the column by one row. Measured positions that stand for commands are already those at
the end of the step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from astra_ros.data.episode import Episode, IntArray, longest_pause
from astra_ros.data.lerobot_index import STAMP, DatasetIndex, EpisodeRecord, VideoPart, read_index
from astra_ros.data.lerobot_writer import DatasetWriter
from astra_ros.data.schema import ActionSchema, EpisodeError
from astra_ros.data.video import decode_picture, decode_video
from astra_ros.frames.preprocess import fit, share_of, stacked
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

__all__ = ["ActionSchema", "Dataset", "DatasetWriter", "EpisodeError"]


class Dataset:
    """Episodes of one robot in a folder. Nothing is kept in memory but the list of episodes."""

    def __init__(self, path: Path, index: DatasetIndex) -> None:
        self.path = path
        self._index = index
        self._records = {record.name: record for record in index.episodes}

    @classmethod
    def open(cls, path: Path, cameras: Sequence[str] = ()) -> Dataset:
        """Open a dataset. cameras: which to read, the first one by default; pictures of several are stacked from top to bottom.

        Raises EpisodeError, one line, when it cannot be read.
        """
        return cls(path, read_index(path, cameras))

    @property
    def name(self) -> str:
        return self._index.name

    @property
    def fps(self) -> float:
        return self._index.fps

    @property
    def schema(self) -> ActionSchema:
        return self._index.schema

    @property
    def cameras(self) -> tuple[str, ...]:
        """Names of all that it has."""
        return self._index.available

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """(height, width) that each camera's pictures were cropped and resized to; None: they are the camera's own."""
        return self._index.stored_size

    @property
    def camera_sizes(self) -> tuple[tuple[int, int] | None, ...]:
        """(height, width) of the own pictures of each camera that is read; None: not known."""
        return self._index.camera_sizes

    @property
    def episode_names(self) -> tuple[str, ...]:
        return tuple(self._records)

    def num_frames(self, name: str) -> int:
        """Frames of an episode, as the meta folder says."""
        return self._record(name).length

    def task(self, name: str) -> str:
        """What was done in an episode, in words."""
        return self._record(name).task

    def stamps_ns(self, name: str) -> IntArray:
        """(n,) of an episode's frames, without reading its pictures. Raises EpisodeError when it is damaged."""
        record = self._record(name)
        return _stamps_ns(record, self._table(record))

    def read(self, name: str, size: int | tuple[int, int]) -> Episode:
        """One episode, its pictures fitted to `size` (a square's side, or height and width), which several cameras share.

        Raises EpisodeError when it is damaged: file, field, expected, found.
        """
        record = self._record(name)
        table = self._table(record)
        measured = _matrix(record, table, self._index.measured, self.schema.dim)
        action = _matrix(record, table, self._index.commanded, self.schema.dim)
        commanded = self._led(record, measured, action)
        # One column is both: positions as they are, rates moved by one row, so that they lead to their frames.
        is_one = self._index.commanded == self._index.measured
        return Episode(
            name=name,
            stamps_ns=_stamps_ns(record, table),
            pixels=self._pixels(record, table, (size, size) if isinstance(size, int) else size),
            measured=commanded if is_one else measured,
            commanded=commanded,
        )

    def stream(
        self, names: Sequence[str], size: int | tuple[int, int], on_bad: Callable[[EpisodeError], None]
    ) -> Iterator[Episode]:
        """Episodes one after the other; a bad one is given to `on_bad` and skipped."""
        for name in names:
            try:
                episode = self.read(name, size)
            except EpisodeError as error:
                on_bad(error)
            else:
                yield episode

    def _record(self, name: str) -> EpisodeRecord:
        if name not in self._records:
            raise EpisodeError(self.path, "episode", f"one of the {len(self._records)} it holds", repr(name))
        return self._records[name]

    def fingerprint(self, name: str) -> str:
        """Digest that changes with an episode's names, units, rows or pictures. Raises OSError.

        Of the rows it reads the whole file; of pictures, and of files that episodes share, only the length, because it is
        taken of every episode at every start. It does not depend on where the files are or when they were written.
        """
        record, index = self._record(name), self._index
        columns = [index.measured, index.commanded, *index.cameras]
        files = (record.rows, *(video.file for video in record.videos))
        sizes = [file.stat().st_size for file in files]
        seen = [index.schema.to_json(), columns, record.length, record.first_command, sizes]
        has_own_rows = bool(record.videos) and record.videos[0].start_s is None
        rows = record.rows.read_bytes() if has_own_rows else b""
        return hashlib.sha256(json.dumps(seen).encode() + rows).hexdigest()[:16]

    def _pixels(self, record: EpisodeRecord, table: pa.Table, size: tuple[int, int]) -> ByteArray:
        """(t, h, w, 3) what the cameras saw, one below the other."""
        share = share_of(size[0], len(self._index.cameras))
        if record.videos:
            seen = [_of_video(record, video, (share, size[1])) for video in record.videos]
        else:
            seen = [_of_files(record, table[key], (share, size[1])) for key in self._index.cameras]
        return stacked(seen)

    def _led(self, record: EpisodeRecord, measured: FloatArray, action: FloatArray) -> FloatArray:
        """(t, a) what led to each frame."""
        is_rate = self.schema.representation == "rate"
        if self._index.commanded == self._index.measured and not is_rate:
            return measured
        return np.concatenate([self._before(record, measured, action), action[:-1]])

    def _before(self, record: EpisodeRecord, measured: FloatArray, action: FloatArray) -> FloatArray:
        """(1, a) what led to the first frame; where it was not recorded, the first rate, or stillness."""
        if record.first_command is not None:
            return np.asarray([record.first_command], np.float32)
        return action[:1] if self.schema.representation == "rate" else measured[:1]

    def _table(self, record: EpisodeRecord) -> pa.Table:
        """The episode's rows, of the columns that are needed."""
        columns = {self._index.measured, self._index.commanded, "timestamp", "episode_index"}
        columns |= set() if record.videos else {*self._index.cameras}
        try:
            present = pq.read_schema(record.rows).names
            if lacking := columns.difference(present):
                raise EpisodeError(record.rows, "columns", ", ".join(sorted(lacking)), ", ".join(present))
            wanted = [*columns, *({STAMP} & set(present))]
            table = pq.read_table(record.rows, columns=wanted, filters=[("episode_index", "=", record.index)])
        except (pa.ArrowException, OSError) as error:
            raise EpisodeError(record.rows, "content", "a parquet file", str(error)) from None
        if table.num_rows != record.length:
            raise _bad(
                record, "rows", f"{record.length} (its length in the meta folder)", str(table.num_rows)
            )
        return table


def _bad(record: EpisodeRecord, field: str, expected: str, found: str) -> EpisodeError:
    return EpisodeError(record.rows, f"{field} of {record.name}", expected, found)


def _matrix(record: EpisodeRecord, table: pa.Table, column: str, dim: int) -> FloatArray:
    """A column as (t, dim) float32, finite."""
    rows = [row if isinstance(row, list) else [row] for row in table[column].to_pylist()]
    if (lengths := {len(row) for row in rows}) != {dim}:
        raise _bad(record, column, f"{dim} values in every row", ", ".join(map(str, sorted(lengths))))
    try:
        values = np.array(rows, np.float32)
    except (TypeError, ValueError) as error:
        raise _bad(record, column, "numbers", str(error)) from None
    if (bad := np.flatnonzero(~np.isfinite(values).all(axis=1))).size:
        raise _bad(
            record, column, "finite numbers", f"NaN or infinity in {len(bad)} rows, the first is {bad[0]}"
        )
    return values


def _stamps_ns(record: EpisodeRecord, table: pa.Table) -> IntArray:
    exact = STAMP in table.column_names
    values = np.array(
        table[STAMP if exact else "timestamp"].to_pylist(), np.int64 if exact else float
    ).reshape(-1)
    stamps = values if exact else np.rint(values * NANOSECONDS)
    if not (np.diff(stamps) > 0).all():
        row = int(np.flatnonzero(~(np.diff(stamps) > 0))[0]) + 1
        raise _bad(
            record, "timestamp", "growing values", f"{values[row]} after {values[row - 1]} in row {row}"
        )
    found = stamps.astype(np.int64)
    if (pause := longest_pause(found)) is not None:
        expected = "a camera without a pause, for steps are counted in frames"
        raise _bad(
            record, "timestamp", expected, f"{pause[1]:.3g} s after row {pause[0]}; cut it there into two"
        )
    return found


def _of_video(record: EpisodeRecord, video: VideoPart, size: tuple[int, int]) -> ByteArray:
    alone = video.start_s is None  # then a frame too many shows that rows are missing
    frames = islice(decode_video(video.file, video.start_s or 0.0), record.length + alone)
    return _fitted(record, video.file, frames, size)


def _of_files(record: EpisodeRecord, pictures: pa.ChunkedArray, size: tuple[int, int]) -> ByteArray:
    """Of a column of files."""
    frames = (decode_picture(cell["bytes"] or b"", record.rows) for cell in pictures.to_pylist())
    return _fitted(record, record.rows, frames, size)


def _fitted(
    record: EpisodeRecord, file: Path, frames: Iterable[ByteArray], size: tuple[int, int]
) -> ByteArray:
    """(t, h, w, 3) of one camera."""
    fitted = [fit(frame, *size) for frame in frames]
    if len(fitted) != record.length:
        raise EpisodeError(
            file, f"frames of {record.name}", f"{record.length} (one per row)", str(len(fitted))
        )
    return np.stack(fitted)
