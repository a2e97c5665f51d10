"""Radio-controlled cars recorded by Donkey Car: "tubs" of JPEG pictures and catalogs with steering and throttle."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.episode import Episode, IntArray
from astra_ros.data.importers.source import Source, gaps, json_lines, nominal_stamps, segments
from astra_ros.data.schema import ActionSchema, EpisodeError
from astra_ros.data.video import decode_picture

_RECORDED_FPS, _EVERY = 20.0, 2
FPS = _RECORDED_FPS / _EVERY
PICTURE_SIZE = (120, 160)
SCHEMA = ActionSchema("rc_car", "drive", "rate", ("steer", "throttle"), ("1", "1"))
_LONGEST_GAP_S, _FEWEST_FRAMES = 0.3, 40
# A converted tub carries the time of its conversion; frames closer than this were not recorded then.
_CONVERTED_NS = 25_000_000
_INDEX, _STAMP, _PICTURE, _STEER, _THROTTLE = (
    "_index", "_timestamp_ms", "cam/image_array", "user/angle", "user/throttle",
)  # fmt: skip


@dataclass(frozen=True)
class Tub:
    """records: rows of the catalogs that have a picture, by index; picture: content of a picture file by its name."""

    path: Path
    records: list[dict[str, Any]]
    picture: Callable[[str], bytes]


def open_source(path: Path, cuts_s: tuple[float, ...] = ()) -> Source:
    """path: a tub as a folder (images/ may be images.zip), a tar.gz file of one, or the folder of such a file.

    cuts_s: where to cut beside the recording's own gaps, seconds of recording at 20 Hz.
    """
    tub = open_tub(path)
    stamps = _stamps_ns(tub)
    jumps = np.flatnonzero(np.diff([record[_INDEX] for record in tub.records]) != 1) + 1
    cuts = sorted(
        {*jumps.tolist(), *gaps(stamps, _LONGEST_GAP_S), *(round(s * _RECORDED_FPS) for s in cuts_s)}
    )
    episodes = {
        name: partial(_load, tub, stamps, name, segment)
        for name, segment in segments(len(stamps), cuts).items()
        if segment.stop - segment.start >= _FEWEST_FRAMES
    }
    return Source(SCHEMA, FPS, PICTURE_SIZE, episodes)


def open_tub(path: Path) -> Tub:
    """Raises EpisodeError when there are no records with pictures."""
    archive = path if path.is_file() else next(iter(sorted(path.glob("*.tar.gz"))), None)
    if archive is not None:
        contents = _untar(archive)
        catalogs = [content for name, content in contents.items() if _is_catalog(name)]
        return Tub(path, _records(path, catalogs, contents), contents.__getitem__)
    catalogs = [file.read_bytes() for file in path.iterdir() if _is_catalog(file.name)]
    if (path / "images.zip").exists():
        pictures = zipfile.ZipFile(path / "images.zip")
        return Tub(path, _records(path, catalogs, set(pictures.namelist())), pictures.read)
    names = {file.name for file in path.glob("images/*")}
    return Tub(path, _records(path, catalogs, names), lambda name: (path / "images" / name).read_bytes())


def _untar(archive: Path) -> dict[str, bytes]:
    """Contents by file name."""
    try:
        with tarfile.open(archive) as tar:
            members = [(Path(member.name).name, tar.extractfile(member)) for member in tar if member.isfile()]
            return {name: stream.read() for name, stream in members if stream is not None}
    except (tarfile.TarError, EOFError, OSError) as error:
        raise EpisodeError(archive, "content", "a whole tar.gz file", str(error)) from None


def _is_catalog(name: str) -> bool:
    return name.endswith(".catalog") and not name.startswith(".")


def _records(path: Path, catalogs: list[bytes], pictures: Container[str]) -> list[dict[str, Any]]:
    rows = [row for content in catalogs for row in json_lines(path, content)]
    needed = (_INDEX, _STAMP, _PICTURE, _STEER, _THROTTLE)
    records = [row for row in rows if all(key in row for key in needed) and row[_PICTURE] in pictures]
    if not records:
        raise EpisodeError(
            path, "catalogs", f"records with {', '.join(needed)} and pictures", f"{len(rows)} without"
        )
    return sorted(records, key=lambda record: record[_INDEX])


def _stamps_ns(tub: Tub) -> IntArray:
    stamps = np.array([record[_STAMP] for record in tub.records], np.int64) * 1_000_000
    if np.median(np.diff(stamps)) < _CONVERTED_NS:
        return nominal_stamps(len(stamps), _RECORDED_FPS)
    return stamps


def _load(tub: Tub, stamps: IntArray, name: str, segment: slice) -> Episode:
    """Every second frame; what led to it is the mean of the two rows since the one before, each recorded with its frame."""
    usable = (segment.stop - segment.start) // _EVERY * _EVERY
    records = tub.records[segment][:usable]
    rows = np.array([[record[_STEER], record[_THROTTLE]] for record in records], np.float32)
    acted = rows.reshape(-1, _EVERY, SCHEMA.dim).mean(axis=1)
    led = np.concatenate([acted[:1], acted[:-1]])
    names = [record[_PICTURE] for record in records[::_EVERY]]
    pixels = np.stack([decode_picture(tub.picture(file), tub.path / file) for file in names])
    return Episode(name, stamps[segment][:usable:_EVERY], pixels, led, led)
