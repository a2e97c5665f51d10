"""Real rosbag2 files: written, read, refused. No ROS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from astra_ros.data.bag import BagError, BagReader, BagWriter, message_type
from tests.recordings import (
    CAMERA,
    JOINT_NAMES,
    JOINTS,
    PLAN,
    START_NS,
    action_sequence,
    header,
    joint_state,
    write_recording,
)

REAL_BAGS = Path(__file__).resolve().parents[3] / "shared" / "data" / "ros2_bags"
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=3,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=QosTime(1, 2),
    lifespan=QosTime(3, 4),
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=QosTime(5, 6),
    avoid_ros_namespace_conventions=False,
)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write_recording(tmp_path / "bag", seconds=2)


def test_topics_and_times(recording: Path) -> None:
    with BagReader(recording) as bag:
        assert {t.name: (t.type, t.count) for t in bag.topics.values()} == {
            CAMERA: ("sensor_msgs/msg/CompressedImage", 20),
            JOINTS: ("sensor_msgs/msg/JointState", 40),
            PLAN: ("astra_ros/msg/ActionSequence", 10),
        }
        assert bag.start_ns == START_NS
        assert bag.end_ns == START_NS + 1_950_000_000


def test_an_action_sequence_survives(recording: Path) -> None:
    with BagReader(recording) as bag:
        plan = bag.deserialize(next(bag.messages([PLAN])))
    expected = action_sequence(START_NS)
    assert plan.names == list(JOINT_NAMES)
    assert (plan.horizon, plan.representation, plan.step_dt.nanosec) == (10, 1, 200_000_000)
    assert (plan.header.stamp.sec, plan.header.stamp.nanosec) == (1_700_000_000, 0)
    np.testing.assert_array_equal(plan.data, expected.data)
    np.testing.assert_array_equal(plan.id.uuid, expected.id.uuid)


def test_a_lone_file_is_a_bag(recording: Path) -> None:
    with BagReader(recording / "bag.mcap") as bag:
        assert sum(1 for _ in bag.messages()) == 70


def test_messages_are_in_order_and_selected(recording: Path) -> None:
    with BagReader(recording) as bag:
        stamps = [m.stamp_ns for m in bag.messages()]
        window = list(bag.messages([JOINTS], START_NS + 500_000_000, START_NS + 1_000_000_000))
    assert stamps == sorted(stamps)
    assert len(window) == 10
    assert window[0].stamp_ns == START_NS + 500_000_000
    assert window[-1].stamp_ns < START_NS + 1_000_000_000
    assert {m.topic for m in window} == {JOINTS}


def test_unknown_topic_names_the_known_ones(recording: Path) -> None:
    with BagReader(recording) as bag:
        messages = bag.messages(["/nope"])
        with pytest.raises(BagError, match=r"/nope was not recorded.*/joint_states"):
            next(messages)


def test_copying_raw_bytes_changes_nothing(recording: Path, tmp_path: Path) -> None:
    with BagReader(recording) as source, BagWriter(tmp_path / "copy") as copy:
        for message in source.messages():
            copy.write_raw(message.topic, message.type, message.raw, message.stamp_ns)
    with BagReader(recording) as source, BagReader(tmp_path / "copy") as copied:
        assert list(source.messages()) == list(copied.messages())


def test_offered_qos_is_kept(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", [LATCHED, LATCHED])
        bag.write(JOINTS, joint_state(START_NS), START_NS)
    for path in (tmp_path / "bag", tmp_path / "bag" / "bag.mcap"):  # metadata.yaml, and the MCAP's own
        with BagReader(path) as reader:
            assert reader.topics["/tf_static"].qos == (LATCHED, LATCHED)
            assert reader.topics["/tf_static"].count == 0
            assert reader.topics[JOINTS].qos == ()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_recording_is_whole(tmp_path: Path, interruption: type[BaseException]) -> None:
    def record() -> None:
        with BagWriter(tmp_path / "bag") as bag:
            for i in range(7):
                bag.write(JOINTS, joint_state(START_NS + i), START_NS + i)
            raise interruption

    with pytest.raises(interruption):
        record()
    with BagReader(tmp_path / "bag") as reader:
        assert reader.topics[JOINTS].count == 7


def test_a_killed_recording_says_what_helps(recording: Path) -> None:
    storage = recording / "bag.mcap"
    storage.write_bytes(storage.read_bytes()[:-100])
    (recording / "metadata.yaml").unlink()
    with pytest.raises(BagError, match="mcap recover"), BagReader(recording):
        pass


def test_a_folder_whose_recorder_never_finished_is_read_by_its_file(recording: Path) -> None:
    (recording / "metadata.yaml").unlink()
    with BagReader(recording) as bag:
        assert sum(1 for _ in bag.messages()) == 70


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda path: path.exists(), "found nothing"),
        (lambda path: path.mkdir(), "found 0 storage files"),
        (lambda path: path.write_text("x"), "found another kind of file"),
    ],
)
def test_what_is_no_bag_is_refused(tmp_path: Path, make: Callable[[Path], object], found: str) -> None:
    path = tmp_path / "it"
    make(path)
    with pytest.raises(BagError, match=found):
        BagReader(path)


def test_nothing_is_overwritten(recording: Path) -> None:
    with pytest.raises(BagError, match=r"exists: choose another --out"):
        BagWriter(recording)


def test_an_unknown_type_is_refused(tmp_path: Path) -> None:
    with (
        BagWriter(tmp_path / "bag") as bag,
        pytest.raises(BagError, match="definition of nope_msgs/msg/Bar is not installed"),
    ):
        bag.add_topic("/x", "nope_msgs/msg/Bar")


def test_types_of_installed_packages_are_learnt_with_what_they_contain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interfaces = tmp_path / "share" / "robot_msgs" / "msg"
    interfaces.mkdir(parents=True)
    (interfaces / "Finger.msg").write_text("float32 width\n")
    (interfaces / "Hand.msg").write_text(
        "std_msgs/Header header\nFinger[] fingers\nrobot_msgs/Finger[2] thumbs\n"
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    hand, finger = message_type("robot_msgs/msg/Hand"), message_type("robot_msgs/msg/Finger")
    with BagWriter(tmp_path / "bag") as bag:
        bag.write("/hand", hand(header(1), [finger(0.5)], [finger(1.0), finger(2.0)]), START_NS)
    with BagReader(tmp_path / "bag") as reader:
        read = reader.deserialize(next(reader.messages()))
    assert [f.width for f in (*read.fingers, *read.thumbs)] == [0.5, 1.0, 2.0]


def test_own_messages_have_their_constants() -> None:
    assert message_type("astra_ros/msg/PredictedFuture").FLAG_HOLD_STILL == 32


def _require(name: str) -> Path:
    path = REAL_BAGS / name
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.mark.parametrize(
    ("name", "topics", "seconds"),
    [
        ("abitobot.mcap", {"/joint_states": 1866, "/imu/data": 4712}, 95.2),
        ("droid_train2", {"/joint_states": 411, "/camera/wrist/image_raw/compressed": 137}, 27.3),
        ("sample.db3", {"/image": 1, "/image/compressed": 1, "/imu": 1}, None),
    ],
)
def test_recordings_of_other_tools(name: str, topics: dict[str, int], seconds: float | None) -> None:
    with BagReader(_require(name)) as bag:
        assert topics.items() <= {t.name: t.count for t in bag.topics.values()}.items()
        if seconds:
            assert (bag.end_ns - bag.start_ns) / 1e9 == pytest.approx(seconds, abs=0.1)
        decoded = {m.topic: bag.deserialize(m) for m in bag.messages()}
    assert set(topics) <= set(decoded)


def test_early_type_names_are_completed() -> None:
    with BagReader(_require("sample.db3")) as bag:
        assert bag.topics["/image"].type == "sensor_msgs/msg/Image"
        image = bag.deserialize(next(bag.messages(["/image"])))
    assert len(image.data) == image.step * image.height


def test_a_real_joint_state_is_read() -> None:
    with BagReader(_require("droid_train2")) as bag:
        first = bag.deserialize(next(bag.messages(["/joint_states"])))
    assert list(first.name) == list(JOINT_NAMES)
    assert np.isfinite(first.position).all()
