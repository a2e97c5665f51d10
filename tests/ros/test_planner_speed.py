"""The planner's stop-watch runs, in this process and over the service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from benchmarks.planner_speed import main

ROOT = Path(__file__).resolve().parents[2]


def test_what_cannot_be_measured_or_written_is_told_in_one_line(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, line in (
        ([str(tmp_path / "no")], f"{tmp_path}/no: expected a bundle folder with manifest.json, found "),
        ([str(untrained_bundle), "--backend", "abacus"], "backend 'abacus': expected one of "),
        (
            [str(untrained_bundle), "--json", str(tmp_path / "no" / "x.json")],
            "--json: expected a file in an existing",
        ),
    ):
        assert main(words) == 1
        error = capsys.readouterr().err
        assert error.startswith(f"error: {line}")
        assert error.count("\n") == 1


@pytest.mark.slow
def test_ranking_search_and_service_are_timed(untrained_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "speed.json"
    command = [sys.executable, "-m", "benchmarks.planner_speed", str(untrained_bundle), "--json", str(out)]
    options = ["--backend", "onnxruntime", "--runs", "1", "--calls", "3", "--seconds", "2"]
    result = subprocess.run(
        [*command, *options], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    result_file = json.loads(out.read_text())
    *ranked_and_searched, service = result_file["times"]
    assert [one["what"] for one in ranked_and_searched] == [
        f"{what}, {steps}"
        for what in ("64 plans of 16 frames ranked", "CEM, 32 plans of 4 frames x 5")
        for steps in ("all steps", "ranking_steps 1")
    ]
    computed_by = {one["backend"] for one in (*ranked_and_searched, service, result_file["uncertainty"])}
    assert computed_by == {f"onnxruntime {onnxruntime.__version__}, fp32, cpu"}
    assert result_file["threads"] == 2
    assert -0.9 < result_file["uncertainty"]["median"] < 9
    assert -5 < service["median_s"] < 5
    assert service["runs"] == 3
    assert "| service beyond the bare call, pair by pair | 5 ms |" in result.stdout
    alone, beside = result_file["live"]
    assert [one["what"] for one in result_file["memory"]] == [alone["what"], beside["what"]]
    for memory in result_file["memory"]:
        assert 50 < memory["resident_mb"] <= memory["peak_mb"] < 2000
        assert f"| {memory['what']} | 600 MB | {memory['resident_mb']:.0f} MB |" in result.stdout
    assert alone["what"] == "live predictions, alone"
    assert beside["what"] == "live predictions, beside questions of 64 plans of 16 frames"
    for one in (alone, beside):
        assert one["predictions"] == pytest.approx(2 * one["rate_hz"])
        assert 0 < one["median_s"] <= one["p95_s"]
        assert f"| {one['what']} | {one['rate_hz']:.2f} Hz |" in result.stdout
    assert out.with_suffix(".md").is_file()
