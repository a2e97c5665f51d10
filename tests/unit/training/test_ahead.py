"""The cases of ahead_cases.py in a process of their own.

Drawing ahead forks. Where OpenVINO or ONNX Runtime has run before, as in other tests and never in a training, that ends in a
segmentation fault.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("ahead_cases.py")


@pytest.mark.slow
def test_segments_are_drawn_ahead_as_in_place() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
