"""`astra data`: exit codes, tables and the lines that say what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest

from astra_ros.cli.main import main
from astra_ros.data.bag import BagWriter
from astra_ros.data.lerobot import Dataset
from tests.recordings import (
    CAMERA,
    JOINTS,
    START_NS,
    joint_state,
    jpeg,
    picture,
    write_pictures,
    write_recording,
)
from tests.unit.data.lerobot_fixture import FRAMES, write


def test_import_list_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recording(tmp_path / "bags/episode_000001", 1.0)
    out, report = tmp_path / "data/my_arm", tmp_path / "report.json"
    arguments = ["data", "import", "bags", str(tmp_path / "bags"), "--out", str(out), "--size", "32"]
    assert main([*arguments, "--json", str(report)]) == 0
    assert json.loads(report.read_text()) == {
        "dataset": str(out), "episodes": 1, "bad": [], "notes": [],
    }  # fmt: skip
    assert main(arguments) == 0, "again: nothing to do"
    (tmp_path / "held_out.yaml").write_text("my_arm: [episode_000001]\n")
    capsys.readouterr()
    assert main(["data", "list", str(tmp_path / "data"), "--held-out", str(tmp_path / "held_out.yaml")]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split(), row.split(), strict=True)) == {
        "dataset": "my_arm", "space": "my_arm", "modality": "arm", "representation": "joint_position", "actions": "8",
        "fps": "10", "cameras": "camera", "episodes": "1", "frames": "10", "minutes": "0.02", "held_out": "1",
    }  # fmt: skip
    assert main(["data", "list", str(out), "--episodes", "--json", str(report)]) == 0
    header, row = capsys.readouterr().out.splitlines()[-2:]
    assert (header.split(), row.split()) == (
        ["dataset", "episode", "frames"],
        ["my_arm", "episode_000001", "10"],
    )
    assert json.loads(report.read_text())["episodes"][0]["episode"] == "episode_000001"
    assert main(["data", "check", str(out)]) == 0


def test_the_corrected_command_follows_one_that_imported_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_recording(tmp_path / "bags/monday", 0.5)
    recordings, out = str(tmp_path / "bags"), tmp_path / "my_arm"
    arguments = ["data", "import", "bags", recordings, "--out", str(out), "--joints"]
    assert main([*arguments, "joint1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "missing joint1, found panda_joint1, " in line
    assert not out.exists()
    assert main([*arguments, "panda_joint1"]) == 0


def test_recordings_are_added_in_the_datasets_order_of_joints(tmp_path: Path) -> None:
    """Whatever order a later driver publishes them in."""
    for day, names in (("monday", ("b", "a")), ("tuesday", ("a", "b"))):
        write_pictures(tmp_path / day / "take", range(0, 20, 2), names=names)
        (tmp_path / day / "take").rename(tmp_path / day / day)
        arguments = [
            "data",
            "import",
            "bags",
            str(tmp_path / day),
            "--out",
            str(tmp_path / "arm"),
            "--size",
            "32",
        ]
        assert main([*arguments, *(["--units", "m", "rad"] if day == "monday" else [])]) == 0
    dataset = Dataset.open(tmp_path / "arm")
    assert (dataset.schema.names, dataset.schema.units) == (("b", "a"), ("m", "rad"))
    first, second = (dataset.read(name, 32).measured[0] for name in ("monday", "tuesday"))
    assert np.allclose(first, [0.0, 1.0])
    assert np.allclose(second, [1.0, 0.0])


def test_recordings_are_added_as_the_dataset_is(tmp_path: Path) -> None:
    """Its action space, size and rate need not be said again."""
    write_recording(tmp_path / "bags/monday", 1.0)
    with BagWriter(tmp_path / "bags/tuesday") as bag:  # a camera at 9.5 Hz
        for number in range(12):
            stamp_ns = START_NS + number * 105_000_000
            bag.write(JOINTS, joint_state(stamp_ns), stamp_ns)
            bag.write(CAMERA, jpeg(stamp_ns, picture(number, 64)), stamp_ns)
    arguments = ["data", "import", "bags", str(tmp_path / "bags"), "--out", str(tmp_path / "arm")]
    assert (
        main(
            [
                *arguments[:3],
                str(tmp_path / "bags/monday"),
                *arguments[4:],
                "--space",
                "panda",
                "--size",
                "24",
                "40",
            ]
        )
        == 0
    )
    assert main([*arguments[:3], str(tmp_path / "bags/tuesday"), *arguments[4:]]) == 0
    dataset = Dataset.open(tmp_path / "arm")
    assert (dataset.schema.space, dataset.stored_size, dataset.fps) == ("panda", (24, 40), 10.0)
    assert dataset.episode_names == ("monday", "tuesday")


def test_a_size_is_one_side_or_height_and_width(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_recording(tmp_path / "bags/monday", 1.0)
    arguments = ["data", "import", "bags", str(tmp_path / "bags"), "--out", str(tmp_path / "wide"), "--size"]
    assert main([*arguments, "24", "40"]) == 0
    assert json.loads((tmp_path / "wide/meta/astra.json").read_text())["size"] == [24, 40]
    for wrong in (["24", "40", "3"], ["0"]):
        assert main([*arguments, *wrong]) == 1
        assert f"size: expected one side or HEIGHT WIDTH, 1 pixel or more, found {' '.join(wrong)}" in (
            capsys.readouterr().err
        )


def test_check_finds_the_bad_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "small")
    write(tmp_path / "torn", (0,))
    (tmp_path / "torn/meta/episodes.jsonl").unlink()
    film = tmp_path / "small/videos/chunk-000/observation.images.camera/episode_000001.mp4"
    film.write_bytes(film.read_bytes()[:300])
    assert main(["data", "check", str(tmp_path), "--json", str(tmp_path / "report.json")]) == 1
    output = capsys.readouterr()
    assert output.out.splitlines()[1].split()[-4:] == ["3", str(3 * FRAMES), "0.06", "1"]
    assert f"astra data: {film}: video: expected decodable frames, found" in output.err
    assert (
        "torn/meta/episodes.jsonl: content: expected one line per episode, found no such file" in output.err
    )
    assert len(json.loads((tmp_path / "report.json").read_text())["bad"]) == 2


def test_a_folder_without_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", str(tmp_path)]) == 1
    assert "info.json: content: expected a JSON object, found" in capsys.readouterr().err
