"""rosbag2 recordings into a dataset: damaged ones, chosen joints, several publishers on a topic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.bag import BagError, BagWriter
from astra_ros.data.importers import bags
from astra_ros.data.importers.source import ImportProgress, import_source
from astra_ros.data.lerobot import Dataset
from tests.recordings import CAMERA, JOINT_NAMES, JOINTS, START_NS, joint_state, picture, write_recording
from tests.recordings import jpeg as recorded_jpeg

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


def test_an_arm_and_its_gripper_may_share_a_topic(tmp_path: Path) -> None:
    """Only where it is said which joints are meant."""
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
    source = bags.open_source(
        [tmp_path / "monday"], bags.BagsConfig("panda", joints=(*arm, *gripper), size=32)
    )
    episode = source.episodes["monday"]()
    seconds = np.arange(10) * 0.05
    assert np.allclose(episode.measured[1:-1, 1], 1 + seconds[1:-1], atol=1e-6)
    assert np.allclose(episode.measured[:-1, 2], seconds[:-1], atol=1e-6)


def write_pictures(folder: Path, ticks: Iterable[int], size_px: int = 64) -> Path:
    """Pictures at those of 20 ticks a second, joint states at all."""
    taken = set(ticks)
    with BagWriter(folder) as bag:
        for tick in range(max(taken) + 1):
            stamp_ns = START_NS + tick * 50_000_000
            bag.write(JOINTS, joint_state(stamp_ns), stamp_ns)
            if tick in taken:
                bag.write(CAMERA, recorded_jpeg(stamp_ns, picture(tick, size_px)), stamp_ns)
    return folder


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
        assert (dataset.stored_size, dataset.camera_size) == (stored, (48, 64))
        assert dataset.read("monday", wanted).pixels.shape == (10, *wanted, 3)


def test_a_bag_without_pictures_is_refused(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "monday") as bag:
        bag.add_topic(CAMERA, "sensor_msgs/msg/CompressedImage")
        bag.write(JOINTS, joint_state(START_NS), START_NS)
    with pytest.raises(BagError, match=rf"the last one: .*monday: {CAMERA}: expected messages, found none"):
        bags.open_source([tmp_path / "monday"], bags.BagsConfig("panda"))


def test_bags_that_cannot_be_told_apart_or_found(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"expected rosbag2 folders"):
        bags.open_source([tmp_path], bags.BagsConfig("panda"))
    for folder in ("a", "b"):
        write_recording(tmp_path / folder / "monday", 0.5)
    with pytest.raises(BagError, match=r"expected a folder name of its own"):
        bags.open_source([tmp_path / "a", tmp_path / "b"], bags.BagsConfig("panda"))
