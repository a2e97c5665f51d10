"""rosbag2 recordings into a dataset: damaged ones, chosen joints, several publishers on a topic."""

from __future__ import annotations

from collections.abc import Callable
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
    arm, gripper = ("joint_1", "joint_2"), ("finger",)
    with BagWriter(tmp_path / "monday") as bag:
        for tick in range(10):
            stamp_ns = START_NS + tick * 50_000_000
            bag.write(JOINTS, joint_state(stamp_ns, arm if tick % 2 else gripper), stamp_ns)
            bag.write(CAMERA, recorded_jpeg(stamp_ns, picture(tick, 64)), stamp_ns)
    source = bags.open_source(
        [tmp_path / "monday"], bags.BagsConfig("panda", joints=(*arm, *gripper), size=32)
    )
    episode = source.episodes["monday"]()
    seconds = np.arange(10) * 0.05
    assert np.allclose(episode.measured[1:-1, 1], 1 + seconds[1:-1], atol=1e-6)
    assert np.allclose(episode.measured[:-1, 2], seconds[:-1], atol=1e-6)


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
