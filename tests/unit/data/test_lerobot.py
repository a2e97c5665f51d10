"""Writing a dataset and reading it back; interruptions; what other programs find in the files."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from astra_ros.data import lerobot_writer
from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import ActionSchema, Dataset, DatasetWriter, EpisodeError
from astra_ros.data.schema import camera_schema
from tests.unit.data.lerobot_fixture import ARM, FPS, FRAMES, NAMES, SIZE, episode, write


def contents(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def test_an_episode_comes_back_as_it_was_written(tmp_path: Path) -> None:
    dataset = Dataset.open(write(tmp_path / "small"))
    assert (dataset.name, dataset.fps, dataset.schema) == ("small", FPS, ARM)
    assert dataset.episode_names == NAMES
    assert [dataset.task(name) for name in NAMES] == ["task 0", "task 1", "task 2"]
    for number, name in enumerate(NAMES):
        wanted, found = episode(number), dataset.read(name, SIZE)
        assert found.name == name
        for field in ("stamps_ns", "measured", "commanded"):
            assert np.array_equal(getattr(found, field), getattr(wanted, field)), field
            assert getattr(found, field).dtype == getattr(wanted, field).dtype
        assert np.abs(found.pixels.astype(int) - wanted.pixels).max() <= 2


def test_colours_and_edges_survive_the_video(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    pixels = np.stack([np.roll(blocks, 2 * shift, axis=1) for shift in range(FRAMES)])
    with DatasetWriter(tmp_path, "blocks", ARM, FPS, SIZE) as writer:
        writer.append(
            Episode("moving", episode(0).stamps_ns, pixels, episode(0).measured, episode(0).commanded)
        )
    found = Dataset.open(tmp_path).read("moving", SIZE).pixels
    assert 10 * np.log10(255**2 / np.mean((found.astype(float) - pixels) ** 2)) > 38


def test_pictures_are_fitted_when_written_and_when_read(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, "small", ARM, FPS, (16, 24)) as writer:
        writer.append(episode(0))
    dataset = Dataset.open(tmp_path)
    assert dataset.read("first", (16, 24)).pixels.shape == (FRAMES, 16, 24, 3)
    assert dataset.read("first", 8).pixels.shape == (FRAMES, 8, 8, 3)


def test_actions_are_stored_the_way_lerobot_means_them(tmp_path: Path) -> None:
    """A row's action acts from its frame on: the one that led to the next frame."""
    rows = pq.read_table(write(tmp_path) / "data/chunk-000/episode_000001.parquet")
    wanted = episode(1).commanded
    assert np.allclose(np.array(rows["action"].to_pylist())[:-1], wanted[1:])
    assert np.allclose(rows["timestamp"].to_pylist(), np.arange(FRAMES) / FPS)
    assert rows["frame_index"].to_pylist() == list(range(FRAMES))
    assert rows["index"].to_pylist() == list(range(FRAMES, 2 * FRAMES))
    assert set(rows["episode_index"].to_pylist()) == set(rows["task_index"].to_pylist()) == {1}


def test_the_meta_folder_agrees_with_the_files(tmp_path: Path) -> None:
    write(tmp_path)
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"]) == ("v2.1", 10)
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 3 * FRAMES, 3)
    stored = pq.read_schema(tmp_path / info["data_path"].format(episode_chunk=0, episode_index=0)).names
    assert set(info["features"]) == {*stored, "observation.images.camera"}
    (line,) = [json.loads(x) for x in (tmp_path / "meta/episodes_stats.jsonl").read_text().splitlines()][1:2]
    assert set(line["stats"]) == set(info["features"])
    assert np.allclose(line["stats"]["observation.state"]["mean"], episode(1).measured.mean(0))
    assert np.shape(line["stats"]["observation.images.camera"]["mean"]) == (3, 1, 1)


@pytest.mark.parametrize("stopped_at", range(1, 3 + 3 * 6 + 1))  # to open takes 3 operations, an episode 6
def test_an_interrupted_writer_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_at: int
) -> None:
    """Whichever file operation was the last: no episode is there by half, and the result is the uninterrupted one."""
    whole = contents(write(tmp_path / "whole" / "small"))
    count, real_replace, real_append = 0, os.replace, lerobot_writer._append_line

    def step() -> None:
        nonlocal count
        count += 1
        if count == stopped_at:
            raise KeyboardInterrupt

    def replace(source: Path, target: Path) -> None:
        step()
        real_replace(source, target)

    def append(path: Path, fields: dict[str, object]) -> None:
        try:
            step()
        except KeyboardInterrupt:
            with path.open("a") as file:
                file.write(json.dumps(fields)[:20])
            raise
        real_append(path, fields)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        patch.setattr(lerobot_writer, "_append_line", append)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "small")
    if (tmp_path / "small/meta/info.json").exists():
        dataset = Dataset.open(tmp_path / "small")
        assert all(len(dataset.read(name, SIZE).pixels) == FRAMES for name in dataset.episode_names)
    with DatasetWriter(tmp_path / "small", "small", ARM, FPS, SIZE) as writer:
        for number in (number for number, name in enumerate(NAMES) if not writer.has(name)):
            writer.append(episode(number), f"task {number}")
    assert contents(tmp_path / "small") == whole


def test_a_dataset_is_read_while_it_is_written(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, "small", ARM, FPS, SIZE) as writer:
        assert not (tmp_path / "meta/info.json").exists()
        writer.append(episode(0))
        assert Dataset.open(tmp_path).episode_names == ("first",)
        with pytest.raises(ValueError, match="expected no other writer, found one"):
            DatasetWriter(tmp_path, "small", ARM, FPS, SIZE)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("name", ("other", ARM, FPS, SIZE)),
        (
            "schema.representation",
            ("small", ActionSchema("small_arm", "arm", "rate", ARM.names, ARM.units), FPS, SIZE),
        ),
        ("fps", ("small", ARM, 20.0, SIZE)),
        ("size", ("small", ARM, FPS, 64)),
    ],
)
def test_a_dataset_of_another_declaration_is_not_written_to(
    tmp_path: Path, field: str, arguments: tuple[str, ActionSchema, float, int]
) -> None:
    write(tmp_path, (0,))
    with pytest.raises(ValueError, match=f"astra.json: {field}: expected .* found .* choose another folder"):
        DatasetWriter(tmp_path, *arguments)


def broken(**changes: np.ndarray) -> Episode:
    return Episode(**{**vars(episode(0)), **changes})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            broken(measured=np.full((FRAMES, 2), np.nan, np.float32)),
            "first: measured: expected finite numbers",
        ),
        (
            broken(commanded=np.zeros((FRAMES, 3), np.float32)),
            r"commanded: expected \(12, 2\), found \(12, 3\)",
        ),
        (broken(stamps_ns=np.arange(FRAMES - 1)), "one per stamp, found 12, 11 stamps"),
        (broken(stamps_ns=np.arange(FRAMES)[::-1] * 10**8), "stamps_ns: expected growing"),
        (
            broken(stamps_ns=np.arange(FRAMES) * 10**9),
            "expected 10 Hz, the dataset's rate, found a camera at 1 Hz; import it into a",
        ),
    ],
)
def test_an_unsound_episode_is_not_written(tmp_path: Path, bad: Episode, message: str) -> None:
    with (
        DatasetWriter(tmp_path, "small", ARM, FPS, SIZE) as writer,
        pytest.raises(EpisodeError, match=message),
    ):
        writer.append(bad)
    assert not (tmp_path / "meta/info.json").exists()


def test_what_failed_wholly_does_not_bind_what_is_tried_next(tmp_path: Path) -> None:
    with (
        DatasetWriter(tmp_path, "small", ARM, 20.0, 64) as writer,
        pytest.raises(EpisodeError, match="expected 20 Hz"),
    ):
        writer.append(episode(0))
    write(tmp_path, (0,))
    assert Dataset.open(tmp_path).fps == FPS


def test_a_name_is_there_once(tmp_path: Path) -> None:
    write(tmp_path, (0,))
    with (
        DatasetWriter(tmp_path, "small", ARM, FPS, SIZE) as writer,
        pytest.raises(EpisodeError, match="a new name"),
    ):
        writer.append(episode(0))


def test_what_a_schema_cannot_be() -> None:
    with pytest.raises(
        ValueError, match="modality: expected one of arm, drive, camera, command, found 'legs'"
    ):
        ActionSchema("x", "legs", "rate", (), ())
    with pytest.raises(ValueError, match=r"units: expected 2 entries \(one per name\), found 1"):
        ActionSchema("x", "arm", "rate", ("a", "b"), ("rad",))
    with pytest.raises(ValueError, match="names: expected every name once, found a, b, a"):
        ActionSchema("x", "arm", "rate", ("a", "b", "a"), ("rad",) * 3)
    with pytest.raises(ValueError, match="12 entries of a 3x4 camera pose, found 1"):
        ActionSchema("x", "camera", "relative_pose", ("a",), ("m",))
    assert ActionSchema.from_json(camera_schema("x").to_json()) == camera_schema("x")
