"""The programs of export/ where something that they need is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = "import runpy, sys; sys.modules[sys.argv.pop(1)] = None; runpy.run_module(sys.argv[1], run_name='__main__')"


@pytest.mark.parametrize(
    ("program", "missing", "extra"),
    [
        ("export.to_onnx", "torch", "train"),
        ("export.to_onnx", "onnxscript", "train"),
        ("export.to_onnx", "safetensors", "train"),
        ("export.to_onnx", "onnxruntime", "train"),
        ("export.to_checkpoint", "torch", "train"),
        ("export.check_parity", "torch", "train"),
        ("export.check_parity", "onnx", "train"),
        ("export.build_trt", "onnx", "trt"),
    ],
)
def test_a_missing_package_is_one_line_with_the_extra_that_has_it(
    program: str, missing: str, extra: str
) -> None:
    """Also for --help."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, missing, program, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert missing in line
    assert line.endswith(f"; in a clone: pip install -e '.[{extra}]'")
    assert done.returncode == 1


@pytest.mark.parametrize(
    "program",
    ["export.quantize", "export.calibrate", "astra_ros.benchmarking.suite", "astra_ros.benchmarking.report"],
)
def test_what_a_robot_runs_needs_no_torch(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['torch'] = None; import {program}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
