"""A goal from a file, and a planner of one's own, as users start them: as processes beside a node."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.ros.rig import HORIZON, Rig

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "ask_the_world_model.py"
TIMEOUT_S = 60.0


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "goal.png"
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)).save(file)
    return file


def run(rig: Rig, *words: object, meanwhile: Callable[[], object] = lambda: None) -> tuple[int, str, str]:
    """Exit code and output of a Python program; the node is spun until it ends."""
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline_s = time.monotonic() + TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline_s:
            meanwhile()
            rig.spin_for(0.2)
    finally:
        process.kill()
    return process.returncode, *process.communicate()


def astra_goal(rig: Rig, *words: object) -> tuple[int, str, str]:
    return run(rig, "-m", "astra_ros.cli.main", "goal", *words)


def test_a_picture_file_becomes_the_standing_goal(make_rig: Callable[..., Rig], picture: Path) -> None:
    rig = make_rig("robot1")
    rig.activate()
    assert len(rig.serve().goal_distance) == 0
    code, out, errors = astra_goal(rig, picture, "--node", "robot1/world_model")
    assert (code, out) == (0, f"/robot1/world_model: the goal is {picture}\n"), errors
    assert len(rig.serve().goal_distance) == HORIZON


def test_what_is_no_picture_is_refused_with_the_nodes_line(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "goal.jpg"
    file.write_text("no picture")
    code, _, errors = astra_goal(rig, file)
    assert code == 1
    assert errors.startswith(
        "astra goal: /world_model: goal.compressed_image: data: expected a JPEG or PNG file"
    )
    assert len(errors.splitlines()) == 1


def test_without_a_node_or_a_file_it_says_so(
    make_rig: Callable[..., Rig], picture: Path, tmp_path: Path
) -> None:
    rig = make_rig()  # not configured: there is no service yet
    code, _, errors = astra_goal(rig, picture)
    assert code == 1
    assert errors.startswith(
        "astra goal: /world_model: expected the service ~/set_goal within 10 s, found none; "
    )
    assert "astra doctor --node /world_model" in errors
    code, _, errors = astra_goal(rig, tmp_path / "none.jpg")
    assert code == 1
    assert "picture: expected a JPEG or PNG file, found none at " in errors


def test_ctrl_c_ends_the_waiting_for_a_node(make_rig: Callable[..., Rig], picture: Path) -> None:
    rig = make_rig()
    words = [sys.executable, "-m", "astra_ros.cli.main", "goal", str(picture), "--node", "nobody"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        rig.spin_until(lambda: "astra_goal" in rig.robot.get_node_names(), TIMEOUT_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(5.0) == 130
        assert process.communicate()[1] == ""
    finally:
        process.kill()


def test_the_example_of_a_planner_ranks_its_plans(rig: Rig, picture: Path) -> None:
    code, out, errors = run(rig, EXAMPLE, picture, meanwhile=rig.serve)
    assert code == 0, errors
    lines = out.splitlines()
    assert {line.split(":")[0] for line in lines} == {"plan 0", "plan 1", "plan 2"}
    distances = [float(line.rsplit(" ", 1)[1]) for line in lines]
    assert distances == sorted(distances)


def test_ctrl_c_ends_the_example(rig: Rig, picture: Path) -> None:
    """It waits for a robot."""
    process = subprocess.Popen([sys.executable, EXAMPLE, picture], stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        told = ""
        while "waiting for joint_states" not in told:
            told = process.stderr.readline()
            assert process.poll() is None
            rig.spin_for(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(10.0) == 0
        assert "Traceback" not in process.communicate()[1]
    finally:
        process.kill()


def test_the_documented_example_is_the_one_that_runs() -> None:
    source = EXAMPLE.read_text()
    quoted = "".join(f"    {line}\n" if line else "\n" for line in source.split("\n\n", 1)[1].splitlines())
    assert quoted in (ROOT / "docs" / "planning.md").read_text()
