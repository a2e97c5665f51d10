"""The programs as users start them: `astra record`, `astra replay`, and the node `bag_player`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

from astra_ros.cli.main import main
from astra_ros.data.bag import BagReader
from tests.bag.conftest import DEADLINE_S, Ros
from tests.recordings import CAMERA, JOINT_NAMES, JOINTS, write_recording

ASTRA = [sys.executable, "-m", "astra_ros.cli.main"]
BAG_PLAYER = [sys.executable, str(Path(__file__).resolve().parents[2] / "scripts" / "bag_player")]


def _start(ros: Ros, command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, env=ros.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _finish(ros: Ros, process: subprocess.Popen[str]) -> tuple[str, str]:
    ros.spin_until(lambda: process.poll() is not None)
    return process.communicate(timeout=DEADLINE_S)


def _publish_until_acknowledged(ros: Ros, publisher: Publisher, count: int) -> None:
    ros.spin_until(lambda: publisher.get_subscription_count() == 1)
    for i in range(count):
        publisher.publish(String(data=f"{i}"))
    assert publisher.wait_for_all_acked()


@pytest.mark.parametrize("interrupt", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_is_whole_and_succeeds(
    ros: Ros, tmp_path: Path, interrupt: signal.Signals
) -> None:
    publisher = ros.node("robot").create_publisher(String, "/words", 100)
    recorder = _start(ros, [*ASTRA, "record", "--out", str(tmp_path / "bag"), "/words"])
    _publish_until_acknowledged(ros, publisher, 20)
    recorder.send_signal(interrupt)
    out, err = _finish(ros, recorder)
    assert recorder.returncode == 0, err
    assert "/words  std_msgs/msg/String" in out
    with BagReader(tmp_path / "bag") as bag:
        assert [bag.deserialize(m).data for m in bag.messages()] == [str(i) for i in range(20)]


def test_a_topic_that_never_came_is_named(ros: Ros, tmp_path: Path) -> None:
    command = [
        *ASTRA,
        "record",
        "--out",
        str(tmp_path / "bag"),
        "/never",
        "--duration",
        "0.5",
        "--json",
        str(tmp_path / "j"),
    ]
    recorder = _start(ros, command)
    _, err = _finish(ros, recorder)
    assert recorder.returncode == 1
    assert "astra record: /never: nothing came" in err
    assert json.loads((tmp_path / "j").read_text())["missing"] == ["/never"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["record", "--out", "bag", "/foo bar"], "Invalid topic name: .*: '/foo bar'"),
        (["replay", "played", "--remap", "foo"], "expected a remapping as FROM:=TO, .*'-r foo'"),
        (["goal", "goal.png", "--node", "robot-1"], "Invalid service name: .*: '/robot-1/set_goal'"),
    ],
    ids=lambda one: one[0] if isinstance(one, list) else "",
)
def test_a_name_that_is_none_is_told_in_one_line(
    tmp_path: Path,
    words: list[str],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path / "played", seconds=0.2)
    (tmp_path / "goal.png").touch()
    assert main(words) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"astra {words[0]}: .*{line}.*", told)
    assert not (tmp_path / "bag").exists()


ARM, GRIPPER = JOINT_NAMES[:-1], JOINT_NAMES[-1:]


@pytest.mark.parametrize(
    ("published", "lack"),
    [
        ({"/arm/joint_states": ARM}, f"joint states lack {GRIPPER[0]}"),
        (
            {"/arm/joint_states": ARM, "/gripper/joint_states": GRIPPER},
            f"{GRIPPER[0]} (/gripper/joint_states); remap their publishers to one topic, then record again",
        ),
        ({"/base/joint_states": ("wheel",), "/joint_states": ("wheel", *JOINT_NAMES[::-1])}, ""),
    ],
)
def test_a_contract_records_what_the_model_needs_and_names_missing_joints(
    ros: Ros, tmp_path: Path, untrained_bundle: Path, published: dict[str, tuple[str, ...]], lack: str
) -> None:
    robot = ros.node("robot")
    camera = robot.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
    joints = {topic: robot.create_publisher(JointState, topic, 10) for topic in published}
    robot.create_publisher(String, "/chatter", 10)
    command = [*ASTRA, "record", "--out", str(tmp_path / "bag"), "--contract", str(untrained_bundle)]
    recorder = _start(ros, command)
    publishers = (camera, *joints.values())
    ros.spin_until(lambda: all(one.get_subscription_count() == 1 for one in publishers))
    for topic, names in published.items():
        joints[topic].publish(JointState(name=list(names), position=[0.0] * len(names)))
    camera.publish(CompressedImage(format="jpeg"))
    assert all(one.wait_for_all_acked() for one in publishers)
    recorder.send_signal(signal.SIGINT)
    _, err = _finish(ros, recorder)
    assert recorder.returncode == bool(lack)
    assert lack in err
    assert "no camera" not in err
    with BagReader(tmp_path / "bag") as bag:
        assert set(bag.topics) == {"/camera/image_raw/compressed", *published}


def test_replay_remaps_and_counts(ros: Ros, tmp_path: Path) -> None:
    bag = write_recording(tmp_path / "bag", seconds=0.5)
    received: list[JointState] = []
    ros.node("listener").create_subscription(JointState, "/robot1/joints", received.append, 100)
    options = [
        "--topics",
        JOINTS,
        "--remap",
        f"{JOINTS}:=/robot1/joints",
        "--wait",
        "20",
        "--json",
        str(tmp_path / "j"),
    ]
    player = _start(ros, [*ASTRA, "replay", str(bag), *options])
    ros.spin_until(lambda: len(received) == 10)
    _, err = _finish(ros, player)
    assert player.returncode == 0, err
    assert json.loads((tmp_path / "j").read_text())["messages"] == 10


def test_an_endless_replay_ends_well_on_an_interrupt(ros: Ros, tmp_path: Path) -> None:
    bag = write_recording(tmp_path / "bag", seconds=0.2)
    received: list[JointState] = []
    listener = ros.node("listener")
    listener.create_subscription(JointState, JOINTS, received.append, 100)
    player = _start(ros, [*ASTRA, "replay", str(bag), "--loop"])
    ros.spin_until(lambda: len(received) > 8)
    services = listener.get_service_names_and_types_by_node("bag_player", "/")
    assert not [name for name, _ in services if name.endswith("parameters")]  # nobody would answer
    player.send_signal(signal.SIGINT)
    _, err = _finish(ros, player)
    assert player.returncode == 0, err


def test_the_launched_player_takes_parameters(ros: Ros, tmp_path: Path) -> None:
    bag = write_recording(tmp_path / "bag", seconds=0.5)
    images: list[Image] = []
    ros.node("listener").create_subscription(Image, "/image", images.append, 100)
    parameters = {
        "bag": bag,
        "rate": "1",
        "wait_s": "20",
        "decompress": "true",
        "restamp": "true",
        "topics": f"[{CAMERA}]",
    }
    arguments = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    player = _start(ros, [*BAG_PLAYER, "--ros-args", *arguments, "-r", "/camera/image_raw:=/image"])
    ros.spin_until(lambda: len(images) == 5)
    _, err = _finish(ros, player)
    assert player.returncode == 0, err


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ((), "expected a rosbag2 folder"),
        (("-p", "restamp:=true", "-p", "rate:=2"), "rate: expected 1 with restamp, found 2"),
    ],
)
def test_the_launched_player_says_what_is_wrong(
    ros: Ros, tmp_path: Path, parameters: tuple[str, ...], line: str
) -> None:
    command = [*BAG_PLAYER, "--ros-args", "-p", f"bag:={tmp_path / 'none'}", *parameters]
    player = _start(ros, command)
    _, err = _finish(ros, player)
    assert player.returncode == 1
    assert line in err
    assert "Traceback" not in err
