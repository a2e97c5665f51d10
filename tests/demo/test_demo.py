"""`astra demo` and `astra doctor` as users start them: node, player and subscriber over real DDS."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import domain_coordinator
import pytest

from astra_ros.data.bag import BagReader
from astra_ros.ros.demonstration import FUTURE_TOPIC, isolated
from astra_ros.ros.node_process import NodeProcess
from tests.recordings import CAMERA, write_recording

ASTRA = [sys.executable, "-m", "astra_ros.cli.main"]
TIMEOUT_S = 120.0


def _astra(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*ASTRA, *map(str, arguments)]
    return subprocess.run(
        command,
        env={**os.environ, **environment},
        check=False,
        text=True,
        capture_output=True,
        timeout=TIMEOUT_S,
    )


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recording(tmp_path_factory.mktemp("recording") / "bag", seconds=3)


@pytest.fixture(scope="module")
def finished(recording: Path, untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a demo that ran twice in the same folder."""
    out = tmp_path_factory.mktemp("demo") / "out"
    for duration in (1.5, 0):
        options = ("--bag", recording, "--bundle", untrained_bundle, "--out", out, "--duration", duration)
        demo = _astra("demo", *options)
        assert demo.returncode == 0, demo.stderr + demo.stdout
    (out / "stdout").write_text(demo.stdout)
    (out / "stderr").write_text(demo.stderr)
    return out


def test_pictures_are_left(finished: Path) -> None:
    assert (finished / "contact_sheet.png").stat().st_size > 10_000
    assert (finished / "demo.mp4").stat().st_size > 1_000


def test_futures_are_recorded_with_the_camera_they_are_about(finished: Path) -> None:
    with BagReader(finished / "predicted_futures") as bag:
        futures = [bag.deserialize(m) for m in bag.messages([FUTURE_TOPIC])]
        images = [bag.deserialize(m) for m in bag.messages([CAMERA])]
    assert len(futures) >= 10
    assert len(images) == 30
    assert {_stamp(future) for future in futures} <= {_stamp(image) for image in images}
    assert {future.header.frame_id for future in futures} == {"camera"}


def _stamp(message: Any) -> tuple[int, int]:
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_numbers_are_those_of_the_recording(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    with BagReader(finished / "predicted_futures") as bag:
        count = bag.topics[FUTURE_TOPIC].count
    assert results["predictions"] == results["latency_ms"]["count"] == count
    latency = results["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert results["inference_ms"]["p50"] < latency["p50"]
    assert "superseded" in results["drops"]
    assert [step["seconds"] for step in results["psnr"]] == pytest.approx([0.2 * k for k in range(1, 11)])
    assert all(
        step["gain_db"] == pytest.approx(step["model_db"] - step["copy_db"]) for step in results["psnr"]
    )


def test_table_and_progress_are_shown(finished: Path) -> None:
    table = (finished / "stdout").read_text()
    for line in (
        "Predictions",
        "Inputs not used",
        "Image stamp to publish",
        "copy last",
        "contact_sheet.png",
    ):
        assert line in table
    assert "playing" in (finished / "stderr").read_text()


def test_simulated_time_serves_another_speed(recording: Path, untrained_bundle: Path, tmp_path: Path) -> None:
    demo = _astra("demo", "--bag", recording, "--bundle", untrained_bundle, "--out", tmp_path, "--rate", 1.5)
    assert demo.returncode == 0, demo.stderr
    with BagReader(recording) as bag, BagReader(tmp_path / "predicted_futures") as predicted:
        stamp = predicted.deserialize(next(predicted.messages([FUTURE_TOPIC]))).header.stamp
        assert bag.start_ns <= stamp.sec * 10**9 + stamp.nanosec <= bag.end_ns
    assert json.loads((tmp_path / "results.json").read_text())["latency_ms"]["p50"] < 5_000


def test_a_node_that_cannot_load_ends_the_demo_with_its_reason(recording: Path, tmp_path: Path) -> None:
    demo = _astra("demo", "--bag", recording, "--bundle", tmp_path / "none", "--out", tmp_path / "out")
    assert demo.returncode == 1
    assert "expected a bundle folder" in demo.stderr
    assert str(tmp_path / "out" / "world_model.log") in demo.stderr
    assert "Traceback" not in demo.stderr


def test_a_recording_without_a_camera_is_refused_before_anything_starts(tmp_path: Path) -> None:
    demo = _astra("demo", "--bag", tmp_path / "none", "--out", tmp_path / "out")
    assert demo.returncode == 1
    assert "expected a rosbag2 folder" in demo.stderr
    assert not (tmp_path / "out").exists()


def test_demos_at_the_same_time_do_not_share_a_domain() -> None:
    before = os.environ.get("ROS_DOMAIN_ID")
    with isolated():
        first = os.environ["ROS_DOMAIN_ID"]
        with isolated():
            assert os.environ["ROS_DOMAIN_ID"] != first
        assert os.environ["ROS_DOMAIN_ID"] == first
    assert os.environ.get("ROS_DOMAIN_ID") == before


@contextmanager
def _domain() -> Iterator[dict[str, str]]:
    with domain_coordinator.domain_id() as domain:
        yield {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


def test_doctor_finds_no_node(tmp_path: Path) -> None:
    with _domain() as environment:
        doctor = _astra("doctor", "--seconds", 0.5, "--json", tmp_path / "j", **environment)
    assert doctor.returncode == 1
    assert "ros2 launch astra_ros world_model.launch.py" in doctor.stdout
    assert f"here {environment['ROS_DOMAIN_ID']}" in doctor.stdout
    assert json.loads((tmp_path / "j").read_text())["gates"][0]["name"] == "node"


def test_doctor_names_the_next_step_until_the_node_predicts(
    recording: Path, untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _domain() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        ros_args = [
            "-p",
            f"bundle:={untrained_bundle}",
            "-p",
            "image_transport:=compressed",
            "-r",
            "image:=/camera/image_raw",
        ]
        with NodeProcess(tmp_path / "log", ros_args):
            assert _mend() == "ros2 lifecycle set /world_model configure"
            _change_state("configure")
            assert _mend() == "ros2 lifecycle set /world_model activate"
            _change_state("activate")
            assert _mend().startswith("start its publisher, or remap")
            with _playing(recording):
                doctor = _astra("doctor", "--seconds", 4)
    assert doctor.returncode == 0, doctor.stdout
    assert "ok    predictions" in doctor.stdout
    assert "/bag_player (reliable, volatile)" in doctor.stdout
    assert "/joint_trajectory  trajectory_msgs/msg/JointTrajectory" in doctor.stdout  # a plan comes on either


def _mend() -> str:
    doctor = _astra("doctor", "--seconds", 1)
    assert doctor.returncode == 1, doctor.stdout
    return doctor.stdout.splitlines()[-1].strip()


def _change_state(step: str) -> None:
    """In a program of its own, as `ros2 lifecycle set` is."""
    program = (
        "import sys, rclpy; from lifecycle_msgs.srv import ChangeState; from lifecycle_msgs.msg import Transition\n"
        "rclpy.init(); node = rclpy.create_node('setter')\n"
        "client = node.create_client(ChangeState, '/world_model/change_state'); assert client.wait_for_service(30)\n"
        "transition = Transition(id=getattr(Transition, 'TRANSITION_' + sys.argv[1].upper()))\n"
        "future = client.call_async(ChangeState.Request(transition=transition))\n"
        "rclpy.spin_until_future_complete(node, future, timeout_sec=60); assert future.result().success"
    )
    subprocess.run([sys.executable, "-c", program, step], check=True, timeout=TIMEOUT_S)


@contextmanager
def _playing(recording: Path) -> Iterator[None]:
    player = subprocess.Popen(
        [*ASTRA, "replay", str(recording), "--restamp", "--loop"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert player.stderr is not None
        assert "messages" in player.stderr.readline()  # it plays
        yield
    finally:
        player.send_signal(signal.SIGINT)
        assert player.wait(TIMEOUT_S) == 0


def test_an_interrupted_demo_leaves_no_process(
    recording: Path, untrained_bundle: Path, tmp_path: Path
) -> None:
    command = [
        *ASTRA,
        "demo",
        "--bag",
        str(recording),
        "--bundle",
        str(untrained_bundle),
        "--out",
        str(tmp_path / "out"),
    ]
    demo = subprocess.Popen([*command, "--rate", "0.05"], stderr=subprocess.PIPE, text=True)
    assert demo.stderr is not None
    while "playing" not in demo.stderr.readline():
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    began_s = time.monotonic()
    assert demo.wait(TIMEOUT_S) == 130
    assert time.monotonic() - began_s < 30
    children = [
        path for path in Path("/proc").glob("[0-9]*/cmdline") if str(untrained_bundle) in _command_line(path)
    ]
    assert children == []
    with BagReader(tmp_path / "out" / "predicted_futures") as bag:
        assert FUTURE_TOPIC in bag.topics


def _command_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # ended meanwhile
        return ""
