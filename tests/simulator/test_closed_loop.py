"""One episode of the closed loop for real: simulator, world model and planner over ROS topics."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import WHY_NO_ROS
from tests.simulator.conftest import ROOT, Start

pytestmark = [pytest.mark.slow, pytest.mark.ros]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("prior", ["task", "model"])
def test_an_episode_is_lived_and_summarised(start_in_simulator: Start, tmp_path: Path, prior: str) -> None:
    del start_in_simulator  # skips
    assert not WHY_NO_ROS
    program = [sys.executable, "-m", "benchmarks.closed_loop", "--task", "reach", "--out", str(tmp_path)]
    command = [*program, "--episodes", "1", "--policy-episodes", "0", "--prior", prior]
    result = subprocess.run(command, capture_output=True, text=True, timeout=360, check=False, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    episode = json.loads((tmp_path / "reach_200000.json").read_text())
    assert list(episode["methods"]) == [
        "best_of_1",
        "best_of_4",
        "best_of_16",
        "best_of_64",
        *(["near_and_likely"] if prior == "model" else []),
        "cem_from_best_of_16",
        "refined_from_16",
        "oracle",
    ]
    assert len(episode["ranking"]["predicted"]) == len(episode["ranking"]["true"]) == 16
    summary = json.loads((tmp_path / "closed_loop_reach.json").read_text())
    assert summary["episodes"] == 1
    assert summary["policies"] is None
    assert summary["prior"] == prior
    assert summary["backends"] == [episode["backend"]]
    assert episode["backend"].endswith(", cpu, 2 threads")
    assert (tmp_path / "closed_loop_reach.md").read_text().strip() == result.stdout.strip()
    # What is there is not lived again.
    again = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert again.stdout == result.stdout


def test_a_model_of_another_robot_is_refused_in_one_line(start_in_simulator: Start, tmp_path: Path) -> None:
    del start_in_simulator  # skips
    command = [sys.executable, "-m", "benchmarks.closed_loop", "--task", "push", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT)
    assert result.returncode == 1
    assert "expected a model of pusht_x, pusht_y, found one of panda_joint1" in result.stderr
    assert len(result.stderr.splitlines()) == 1
