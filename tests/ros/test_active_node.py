"""The benchmarks' node goes with the benchmark."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BENCHMARK = """
import sys, time
from pathlib import Path
from benchmarks.active_node import active_node
with active_node(Path(sys.argv[2]), {"bundle": sys.argv[1], "backend": "onnxruntime"}):
    print("active", flush=True)
    time.sleep(60)
"""


def test_sigterm_leaves_no_node_behind(untrained_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", BENCHMARK, str(untrained_bundle), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as benchmark:
        assert benchmark.stdout
        assert benchmark.stdout.readline() == "active\n"
        (node,) = Path(f"/proc/{benchmark.pid}/task/{benchmark.pid}/children").read_text().split()
        benchmark.send_signal(signal.SIGTERM)
        assert benchmark.wait(20) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{node}").exists()
