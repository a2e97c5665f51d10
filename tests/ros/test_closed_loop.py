"""What the closed loop refuses before an episode is lived; it needs no simulator for that."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from astra_ros.backends.bundle import load_bundle
from astra_ros.data.sim_client import SimError
from benchmarks.closed_loop import main, outcome


def test_episodes_of_another_bundle_are_refused_in_one_line(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All are there: their numbers must not be written under this bundle's name."""
    lived = {"bundle_sha256": "0" * 64, "noise_m": 0.06, "is_possible": False}
    (tmp_path / "reach_200000.json").write_text(json.dumps(lived))
    words = ["--out", str(tmp_path), "--episodes", "1", "--bundle", str(untrained_bundle)]
    assert main(words) == 1
    expected = load_bundle(untrained_bundle).sha256
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/reach_200000.json: bundle_sha256: expected {expected}, found {'0' * 64}; take another --out\n"
    )
    assert [file.name for file in tmp_path.iterdir()] == ["reach_200000.json"]


def test_a_bundle_that_proposes_nothing_is_no_prior(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--out", str(tmp_path / "out"), "--bundle", str(untrained_bundle), "--prior", "model"]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert "--prior model: expected a bundle that was taught proposals" in error
    assert "python -m export.proposals" in error
    assert not (tmp_path / "out").exists()


def test_a_simulator_that_does_not_start_is_told_in_one_line(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "no" / "python"
    words = ["--out", str(tmp_path), "--bundle", str(untrained_bundle), "--python", str(python)]
    assert main([*words, "--episodes", "1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert str(python) in error
    assert error.count("\n") == 1


def test_a_simulator_that_dies_is_what_ends_the_wait_for_its_arm() -> None:
    def die() -> None:
        raise SimError("the simulator ended")

    done: Queue[dict[str, Any]] = Queue()
    with ThreadPoolExecutor(1) as threads:
        spinning = threads.submit(die)
        with pytest.raises(SimError, match="the simulator ended"):
            outcome(done, spinning)
        done.put({"is_success": True})
        assert outcome(done, spinning) == {"is_success": True}
        waiting = threads.submit(time.sleep, 1.0)
        with pytest.raises(TimeoutError, match=r"plan: expected it to be carried out within 0\.2 s"):
            outcome(done, waiting, wait_s=0.2)


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["--out", str(out), "--bundle", str(tmp_path / "no")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path}/no: expected a bundle folder with manifest.json, found ")
    assert error.count("\n") == 1
    assert not out.exists()
