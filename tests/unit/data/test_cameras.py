"""Several cameras: recordings and datasets of them, whose pictures are one below the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.bag import BagError, BagWriter
from astra_ros.data.episode import EpisodeTopics, read_episode
from astra_ros.data.importers import bags
from astra_ros.data.importers.bags import camera_names
from astra_ros.data.importers.source import import_source
from astra_ros.data.lerobot import Dataset, DatasetWriter, EpisodeError
from astra_ros.types import NANOSECONDS, ByteArray
from tests.recordings import JOINT_NAMES, JOINTS, START_NS, joint_state, jpeg
from tests.unit.data.lerobot_fixture import ARM, FPS, SIZE, episode, levels, pictures

FRONT, WRIST = "/front/image_raw/compressed", "/wrist/color/image_raw/compressed"
BOTH = EpisodeTopics(FRONT, JOINTS, other_images=(WRIST,))
PERIOD_NS = 100_000_000
SIZES = {"front": (64, 64), "wrist": (48, 64)}


def grey(level: int, size: tuple[int, int]) -> ByteArray:
    return np.full((*size, 3), level, np.uint8)


def record(
    folder: Path, *, wrist_offset_ms: float = 30, wrist_every: int = 1, missing: tuple[int, ...] = ()
) -> Path:
    """Twelve pictures of either camera: 10 * k in front, 100 + 10 * k at the wrist, which is a little later."""
    messages = []
    for k in range(24):
        stamp_ns = START_NS + k * PERIOD_NS // 2
        messages.append((stamp_ns, JOINTS, joint_state(stamp_ns)))
    for k in range(12):
        stamp_ns = START_NS + k * PERIOD_NS
        messages.append((stamp_ns, FRONT, jpeg(stamp_ns, grey(10 * k, SIZES["front"]))))
        later_ns = stamp_ns + round(wrist_offset_ms * 1e6)
        if k % wrist_every == 0 and k not in missing:
            messages.append((later_ns, WRIST, jpeg(later_ns, grey(100 + 10 * k, SIZES["wrist"]))))
    with BagWriter(folder) as bag:
        for stamp_ns, topic, message in sorted(messages, key=lambda one: one[0]):
            bag.write(topic, message, stamp_ns)
    return folder


def views(pixels: ByteArray) -> list[list[int]]:
    """Grey levels by camera."""
    return [levels(half) for half in np.split(pixels, 2, axis=1)]


def test_of_the_other_camera_it_is_the_picture_nearest_in_time(tmp_path: Path) -> None:
    found = read_episode(record(tmp_path / "bag"), JOINT_NAMES, (64, 32), BOTH)
    assert found.pixels.shape == (12, 64, 32, 3)
    front, wrist = views(found.pixels)
    assert front == pytest.approx([10 * k for k in range(12)], abs=2)
    assert wrist == pytest.approx([100 + 10 * k for k in range(12)], abs=2)


def test_a_later_picture_may_be_the_nearer_one(tmp_path: Path) -> None:
    """The wrist's k-th comes 70 ms after the k-th in front, and 30 ms before the next."""
    found = read_episode(record(tmp_path / "bag", wrist_offset_ms=70), JOINT_NAMES, (64, 32), BOTH)
    assert views(found.pixels)[1] == pytest.approx([100, *(100 + 10 * k for k in range(11))], abs=2)


def test_a_slower_camera_shows_a_picture_twice(tmp_path: Path) -> None:
    found = read_episode(
        record(tmp_path / "bag", wrist_offset_ms=0, wrist_every=2), JOINT_NAMES, (64, 32), BOTH
    )
    assert views(found.pixels)[1] == pytest.approx([100 + 20 * (k // 2) for k in range(12)], abs=2)


def test_pictures_before_the_other_camera_began_are_left_out(tmp_path: Path) -> None:
    found = read_episode(record(tmp_path / "bag", missing=(0, 1, 2)), JOINT_NAMES, (64, 32), BOTH)
    front, wrist = views(found.pixels)
    assert front[0] == pytest.approx(30, abs=2)
    assert wrist[0] == pytest.approx(130, abs=2)
    assert len(found.stamps_ns) == len(found.measured) == 9


def test_a_camera_that_pauses_is_refused_with_its_topic(tmp_path: Path) -> None:
    folder = record(tmp_path / "bag", missing=(4, 5, 6, 7))
    with pytest.raises(
        BagError, match=f"{WRIST}: header.stamp: expected a picture within 0.1 s of every picture"
    ):
        read_episode(folder, JOINT_NAMES, (64, 32), BOTH)


def test_a_camera_of_another_clock_is_refused(tmp_path: Path) -> None:
    """It could not be told otherwise: one of its pictures is always near."""
    with BagWriter(tmp_path / "bag") as bag:
        for k in range(40):
            now_ns = START_NS + k * PERIOD_NS
            bag.write(JOINTS, joint_state(now_ns), now_ns)
            bag.write(FRONT, jpeg(now_ns, grey(10, (32, 32))), now_ns)
            early_ns = now_ns - NANOSECONDS
            bag.write(WRIST, jpeg(early_ns, grey(90, (32, 32))), now_ns)
    with pytest.raises(BagError, match=f"{WRIST}: .*found 1.000 s before them; the clocks differ"):
        read_episode(tmp_path / "bag", JOINT_NAMES, (64, 32), BOTH)


def test_a_camera_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    topics = replace(BOTH, other_images=("/head",))
    with pytest.raises(BagError, match=r"expected topic /head, found .*; say which it is: --image TOPIC"):
        read_episode(record(tmp_path / "bag"), JOINT_NAMES, (64, 32), topics)


def test_an_odd_height_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="height: expected a multiple of 2, the number of cameras"):
        read_episode(record(tmp_path / "bag"), JOINT_NAMES, (63, 32), BOTH)


@pytest.mark.parametrize(
    ("topics", "names"),
    [
        ((FRONT, WRIST), ("front", "wrist")),
        (("/robot/head/image", "/robot/hand/image"), ("robot_head", "robot_hand")),
        (("/image_raw", "/wrist/image_raw"), ("camera_1", "camera_2")),
        (("/cam/image_raw", "/cam/color/image_raw"), ("camera_1", "camera_2")),
    ],
)
def test_cameras_are_called_after_their_topics(topics: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert camera_names(topics) == names


def test_recordings_become_a_dataset_with_a_video_per_camera(tmp_path: Path) -> None:
    record(tmp_path / "bags/monday")
    config = bags.BagsConfig("panda", size=(64, 32), topics=BOTH)
    source = bags.open_source([tmp_path / "bags"], config)
    bad: list[str] = []
    assert [*import_source(source, tmp_path / "two", (64, 32), bad.append)][-1].done == 1
    assert not bad
    info = json.loads((tmp_path / "two/meta/info.json").read_text())
    assert info["total_videos"] == 2
    assert {key for key in info["features"] if "images" in key} == {
        "observation.images.front",
        "observation.images.wrist",
    }
    both = Dataset.open(tmp_path / "two", ("front", "wrist"))
    assert both.cameras == ("front", "wrist")
    assert (both.stored_size, both.camera_sizes) == ((32, 32), (SIZES["front"], SIZES["wrist"]))
    front, wrist = views(both.read("monday", (64, 32)).pixels)
    assert front == pytest.approx([10 * k for k in range(12)], abs=3)
    assert wrist == pytest.approx([100 + 10 * k for k in range(12)], abs=3)
    alone = Dataset.open(tmp_path / "two", ("wrist",)).read("monday", 32).pixels
    assert levels(alone) == wrist
    swapped = views(Dataset.open(tmp_path / "two", ("wrist", "front")).read("monday", (64, 32)).pixels)
    assert swapped == [wrist, front]
    first = Dataset.open(tmp_path / "two").read("monday", 32).pixels
    assert levels(first) == front, "the first camera by default"


def test_each_camera_is_stored_as_large_as_the_largest_may_be(tmp_path: Path) -> None:
    """What is smaller is enlarged then, as it is on the robot."""
    record(tmp_path / "bags/monday")
    config = bags.BagsConfig("panda", size=(192, 96), topics=BOTH)
    source = bags.open_source([tmp_path / "bags"], config)
    assert [*import_source(source, tmp_path / "two", (192, 96), print)][-1].done == 1
    assert Dataset.open(tmp_path / "two").stored_size == (64, 64)


def test_an_episode_of_another_video_has_another_fingerprint(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, "two", ARM, FPS, SIZE, {"a": (SIZE, SIZE), "b": (SIZE, SIZE)}) as writer:
        both = np.concatenate([pictures(0), pictures(1)], axis=1)
        writer.append(replace(episode(0), pixels=both))
    found = {
        Dataset.open(tmp_path, cameras).fingerprint("first")
        for cameras in (("a",), ("b",), ("a", "b"), ("b", "a"))
    }
    assert len(found) == 4
    (file,) = tmp_path.glob("videos/*/observation.images.b/*.mp4")
    file.write_bytes(file.read_bytes()[:-400])
    dataset = Dataset.open(tmp_path, ("a", "b"))
    assert dataset.fingerprint("first") not in found
    with pytest.raises(EpisodeError, match=f"{file}"):
        dataset.read("first", (2 * SIZE, SIZE))
    assert Dataset.open(tmp_path, ("a",)).read("first", SIZE).pixels.shape == (12, SIZE, SIZE, 3)


def test_a_dataset_of_one_camera_is_what_it_was(tmp_path: Path) -> None:
    """Runs that were begun before there could be several go on with it."""
    with DatasetWriter(tmp_path, "one", ARM, FPS, SIZE, (48, 48)) as writer:
        writer.append(episode(0))
    declared = json.loads((tmp_path / "meta/astra.json").read_text())
    assert declared["camera"] == [48, 48]
    assert "cameras" not in declared
    assert [*tmp_path.glob("videos/*/observation.images.camera/*.mp4")]
    assert Dataset.open(tmp_path).camera_sizes == ((48, 48),)


def test_pictures_in_the_rows_of_one_camera_and_films_of_another_are_refused(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path, "two", ARM, FPS, SIZE, {"a": (SIZE, SIZE), "b": (SIZE, SIZE)}) as writer:
        writer.append(replace(episode(0), pixels=np.concatenate([pictures(0), pictures(1)], axis=1)))
    file = tmp_path / "meta/info.json"
    info = json.loads(file.read_text())
    info["features"]["observation.images.b"]["dtype"] = "image"
    file.write_text(json.dumps(info))
    with pytest.raises(
        EpisodeError,
        match=r"expected observation.images.a, observation.images.b of one dtype, found image and video",
    ):
        Dataset.open(tmp_path, ("a", "b"))
