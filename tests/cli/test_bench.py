"""`astra bench` end to end on the untrained bundle: what it writes, and what it refuses. No time is judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.benchmarking.workers import Worker
from astra_ros.cli.main import main

pytestmark = pytest.mark.slow

ONLY = (
    "peaks/cpu/gemm-fp32",
    "latents/onnxruntime*",
    "latents/served/*",
    "stages/served/step_0",
    "candidates/latents/*",
)


@pytest.fixture(scope="module")
def written(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bench") / "speed.json"
    words = ["--threads", "1", "--rounds", "3", "--candidates", "9", "--json", str(file), "--only", *ONLY]
    assert main(["bench", str(untrained_bundle), *words]) == 0
    return file


@pytest.fixture(scope="module")
def result(written: Path) -> dict[str, Any]:
    document = json.loads(written.read_text())
    assert {
        "bundle",
        "threads",
        "rounds",
        "seed",
        "candidates",
        "busy",
        "command",
        "machine",
        "result",
    } == set(document)
    assert document["bundle"]["preset"] == "untrained"
    assert document["command"].startswith("astra bench ")
    assert (document["threads"], document["rounds"], document["candidates"]) == (1, 3, 9)
    result: dict[str, Any] = document["result"]
    return result


def test_what_was_chosen_was_timed_in_every_round(result: dict[str, Any]) -> None:
    expected = {
        "latents/onnxruntime/append",
        "latents/onnxruntime-defaults/append",
        *(f"latents/served/{scheme}" for scheme in ("recompute", "remember", "append")),
        "stages/served/step_0",
        *(f"candidates/latents/{way}" for way in ("separate", "shared", "batched")),
    }
    assert set(result["speeds"]) == expected
    assert set(result["seconds"]) == expected | {"peaks/cpu/gemm-fp32"}
    assert all(len(seconds) == 3 for seconds in result["seconds"].values())


def test_a_speed_says_what_ran_and_how_fast(result: dict[str, Any], untrained_bundle: Path) -> None:
    speed = result["speeds"]["candidates/latents/batched"]
    # The probe chooses anew in every process: where a processor has bfloat16, either may come out.
    served, precisions = OpenVinoBackend.version, OpenVinoBackend.precisions(load_bundle(untrained_bundle))
    assert speed["runs"] in {f"{served}, {precision}, cpu" for precision in precisions}
    assert result["speeds"]["latents/onnxruntime/append"]["runs"].endswith(", fp32, cpu")
    assert speed["reference"] == "candidates/latents/separate"
    for field in ("milliseconds", "per_second", "faster"):
        assert 0 < speed[field]["low"] <= speed[field]["median"] <= speed[field]["high"]


def test_medians_are_those_of_the_rounds(result: dict[str, Any]) -> None:
    for name, speed in result["speeds"].items():
        middle = sorted(result["seconds"][name])[1]
        assert speed["milliseconds"]["median"] == pytest.approx(1e3 * middle, rel=2e-3)


def test_ideas_goals_and_what_is_missing(result: dict[str, Any]) -> None:
    ideas = {(idea["before"], idea["after"]) for idea in result["ideas"]}
    assert ("latents/served/remember", "latents/served/append") in ideas
    assert ("latents/onnxruntime-defaults/append", "latents/onnxruntime/append") in ideas
    goals = {goal["name"]: goal for goal in result["goals"]}
    assert goals["same ranking of candidates"]["is_reached"] is True
    assert goals["times as fast as ONNX Runtime's defaults, latents"]["found"] is not None
    assert goals["times as fast as naive torch, latents"]["is_reached"] is None
    speed, flops = result["speeds"]["latents/onnxruntime/append"], result["flops"]
    rate = (flops["append"] + 2 * flops["step"]) / speed["milliseconds"]["median"] / 1e6
    assert speed["gflops"]["median"] == pytest.approx(rate, rel=2e-3)
    assert speed["share_of_peak"]["median"] > 0
    assert result["skipped"] == {}
    assert result["peaks"][0]["unit"] == "GFLOP/s"


def test_the_tables_lie_beside_the_json(written: Path, result: dict[str, Any]) -> None:
    text = written.with_suffix(".md").read_text()
    assert text.startswith("# Speed: untrained-")
    assert "    astra bench " in text
    for name in result["speeds"]:
        assert f"| {name.partition('/')[2]} |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 20


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--rounds", "0"], "rounds: expected 1 or more, found 0"),
        (["--threads", "0"], "threads: expected 1 or more, found 0"),
        (["--busy", "-1"], "busy: expected 0 or more, found -1"),
        (["--candidates", "-3"], "candidates: expected 1 or more, found -3"),
        (["--only", "latents", "speed"], "--only: expected groups (peaks, "),
        (["--only", "latents/nothing*"], "found 'latents/nothing*'"),
        (["--json", "/no/such/folder/x.json"], "--json: expected a file in an existing folder"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line_before_anything_is_timed(
    words: list[str], problem: str, untrained_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(untrained_bundle), *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("astra bench: ")
    assert problem in line


def test_a_process_that_dies_ends_it_in_one_line(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = Worker.ask

    def ask_the_dead(worker: Worker, name: str) -> Any:
        worker._process.kill()
        return ask(worker, name)

    monkeypatch.setattr(Worker, "ask", ask_the_dead)
    words = ["--threads", "1", "--rounds", "1", "--only", "peaks/cpu/gemm-fp32"]
    assert main(["bench", str(untrained_bundle), *words]) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it: progress
    assert line == "astra bench: peaks: its process ended early, exit code -9"


def test_what_is_no_bundle_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "expected a bundle folder with manifest.json" in line
