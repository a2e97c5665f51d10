"""The programs as users start them: `astra record`, `astra replay`, and the node `bag_player`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import String

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


def test_a_contract_records_what_the_model_needs_and_names_missing_joints(
    ros: Ros, tmp_path: Path, untrained_bundle: Path
) -> None:
    robot = ros.node("robot")
    joints = robot.create_publisher(JointState, "/arm/joint_states", 10)
    camera = robot.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
    robot.create_publisher(String, "/chatter", 10)
    command = [*ASTRA, "record", "--out", str(tmp_path / "bag"), "--contract", str(untrained_bundle)]
    recorder = _start(ros, command)
    ros.spin_until(lambda: joints.get_subscription_count() == camera.get_subscription_count() == 1)
    joints.publish(JointState(name=list(JOINT_NAMES[:-1]), position=[0.0] * 7))
    camera.publish(CompressedImage(format="jpeg"))
    assert joints.wait_for_all_acked()
    assert camera.wait_for_all_acked()
    recorder.send_signal(signal.SIGINT)
    _, err = _finish(ros, recorder)
    assert recorder.returncode == 1
    assert f"joint states lack {JOINT_NAMES[-1]}" in err
    assert "no camera" not in err
    with BagReader(tmp_path / "bag") as bag:
        assert set(bag.topics) == {"/arm/joint_states", "/camera/image_raw/compressed"}


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
    ros.node("listener").create_subscription(JointState, JOINTS, received.append, 100)
    player = _start(ros, [*ASTRA, "replay", str(bag), "--loop"])
    ros.spin_until(lambda: len(received) > 8)
    player.send_signal(signal.SIGINT)
    _, err = _finish(ros, player)
    assert player.returncode == 0, err


def test_the_launched_player_takes_parameters(ros: Ros, tmp_path: Path) -> None:
    bag = write_recording(tmp_path / "bag", seconds=0.5)
    images: list[Image] = []
    ros.node("listener").create_subscription(Image, "/image", images.append, 100)
    parameters = {
        "bag": bag,
        "rate": "2",
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


def test_the_launched_player_says_what_is_wrong(ros: Ros, tmp_path: Path) -> None:
    player = _start(ros, [*BAG_PLAYER, "--ros-args", "-p", f"bag:={tmp_path / 'none'}"])
    _, err = _finish(ros, player)
    assert player.returncode == 1
    assert "expected a rosbag2 folder" in err
    assert "Traceback" not in err
