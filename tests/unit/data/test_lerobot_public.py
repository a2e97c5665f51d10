"""Public datasets as they are: layout v3.0, names as others write them, several cameras, pictures in the rows."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from astra_ros.data.lerobot import Dataset, EpisodeError
from tests.unit.data.lerobot_fixture import FPS, FRAMES, encode, episode, level, levels, pictures

TOP, WRIST = "observation.images.top", "observation.images.wrist"
JOINTS = {"motors": ["shoulder", "elbow"]}
HEIGHT, WIDTH = 48, 64


def vector(names: Any = None, dim: int = 2) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [dim], "names": names}


def describe(path: Path, version: str, cameras: dict[str, str], **changes: Any) -> None:
    info = {
        "codebase_version": version,
        "robot_type": "small",
        "fps": int(FPS),
        "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": vector(JOINTS),
            "action": vector(JOINTS),
            **{
                key: {"dtype": dtype, "shape": [HEIGHT, WIDTH, 3], "names": None}
                for key, dtype in cameras.items()
            },
        },
    }
    (path / "meta").mkdir(parents=True, exist_ok=True)
    (path / "meta/info.json").write_text(json.dumps(info | changes))


def rows(numbers: list[int]) -> dict[str, list[Any]]:
    episodes = [episode(number) for number in numbers]
    return {
        "observation.state": [row for e in episodes for row in e.measured.tolist()],
        "action": [row for e in episodes for row in e.commanded.tolist()],
        "timestamp": [frame / FPS for _ in numbers for frame in range(FRAMES)],
        "episode_index": [number for number in numbers for _ in range(FRAMES)],
    }


def write_v3(path: Path) -> Path:
    """Episodes 0 and 1 share files, 2 has the next ones. In the wrist's films the first one is the last."""
    describe(path, "v3.0", {TOP: "video", WRIST: "video"})
    for file, numbers in enumerate(([0, 1], [2])):
        (path / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows(numbers)), path / f"data/chunk-000/file-{file:03d}.parquet")
        for key, shown in ((TOP, numbers), (WRIST, [2 - number for number in numbers])):
            film = np.concatenate([pictures(number, HEIGHT, WIDTH) for number in shown])
            encode(path / f"videos/{key}/chunk-000/file-{file:03d}.mp4", film)
    table: dict[str, list[Any]] = {
        "episode_index": [0, 1, 2],
        "tasks": [["lift"], ["lift"], ["stack", "lift"]],
        "length": [FRAMES] * 3,
        "data/chunk_index": [0] * 3,
        "data/file_index": [0, 0, 1],
    }
    for key in (TOP, WRIST):
        table[f"videos/{key}/chunk_index"] = [0] * 3
        table[f"videos/{key}/file_index"] = [0, 0, 1]
        table[f"videos/{key}/from_timestamp"] = [0.0, FRAMES / FPS, 0.0]
    (path / "meta/episodes/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(table), path / "meta/episodes/chunk-000/file-000.parquet")
    return path


@pytest.fixture(scope="module")
def v3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v3(tmp_path_factory.mktemp("public") / "stacking")


def test_episodes_in_shared_files_are_told_apart(v3: Path) -> None:
    dataset = Dataset.open(v3)
    assert dataset.name == dataset.schema.space == "stacking"
    assert (dataset.schema.modality, dataset.schema.representation) == ("arm", "joint_position")
    assert dataset.schema.names == ("shoulder", "elbow")
    assert dataset.episode_names == ("episode_000000", "episode_000001", "episode_000002")
    assert [dataset.task(name) for name in dataset.episode_names] == ["lift", "lift", "stack; lift"]
    for number, name in enumerate(dataset.episode_names):
        found = dataset.read(name, 16)
        assert found.pixels.shape == (FRAMES, 16, 16, 3)
        assert levels(found.pixels) == pytest.approx([level(number, frame) for frame in range(FRAMES)], abs=2)
        assert np.array_equal(found.measured, episode(number).measured)
        assert np.array_equal(found.stamps_ns, np.arange(FRAMES) * 10**8)


def test_a_public_action_leads_to_the_next_frame(v3: Path) -> None:
    found = Dataset.open(v3).read("episode_000001", 16)
    assert np.array_equal(found.commanded[1:], episode(1).commanded[:-1])
    assert np.array_equal(found.commanded[0], found.measured[0]), "before the first frame: held still"


@pytest.mark.parametrize("camera", ["wrist", WRIST])
def test_one_of_several_cameras(v3: Path, camera: str) -> None:
    found = Dataset.open(v3, (camera,)).read("episode_000001", 16)
    assert levels(found.pixels) == pytest.approx([level(1, frame) for frame in range(FRAMES)], abs=2)
    assert levels(Dataset.open(v3, (camera,)).read("episode_000000", 16).pixels)[0] == pytest.approx(
        level(2, 0), abs=2
    )
    with pytest.raises(EpisodeError, match=f"expected camera left, found {TOP}, {WRIST}"):
        Dataset.open(v3, ("left",))


def test_a_film_that_ends_early_costs_only_the_episode_at_its_end(tmp_path: Path) -> None:
    path = write_v3(tmp_path / "set")
    film = np.concatenate([pictures(0, HEIGHT, WIDTH), pictures(1, HEIGHT, WIDTH)])[:-2]
    encode(path / f"videos/{TOP}/chunk-000/file-000.mp4", film)
    bad: list[EpisodeError] = []
    dataset = Dataset.open(path)
    good = [e.name for e in dataset.stream(dataset.episode_names, 16, bad.append)]
    assert good == ["episode_000000", "episode_000002"]
    (error,) = bad
    assert "file-000.mp4: frames of episode_000001: expected 12 (one per row), found 10" in str(error)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["a", "b"], ("a", "b")),
        ([["a", "b"]], ("a", "b")),
        ({"left": ["a"], "right": ["b"]}, ("a", "b")),
        ({"left": ["a"], "right": ["a"]}, ("left_a", "right_a")),
        (["a", "a"], ("action_0", "action_1")),
        (None, ("action_0", "action_1")),
        (["motors"], ("action_0", "action_1")),
    ],
)
def test_names_as_others_write_them(tmp_path: Path, names: Any, found: tuple[str, ...]) -> None:
    path = write_v3(tmp_path / "set")
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["action"] = vector(names)
    (path / "meta/info.json").write_text(json.dumps(info))
    assert Dataset.open(path).schema.names == found


def test_pictures_in_the_rows(tmp_path: Path) -> None:
    """Layout v2.0 with PNG files in a column, as sets recorded without video have them."""
    describe(
        tmp_path,
        "v2.0",
        {TOP: "image"},
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
    )
    table = rows([0]) | {TOP: [{"bytes": png(frame), "path": "frame.png"} for frame in pictures(0)]}
    (tmp_path / "data/chunk-000").mkdir(parents=True)
    pq.write_table(pa.table(table), tmp_path / "data/chunk-000/episode_000000.parquet")
    (tmp_path / "meta/episodes.jsonl").write_text(
        json.dumps({"episode_index": 0, "length": FRAMES, "tasks": []})
    )
    dataset = Dataset.open(tmp_path)
    assert dataset.episode_names == ("episode_000000",), "without a newline at the end"
    assert dataset.stored_size is None
    assert levels(dataset.read("episode_000000", 16).pixels) == [level(0, frame) for frame in range(FRAMES)]


def png(rgb: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "PNG")
    return stream.getvalue()


def test_a_declaration_beside_a_public_set_says_what_its_columns_mean(tmp_path: Path) -> None:
    """Actions of other dimensions than the state: refused with the way out, and then taken from the state."""
    path = write_v3(tmp_path / "set")
    info = json.loads((path / "meta/info.json").read_text())
    info["features"]["action"] = vector(dim=7)
    (path / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(
        EpisodeError, match=r"observation.state.shape: expected \[7\] \(or other .*astra.json\), found \[2\]"
    ):
        Dataset.open(path)
    (path / "meta/astra.json").write_text(json.dumps({"commanded": "observation.state"}))
    found = Dataset.open(path).read("episode_000000", 16)
    assert np.array_equal(found.commanded, found.measured), "where the joints are at the end of the step"
    drive = {
        "space": "car",
        "modality": "drive",
        "representation": "rate",
        "names": ["s", "v"],
        "units": ["1", "1"],
    }
    declared = {"name": "cars", "schema": drive, "commanded": "observation.state"}
    (path / "meta/astra.json").write_text(json.dumps(declared))
    dataset = Dataset.open(path)
    assert (dataset.name, dataset.schema.space, dataset.schema.units) == ("cars", "car", ("1", "1"))
    found = dataset.read("episode_000000", 16)
    assert np.array_equal(found.commanded[0], found.commanded[1]), "a rate: what acted first"
    assert np.array_equal(found.commanded[1:], episode(0).measured[:-1])
    assert np.array_equal(found.measured, found.commanded), (
        "a rate led to its frame, in the past as in a plan"
    )
