"""Importers on sources made by the tests: what each column means, where recordings are cut, what is refused."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from astra_ros.data.episode import Episode
from astra_ros.data.importers import donkey, droid, g1, tum
from astra_ros.data.importers.source import ImportProgress, Source, gaps, import_source, segments
from astra_ros.data.lerobot import Dataset, EpisodeError
from tests.unit.data.lerobot_fixture import ARM, FPS, NAMES, encode, episode


def small_source(loaded: list[str], bad: str = "") -> Source:
    def load(number: int) -> Episode:
        loaded.append(NAMES[number])
        if NAMES[number] == bad:
            raise EpisodeError("film.mp4", "video", "decodable frames", "none")
        return episode(number)

    loaders = {name: (lambda number=number: load(number)) for number, name in enumerate(NAMES)}
    return Source(ARM, FPS, (24, 24), loaders, {"second": "grasp"})


def test_an_import_continues_and_never_enlarges(tmp_path: Path) -> None:
    loaded: list[str] = []
    first = import_source(small_source(loaded), tmp_path / "arm", 128, pytest.fail)
    assert next(first) == ImportProgress(1, 0, 3)
    del first  # an interruption between two episodes
    assert list(import_source(small_source(loaded), tmp_path / "arm", 128, pytest.fail))[
        -1
    ] == ImportProgress(3, 0, 3)
    assert loaded == list(NAMES), "what was there was not loaded again"
    dataset = Dataset.open(tmp_path / "arm")
    assert dataset.name == "arm"
    assert json.loads((tmp_path / "arm/meta/astra.json").read_text())["size"] == [24, 24]
    assert [dataset.task(name) for name in NAMES] == ["arm", "grasp", "arm"]


def test_a_bad_recording_is_counted_and_the_others_imported(tmp_path: Path) -> None:
    bad: list[str] = []
    progress = list(import_source(small_source([], bad="second"), tmp_path / "arm", 16, bad.append))
    assert progress[-1] == ImportProgress(2, 1, 3)
    assert bad == ["film.mp4: video: expected decodable frames, found none"]
    assert Dataset.open(tmp_path / "arm").episode_names == ("first", "third")


def test_where_recordings_are_cut() -> None:
    assert gaps(np.array([0, 50, 100, 500, 550]) * 1_000_000, 0.3) == [3]
    assert segments(10, [4, 6]) == {
        "segment_00": slice(0, 4),
        "segment_01": slice(4, 6),
        "segment_02": slice(6, 10),
    }


def test_a_command_between_two_rows_is_the_last_one_before_the_frame() -> None:
    sent = np.array([[0.0], [3.0], [9.0]], np.float32)
    assert g1.before_frames(sent, 1 / 3).ravel().tolist() == [0.0, 2.0, 7.0]


def jpeg(shade: int, width: int = 16, height: int = 12) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (shade,) * 3).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def record(index: int, stamp_ms: int) -> dict[str, Any]:
    return {
        "_index": index,
        "_timestamp_ms": stamp_ms,
        "cam/image_array": f"{index}_cam.jpg",
        "user/angle": index / 1000,
        "user/throttle": 0.5,
    }


def write_tub(path: Path, records: list[dict[str, Any]], without: int = -1) -> Path:
    path.mkdir()
    lines = "".join(json.dumps(r) + "\n" for r in records[::-1])  # catalogs are in no order
    (path / "catalog_0.catalog").write_text(lines + "\0\0\0")
    with zipfile.ZipFile(path / "images.zip", "w") as pictures:
        for r in records:
            if "cam/image_array" in r and r["_index"] != without:
                pictures.writestr(str(r["cam/image_array"]), jpeg(r["_index"] % 200))
    return path


def test_a_tub_is_cut_at_its_gaps_and_halved_in_rate(tmp_path: Path) -> None:
    """A pause after 60 frames, a picture missing at 103, a scrap of 20 frames at the end."""
    stamps = [50 * k + (10_000 if k >= 60 else 0) + (10_000 if k >= 190 else 0) for k in range(210)]
    path = write_tub(tmp_path / "tub", [record(k, stamp) for k, stamp in enumerate(stamps)], without=103)
    source = donkey.open_source(path, cuts_s=(7.5,))
    episodes = {name: load() for name, load in source.episodes.items()}
    assert {name: len(e.pixels) for name, e in episodes.items()} == {
        "segment_00": 30,
        "segment_01": 21,
        "segment_02": 23,
    }
    first = episodes["segment_00"]
    assert np.all(np.diff(first.stamps_ns) == 100_000_000)
    assert [int(frame.mean()) for frame in first.pixels[:3]] == pytest.approx([0, 2, 4], abs=1)
    assert first.measured[:, 0].tolist() == pytest.approx([0.0005, *(0.0005 + 0.002 * k for k in range(29))])
    assert np.array_equal(first.measured, first.commanded)


def test_a_converted_tub_has_the_rate_of_its_recorder(tmp_path: Path) -> None:
    """Stamps 3 ms apart are those of the conversion; here in an archive, with another program's files in it."""
    folder = write_tub(tmp_path / "tub", [record(k, 3 * k) for k in range(44)])
    with (
        zipfile.ZipFile(folder / "images.zip") as pictures,
        tarfile.open(tmp_path / "tub.tar.gz", "w:gz") as tar,
    ):
        tar.add(folder / "catalog_0.catalog", "tub/catalog_0.catalog")
        for name, data in [
            ("tub/._catalog_0.catalog", b"\xff\0"),
            *((f"tub/images/{n}", pictures.read(n)) for n in pictures.namelist()),
        ]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    (name,) = donkey.open_source(tmp_path / "tub.tar.gz").episodes
    found = donkey.open_source(tmp_path / "tub.tar.gz").episodes[name]()
    assert found.stamps_ns.tolist() == [k * 100_000_000 for k in range(22)]


def test_tubs_that_cannot_be_used(tmp_path: Path) -> None:
    path = write_tub(tmp_path / "tub", [{"_index": k} for k in range(3)] + [record(9, 0)], without=9)
    with pytest.raises(
        EpisodeError, match=r"tub: catalogs: expected records with .* and pictures, found 4 without"
    ):
        donkey.open_source(path)
    (tmp_path / "cut.tar.gz").write_bytes(b"\x1f\x8b\x08\x00 and then nothing")
    with pytest.raises(EpisodeError, match=r"cut.tar.gz: content: expected a whole tar.gz file, found"):
        donkey.open_source(tmp_path / "cut.tar.gz")
    path = write_tub(tmp_path / "spoilt", [record(k, 50 * k) for k in range(40)])
    with zipfile.ZipFile(path / "images.zip", "w") as pictures:
        for k in range(40):
            pictures.writestr(f"{k}_cam.jpg", jpeg(k) if k != 6 else b"not a picture")
    (load,) = donkey.open_source(path).episodes.values()
    with pytest.raises(EpisodeError, match=r"6_cam.jpg: picture: expected a JPEG or PNG file"):
        load()


def test_quaternions_become_camera_to_world_matrices() -> None:
    """A quarter turn about z (and a quaternion of another length): x of the camera is y of the world."""
    half = np.sqrt(0.5)
    poses = np.array([[1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 1.0], [0, 0, 0, 0, 0, 2 * half, 2 * half]])
    still, turned = tum.pose_matrices(poses).reshape(2, 3, 4)
    assert np.allclose(still, np.c_[np.eye(3), [1, 2, 3]])
    assert np.allclose(turned[:, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-6)
    assert np.allclose(turned[:, :3].T @ turned[:, :3], np.eye(3), atol=1e-6)


def test_poses_and_pictures_must_be_as_many(tmp_path: Path) -> None:
    (tmp_path / "rgb").mkdir()
    for k in range(3):
        (tmp_path / f"rgb/{k}.jpg").write_bytes(jpeg(k))
    np.savez(tmp_path / "poses.npz", timestamp=np.arange(2.0), pose_xyz_qxyzw=np.zeros((2, 7)))
    with pytest.raises(
        EpisodeError, match=r"poses.npz: rows: expected 3 \(one per picture\), found 2 stamps, 2 poses"
    ):
        tum.open_source(tmp_path)
    (tmp_path / "poses.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(
        EpisodeError, match=r"poses.npz: content: expected arrays timestamp, pose_xyz_qxyzw, found"
    ):
        tum.open_source(tmp_path)


def write_droid(path: Path, frames: int, rows: int) -> Path:
    (path / "annotation/train").mkdir(parents=True)
    arm = (np.arange(rows)[:, None] + np.arange(7) / 10).tolist()
    fields = {f"{of}.{part}": arm if part[0] == "j" else [0.25] * rows
              for of in ("observation.state", "action") for part in ("joint_position", "gripper_position")}  # fmt: skip
    (path / "annotation/train/4.json").write_text(json.dumps({"texts": ["fold"], **fields}))
    for camera in range(droid.NUM_CAMERAS):
        film = np.full((frames, 32, 32, 3), 40 * camera + 40, np.uint8)
        encode(path / f"videos/train/4/{camera}.mp4", film)
    return path


def test_three_cameras_are_three_episodes_of_the_same_motion(tmp_path: Path) -> None:
    source = droid.open_source(write_droid(tmp_path / "droid", 5, 13))
    assert list(source.episodes) == ["train_00004_cam0", "train_00004_cam1", "train_00004_cam2"]
    assert set(source.tasks.values()) == {"fold"}
    found = [load() for load in source.episodes.values()]
    assert [round(float(e.pixels.mean())) for e in found] == pytest.approx([40, 80, 120], abs=2)
    for e in found:
        assert e.measured[:, 0].tolist() == [0, 3, 6, 9, 12]
        assert e.commanded[:, 0].tolist() == [0, 2, 5, 8, 11], "the last command before each picture"


def test_a_droid_film_of_another_length_is_refused(tmp_path: Path) -> None:
    source = droid.open_source(write_droid(tmp_path / "droid", 5, 20))
    with pytest.raises(EpisodeError, match=r"0.mp4: frames: expected 7 \(3 rows each\), found 5"):
        source.episodes["train_00004_cam0"]()
