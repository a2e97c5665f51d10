"""The runtimes' own parsers, which are native code, and graphs with bytes changed at random: refused or run, no crash, no hang."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BACKENDS = ("onnxruntime", "openvino")
TRIES, TIMEOUT_S = 24, 300


@pytest.mark.parametrize("backend", BACKENDS)
def test_damaged_graphs_are_refused_or_right(backend: str, bundle_copy: Path) -> None:
    """In a process of its own, which a crash would end; what is run has the golden vectors' answers."""
    pytest.importorskip(backend)
    program = [sys.executable, "-m", "tests.unit.backends.damaged_graphs", str(bundle_copy), backend]
    done = subprocess.run(
        [*program, "0", str(TRIES)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < int(done.stdout) <= TRIES
