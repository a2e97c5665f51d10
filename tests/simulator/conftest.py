"""The simulators run in an environment of their own, as programs; what they wrote is looked at here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from astra_ros.data.sim_client import SimClient

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-sim/bin/python"
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="session")
def start_in_simulator() -> Start:
    """Start the simulators' Python with arguments; skips, or fails where ASTRA_REQUIRE_SIM=1, without it."""
    if not PYTHON.exists():
        if os.environ.get("ASTRA_REQUIRE_SIM") == "1":
            pytest.fail(f"ASTRA_REQUIRE_SIM=1, but {PYTHON} is missing; run: make sim")
        pytest.skip("the simulator's environment is not there; run: make sim")
    return _start


@pytest.fixture(scope="session")
def simulate(start_in_simulator: Start) -> Callable[[str, Path, *tuple[str, ...]], subprocess.Popen[str]]:
    """Start `astra simulate` with a world, a folder and options."""

    def start(world: str, out: Path, *options: str) -> subprocess.Popen[str]:
        program = ["-m", "astra_ros.cli.main", "simulate", "--world", world, "--out", str(out)]
        return start_in_simulator(*program, "--workers", "1", *options)

    return start


def output_of(program: subprocess.Popen[str]) -> str:
    """What a program printed; it must have succeeded."""
    output, _ = program.communicate(timeout=240)
    assert program.returncode == 0, output
    return output


def _start(*arguments: str) -> subprocess.Popen[str]:
    # The simulator's Python must not inherit the libraries that ROS from wheels puts in the environment.
    kept = {
        k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    }
    return subprocess.Popen(
        [PYTHON, *arguments],
        cwd=ROOT,
        env={**kept, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="session")
def sim(start_in_simulator: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimClient]:
    """A simulated arm; the session's only one, since starting it takes seconds."""
    del start_in_simulator  # skips
    with SimClient(PYTHON, tmp_path_factory.mktemp("simulator") / "log") as client:
        yield client


@pytest.fixture(scope="session")
def disc(start_in_simulator: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimClient]:
    """PushT's disc, likewise."""
    del start_in_simulator  # skips
    with SimClient(PYTHON, tmp_path_factory.mktemp("simulator") / "log", "pusht") as client:
        yield client
