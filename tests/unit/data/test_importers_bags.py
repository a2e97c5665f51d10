"""rosbag2 recordings into a dataset: damaged ones, chosen joints, several publishers on a topic."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_ros.data.bag import BagError, BagReader, BagWriter, RecordedMessage
from astra_ros.data.importers import bags
from astra_ros.data.importers.source import ImportProgress, import_source
from astra_ros.data.lerobot import Dataset
from astra_ros.types import NANOSECONDS
from tests.recordings import (
    CAMERA,
    JOINT_NAMES,
    JOINTS,
    START_NS,
    joint_state,
    picture,
    write_pictures,
    write_recording,
)
from tests.recordings import jpeg as recorded_jpeg

COMMANDS = "/joint_commands"
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[: len(content) // 2],
    "overwritten": lambda content: content[:1500] + bytes(200) + content[1700:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_bags_become_a_dataset(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """One of them is damaged: reported, and the others imported."""
    for name in ("monday", "tuesday", "wednesday"):
        write_recording(tmp_path / "bags" / name, 1.0)
    (storage,) = (tmp_path / "bags/monday").glob("*.mcap")
    content = storage.read_bytes()
    storage.write_bytes(damage(content))
    source = bags.open_source(
        [tmp_path / "bags"], bags.BagsConfig("panda", units=("rad",) * 7 + ("m",), size=32)
    )
    assert (source.schema.names, source.fps) == (JOINT_NAMES, 10.0)
    bad: list[str] = []
    assert list(import_source(source, tmp_path / "panda", 32, bad.append))[-1] == ImportProgress(2, 1, 3)
    assert len(bad) == 1
    assert bad[0].startswith(str(tmp_path / "bags/monday"))
    dataset = Dataset.open(tmp_path / "panda")
    assert dataset.episode_names == ("tuesday", "wednesday")
    assert dataset.schema.units[-1] == "m"


def test_the_joints_that_are_asked_for(tmp_path: Path) -> None:
    write_recording(tmp_path / "bags/monday", 1.0)
    source = bags.open_source(
        [tmp_path / "bags"], bags.BagsConfig("finger", joints=JOINT_NAMES[:-3:-1], size=32)
    )
    assert source.schema.names == ("panda_finger_joint1", "panda_joint7")
    episode = source.episodes["monday"]()
    assert episode.measured[0].tolist() == [7.0, 6.0]


def test_an_arm_and_its_gripper_may_publish_each_its_own(tmp_path: Path) -> None:
    """Which joints are meant is said; those of an instant may come in several messages."""
    arm, gripper = ("joint_1", "joint_2"), ("finger",)
    with BagWriter(tmp_path / "monday") as bag:
        for tick in range(10):
            stamp_ns = START_NS + tick * 50_000_000
            bag.write(JOINTS, joint_state(stamp_ns, arm if tick % 2 else gripper), stamp_ns)
            bag.write(CAMERA, recorded_jpeg(stamp_ns, picture(tick, 64)), stamp_ns)
    with pytest.raises(
        BagError, match=r"joint_states: name: .* found finger and joint_1, joint_2; say which: --joints NAME"
    ):
        bags.open_source([tmp_path / "monday"], bags.BagsConfig("panda"))
    config = bags.BagsConfig("panda", joints=(*arm, *gripper), size=32)
    measured = bags.open_source([tmp_path / "monday"], config).episodes["monday"]().measured
    seconds = np.arange(10) * 0.05
    assert np.allclose(measured[1:, 1], 1 + seconds[1:], atol=1e-6)
    assert np.allclose(measured[:-1, 2], seconds[:-1], atol=1e-6)


def test_joints_that_no_recording_has_are_told_once(tmp_path: Path) -> None:
    """One that lacks them is left out beside one that has them."""
    write_recording(tmp_path / "bags/monday", 0.5)
    write_recording(tmp_path / "bags/tuesday", 0.5)
    with pytest.raises(
        BagError, match=r"found none in 2; .*name: expected joint1; missing joint1, found panda_j"
    ):
        bags.open_source([tmp_path / "bags"], bags.BagsConfig("panda", joints=("joint1",)))
    write_pictures(tmp_path / "bags/friday", range(0, 20, 2), names=("joint1",))
    source = bags.open_source([tmp_path / "bags"], bags.BagsConfig("panda", joints=("joint1",), size=32))
    assert source.episodes["friday"]().measured.shape == (10, 1)
    with pytest.raises(BagError, match=r"monday: .* missing joint1"):
        source.episodes["monday"]()


def test_unfinished_folders_and_lone_files_are_recordings(tmp_path: Path) -> None:
    """A recorder that was killed leaves no metadata.yaml. Both have one name, whichever way they are given."""
    folder = tmp_path / "bags"
    for name in ("monday", "tuesday"):
        write_recording(folder / name, 0.5)
        (folder / name / "metadata.yaml").unlink()
    shutil.copy(folder / "monday/monday.mcap", folder / "friday.mcap")
    source = bags.open_source([folder], bags.BagsConfig("panda", size=32))
    assert list(source.episodes) == ["friday", "monday", "tuesday"]
    for path in (folder / "friday.mcap", folder / "monday"):
        ((name, load),) = bags.open_source([path], bags.BagsConfig("panda", size=32)).episodes.items()
        assert load().name == name == path.stem


def test_a_lone_file_keeps_its_name_when_another_one_comes(tmp_path: Path) -> None:
    write_recording(tmp_path / "bag", 0.5)
    (folder := tmp_path / "bags").mkdir()
    for known in (["take1"], ["take1", "take2"]):
        shutil.copy(tmp_path / "bag/bag.mcap", folder / f"{known[-1]}.mcap")
        assert list(bags.open_source([folder], bags.BagsConfig("panda", size=32)).episodes) == known


def test_a_whole_recording_is_one_whatever_lies_beside_its_files(tmp_path: Path) -> None:
    write_recording(tmp_path / "monday", 0.5)
    shutil.copytree(tmp_path / "monday", tmp_path / "monday/backup")
    assert list(bags.open_source([tmp_path / "monday"], bags.BagsConfig("panda", size=32)).episodes) == [
        "monday"
    ]


def test_a_recording_is_cut_where_its_camera_dropped_pictures(tmp_path: Path) -> None:
    """One picture is missing, then a pause of 3 s, then a scrap; a picture that came late is no gap."""
    late = [*range(0, 10, 2), 11, *range(12, 30, 2)]
    write_pictures(tmp_path / "bags/monday", [*late, *range(32, 62, 2), *range(120, 160, 2), 180, 182])
    write_pictures(tmp_path / "bags/tuesday", range(0, 20, 2))
    source = bags.open_source([tmp_path / "bags"], bags.BagsConfig("panda", size=32))
    episodes = {name: load() for name, load in source.episodes.items()}
    assert {name: len(one.pixels) for name, one in episodes.items()} == {
        "monday_segment_00": 15,
        "monday_segment_01": 15,
        "monday_segment_02": 20,
        "tuesday": 10,
    }
    assert all(name == one.name for name, one in episodes.items())
    last = episodes["monday_segment_02"]
    assert last.stamps_ns[0] == START_NS + 120 * 50_000_000
    assert np.allclose(last.measured[:, 0], 6 + 0.1 * np.arange(20), atol=1e-6)


def write_at_30_hz(folder: Path, frames: Iterable[int]) -> None:
    with BagWriter(folder) as bag:
        for frame in frames:
            stamp_ns = START_NS + frame * NANOSECONDS // 30
            bag.write(JOINTS, joint_state(stamp_ns), stamp_ns)
            bag.write(CAMERA, recorded_jpeg(stamp_ns, picture(frame, 32)), stamp_ns)


def test_a_fast_camera_may_drop_a_picture_now_and_then(tmp_path: Path) -> None:
    """A step of 0.2 s is then a sixth longer; two dropped in a row cut, and what is lost is told."""
    write_at_30_hz(tmp_path / "bags/monday", [frame for frame in range(120) if frame % 10 != 4])
    write_at_30_hz(
        tmp_path / "bags/tuesday", [frame for frame in range(150) if frame not in (60, 61, 80, 81)]
    )
    source = bags.open_source([tmp_path / "bags"], bags.BagsConfig("panda", size=16))
    assert {name: len(load().pixels) for name, load in source.episodes.items()} == {
        "monday": 108,
        "tuesday_segment_00": 60,
        "tuesday_segment_02": 68,
    }
    assert source.notes == [
        f"{tmp_path / 'bags/tuesday'}: pictures are missing at 2 places: kept 4.2 of 5.0 s, the longest piece is 2.2 s"
    ]


def test_a_long_recording_becomes_segments_of_at_most_two_minutes(tmp_path: Path) -> None:
    """About as long each: an episode is read into memory as a whole."""
    with BagWriter(tmp_path / "monday") as bag:
        for frame in range(1300):
            stamp_ns = START_NS + frame * NANOSECONDS // 5
            bag.write(JOINTS, joint_state(stamp_ns), stamp_ns)
            bag.write(CAMERA, recorded_jpeg(stamp_ns, picture(frame, 32)), stamp_ns)
    source = bags.open_source([tmp_path / "monday"], bags.BagsConfig("panda", size=16))
    assert {name: len(load().pixels) for name, load in source.episodes.items()} == {
        "monday_segment_00": 433,
        "monday_segment_01": 433,
        "monday_segment_02": 434,
    }
    assert not source.notes


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    """A recorder of several files that was killed, and a folder too deep, beside a recording."""
    write_recording(tmp_path / "bags/monday", 0.5)
    write_recording(tmp_path / "bags/wednesday/rosbag2", 0.5)
    (killed := tmp_path / "bags/tuesday").mkdir()
    for part in range(2):
        shutil.copy(tmp_path / "bags/monday/monday.mcap", killed / f"tuesday_{part}.mcap")
    source, bad = bags.open_source([tmp_path / "bags"], bags.BagsConfig("panda", size=32)), list[str]()
    assert list(import_source(source, tmp_path / "panda", 32, bad.append))[-1] == ImportProgress(1, 2, 3)
    assert bad[0].endswith(f"found 2 storage files without it; `ros2 bag reindex {killed}` writes it")
    assert bad[1].endswith(f"found {tmp_path / 'bags/wednesday/rosbag2'} in it; give that one")


def test_of_a_segment_only_its_own_messages_are_read_and_the_last_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Joint states up to 5 s around it; the command that is in force may be older."""
    ticks = [*range(0, 40, 2), *range(400, 440, 2)]
    folder = tmp_path / "monday"
    with BagWriter(folder) as bag:
        bag.write(COMMANDS, joint_state(START_NS + 50_000_000), START_NS + 50_000_000)
        for tick in range(440):
            stamp_ns = START_NS + tick * 50_000_000
            bag.write(JOINTS, joint_state(stamp_ns), stamp_ns)
            if tick in ticks:
                bag.write(CAMERA, recorded_jpeg(stamp_ns, picture(tick, 64)), stamp_ns)
    source = bags.open_source([folder], bags.BagsConfig("panda", size=32))
    read, deserialize = list[str](), BagReader.deserialize

    def noted(bag: BagReader, message: RecordedMessage) -> Any:
        read.append(message.topic)
        return deserialize(bag, message)

    monkeypatch.setattr(BagReader, "deserialize", noted)
    first, second = (source.episodes[f"monday_segment_0{i}"]() for i in range(2))
    assert (read.count(CAMERA), read.count(COMMANDS)) == (20 + 20, 2)
    assert read.count(JOINTS) == (39 + 99) + (100 + 40)
    assert np.allclose(first.commanded[:, 0], [0.0, *[0.05] * 19], atol=1e-6)
    assert np.allclose(second.commanded[:, 0], 0.05, atol=1e-6)
    assert np.allclose(second.measured[:, 0], 20 + 0.1 * np.arange(20), atol=1e-5)


def test_joints_that_wrap_are_refused_at_import(tmp_path: Path) -> None:
    """Halfway between +pi and -pi is 0. Only angles do, and only while they are used."""
    folder = tmp_path / "monday"
    with BagWriter(folder) as bag:
        for tick in range(20):
            stamp_ns = START_NS + tick * 50_000_000
            turn = np.pi - 0.1 + 0.03 * tick
            state = joint_state(stamp_ns, ("wheel", "lift"))
            state.position = np.array([(turn + np.pi) % (2 * np.pi) - np.pi, 10.0 * (tick % 2)])
            bag.write(JOINTS, state, stamp_ns)
            if tick % 2:
                bag.write(CAMERA, recorded_jpeg(stamp_ns, picture(tick, 64)), stamp_ns)
    config = bags.BagsConfig("base", units=("rad", "m"), size=32)
    with pytest.raises(BagError) as caught:
        bags.open_source([folder], config).episodes["monday"]()
    assert str(caught.value) == (
        f"{folder}: {JOINTS}: position: expected wheel to turn by less than pi rad from one joint state to the next, found"
        " 3.13 and then -3.12; it wraps: publish it unwrapped, or leave it out with --joints; if it is no angle in rad, say so with"
        " --units"
    )
    for other in (replace(config, joints=("lift",), units=("m",)), replace(config, units=("1",))):
        assert len(bags.open_source([folder], other).episodes["monday"]().pixels) == 10


def test_joints_are_named_once(tmp_path: Path) -> None:
    write_recording(tmp_path / "monday", 0.5)
    twice = bags.BagsConfig("panda", joints=(JOINT_NAMES[0], JOINT_NAMES[0]))
    with pytest.raises(
        ValueError, match=r"schema.names: expected every name once, found panda_joint1, panda_joint1"
    ):
        bags.open_source([tmp_path], twice)


def test_bad_recordings_are_counted_and_the_others_imported(tmp_path: Path) -> None:
    """One picture, and a camera that drops so many that no second is whole."""
    write_pictures(tmp_path / "bags/alone", [0])
    write_pictures(tmp_path / "bags/holes", [tick for tick in range(0, 80, 2) if tick % 14 < 10])
    write_pictures(tmp_path / "bags/whole", range(0, 40, 2))
    source, bad = bags.open_source([tmp_path / "bags"], bags.BagsConfig("panda", size=32)), list[str]()
    assert list(import_source(source, tmp_path / "panda", 32, bad.append))[-1] == ImportProgress(1, 2, 3)
    assert "alone: " in bad[0]
    assert "found one picture" in bad[0]
    assert "holes: header.stamp: expected 1 s of pictures without a gap, found none in 6 pieces" in bad[1]


def test_pictures_of_a_wide_camera_are_stored_in_the_models_shape(tmp_path: Path) -> None:
    """And never larger than they are."""
    with BagWriter(tmp_path / "monday") as bag:
        for tick in range(10):
            stamp_ns = START_NS + tick * 100_000_000
            bag.write(JOINTS, joint_state(stamp_ns), stamp_ns)
            bag.write(CAMERA, recorded_jpeg(stamp_ns, np.full((48, 64, 3), 90, np.uint8)), stamp_ns)
    for wanted, stored in (((24, 40), (24, 40)), ((192, 320), (38, 64)), ((128, 128), (48, 48))):
        source = bags.open_source([tmp_path / "monday"], bags.BagsConfig("panda", size=wanted))
        assert source.picture_size == (48, 64)
        assert source.episodes["monday"]().pixels.shape == (10, *stored, 3)
        out = tmp_path / f"panda_{wanted[0]}"
        list(import_source(source, out, wanted, pytest.fail))
        dataset = Dataset.open(out)
        assert (dataset.stored_size, dataset.camera_sizes) == (stored, ((48, 64),))
        assert dataset.read("monday", wanted).pixels.shape == (10, *wanted, 3)


def test_a_bag_without_pictures_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "monday") as bag:
        bag.add_topic(CAMERA, "sensor_msgs/msg/CompressedImage")
        bag.write(JOINTS, joint_state(START_NS), START_NS)
    with pytest.raises(BagError, match=rf"the last one: .*monday: {CAMERA}: expected messages, found none"):
        bags.open_source([tmp_path / "monday"], bags.BagsConfig("panda"))


def test_bags_that_cannot_be_told_apart_or_found(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"expected recordings, found no such folder"):
        bags.open_source([tmp_path / "nowhere"], bags.BagsConfig("panda"))
    for folder in ("a", "b"):
        write_recording(tmp_path / folder / "monday", 0.5)
    with pytest.raises(BagError, match=r"expected rosbag2 folders.* found none; .* one level down"):
        bags.open_source([tmp_path], bags.BagsConfig("panda"))
    with pytest.raises(BagError, match=r"expected a name of its own"):
        bags.open_source([tmp_path / "a", tmp_path / "b"], bags.BagsConfig("panda"))
