"""Damaged datasets: one line that names file, field, expected and found; the other episodes are read all the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from astra_ros.data.lerobot import Dataset, EpisodeError
from tests.unit.data.lerobot_fixture import FRAMES, SIZE, encode, pictures, rewrite_column, write

Damage = Callable[[Path], None]
ROWS = "data/chunk-000/episode_000001.parquet"
FILM = "videos/chunk-000/observation.images.camera/episode_000001.mp4"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "small")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "small"))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def film(path: Path, frames: int) -> None:
    repeated = np.concatenate([pictures(1), pictures(1)])
    encode(path / FILM, repeated[:frames])


def column(name: str, values: Callable[[list[object]], list[object] | None]) -> Damage:
    def damage(path: Path) -> None:
        rewrite_column(path / ROWS, name, values(pq.read_table(path / ROWS)[name].to_pylist()))

    return damage


def without_last_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path / ROWS).slice(0, FRAMES - 3), path / ROWS)


def paused(path: Path) -> None:
    stamps = np.array(pq.read_table(path / ROWS)["observation.stamp_ns"].to_pylist())
    stamps[4:] += 2_000_000_000
    rewrite_column(path / ROWS, "observation.stamp_ns", stamps.tolist())


DAMAGES: dict[str, tuple[Damage, str, str]] = {
    "truncated video": (lambda p: cut(p / FILM), FILM, "video: expected decodable frames, found"),
    "no video": (lambda p: (p / FILM).unlink(), FILM, "video: expected decodable frames, found"),
    "frames missing": (lambda p: film(p, 9), FILM, r"frames of second: expected 12 \(one per row\), found 9"),
    "rows missing": (lambda p: film(p, 15), FILM, r"frames of second: expected 12 \(one per row\), found 13"),
    "rows cut off": (
        without_last_rows,
        ROWS,
        r"rows of second: expected 12 \(its length in the meta folder\), found 9",
    ),
    "NaN action": (
        column("action", lambda rows: [*rows[:4], [0.5, float("nan")], *rows[5:]]),
        ROWS,
        "action of second: expected finite numbers, found NaN or infinity in 1 rows, the first is 4",
    ),
    "null action": (
        column("action", lambda rows: [*rows[:-1], [None, 1.0]]),
        ROWS,
        "action of second: expected finite",
    ),
    "no action": (
        column("action", lambda rows: [*rows[:-1], None]),
        ROWS,
        "action of second: expected 2 values",
    ),
    "wrong dimensions": (
        column("observation.state", lambda rows: [[1.0, 2.0, 3.0]] * len(rows)),
        ROWS,
        "observation.state of second: expected 2 values in every row, found 3",
    ),
    "words": (
        column("action", lambda rows: [["a", "b"]] * len(rows)),
        ROWS,
        "action of second: expected numbers",
    ),
    "time goes back": (
        column("observation.stamp_ns", lambda rows: rows[::-1]),
        ROWS,
        "timestamp of second: expected growing values, found .* in row 1",
    ),
    "a pause": (
        paused,
        ROWS,
        r"timestamp of second: expected a camera without a pause, .*found 2\.[0-9]* s after row 3; cut it there",
    ),
    "column missing": (
        column("action", lambda _: None),
        ROWS,
        "columns: expected action, found observation.state",
    ),
    "truncated rows": (lambda p: cut(p / ROWS), ROWS, "content: expected a parquet file, found"),
    "no rows": (lambda p: (p / ROWS).unlink(), ROWS, "content: expected a parquet file, found"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_one_bad_episode_is_reported_and_skipped(copy: Path, damage: str) -> None:
    do, file, message = DAMAGES[damage]
    do(copy)
    dataset = Dataset.open(copy)
    with pytest.raises(EpisodeError, match=message):
        dataset.read("second", SIZE)
    bad: list[EpisodeError] = []
    read = [episode.name for episode in dataset.stream(dataset.episode_names, SIZE, bad.append)]
    assert read == ["first", "third"]
    (error,) = bad
    assert str(error).startswith(str(copy / file))
    assert "\n" not in str(error)


def info(**changes: object) -> Damage:
    def damage(path: Path) -> None:
        file = path / "meta/info.json"
        fields = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))

    return damage


def text(file: str, content: str) -> Damage:
    def damage(path: Path) -> None:
        (path / file).write_text(content)

    return damage


META_DAMAGES: dict[str, tuple[Damage, str]] = {
    "empty folder": (
        lambda p: (p / "meta/info.json").unlink(),
        "info.json: content: expected a JSON object, found",
    ),
    "torn info": (lambda p: cut(p / "meta/info.json"), "info.json: content: expected a JSON object, found"),
    "a list": (text("meta/info.json", "[]"), "info.json: content: expected a JSON object, found list"),
    "version": (
        info(codebase_version="v1.6"),
        "codebase_version: expected one of v2.0, v2.1, v3.0, found v1.6",
    ),
    "no version": (info(codebase_version=None), "codebase_version: expected str, found only"),
    "no rate": (info(fps=None), "fps: expected .*float.*, found only"),
    "rate in words": (info(fps="ten"), "fps: expected .*float.*, found 'ten'"),
    "no features": (info(features={}), "observation.state: expected dict, found only nothing"),
    "no template": (info(data_path=None), "data_path: expected str, found only"),
    "other template": (
        info(data_path="{shard}.parquet"),
        "data_path: expected fields episode_index, .* found {shard}",
    ),
    "no list": (
        lambda p: (p / "meta/episodes.jsonl").unlink(),
        "episodes.jsonl: content: expected one line per episode",
    ),
    "list": (
        text("meta/episodes.jsonl", "{]\n"),
        "episodes.jsonl: content: expected one JSON object per line, found",
    ),
    "length": (
        text("meta/episodes.jsonl", '{"episode_index": 0}\n'),
        "length: expected int, found only episode_index",
    ),
    "size": (
        text("meta/astra.json", '{"size": 128}'),
        r"astra.json: size: expected \[height, width\], found 128",
    ),
    "schema": (
        text("meta/astra.json", '{"schema": {"space": "x"}}'),
        "astra.json: schema: expected space, modality, ",
    ),
}


@pytest.mark.parametrize("damage", META_DAMAGES)
def test_a_dataset_that_cannot_be_opened_says_why_in_one_line(copy: Path, damage: str) -> None:
    do, message = META_DAMAGES[damage]
    do(copy)
    with pytest.raises(EpisodeError, match=message) as caught:
        Dataset.open(copy)
    assert str(caught.value).startswith(str(copy / "meta"))
    assert "\n" not in str(caught.value)


def test_an_unfinished_last_line_costs_its_episode_and_a_missing_newline_none(copy: Path) -> None:
    file = copy / "meta/episodes.jsonl"
    whole = file.read_text()
    file.write_text(whole.rstrip("\n"))
    assert Dataset.open(copy).episode_names == ("first", "second", "third")
    file.write_text(whole[:-20])
    assert Dataset.open(copy).episode_names == ("first", "second")


def test_an_unknown_name(copy: Path) -> None:
    with pytest.raises(EpisodeError, match="episode: expected one of the 3 it holds, found 'fourth'"):
        Dataset.open(copy).read("fourth", SIZE)


def test_a_folder_that_is_no_dataset_says_what_it_is(copy: Path) -> None:
    with pytest.raises(EpisodeError, match=r"none: folder: expected a dataset, found no such folder$"):
        Dataset.open(copy / "none")
    message = rf"folder: expected a dataset, found a folder of datasets: {copy.name}; name one$"
    with pytest.raises(EpisodeError, match=message):
        Dataset.open(copy.parent)
