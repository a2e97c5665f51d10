"""The import rules of pyproject.toml hold, and each of them notices when it is broken."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCES = shutil.ignore_patterns("bundles", "__pycache__", "*.so")

# Contract, module to break it in, and the line that does.
VIOLATIONS = [
    ("layers", "types.py", "import astra_ros.rollout.world_model"),
    ("layers", "actions/spec.py", "import astra_ros.frames.preprocess"),
    ("no-torch-on-the-robot", "frames/preprocess.py", "import torch"),
    ("no-torch-on-the-robot", "rollout/world_model.py", "import astra_ros.denoiser.dit"),
    ("ros-in-one-place", "data/bag.py", "import rclpy"),
    ("ros-in-one-place", "cli/main.py", "from sensor_msgs.msg import Image"),
    ("inference-runtimes-in-one-place", "rollout/world_model.py", "import onnxruntime"),
    ("offline-tools-stay-offline", "training/denoiser.py", "import export.to_onnx"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources and rules, to be damaged."""
    shutil.copytree(ROOT / "astra_ros", tmp_path / "astra_ros", ignore=NOT_SOURCES)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sysconfig.get_path("scripts"), "lint-imports")
    command = [str(program), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_rules_hold(copy: Path) -> None:
    report = lint_imports(copy)
    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize(("contract", "module", "line"), VIOLATIONS)
def test_broken_rule_is_noticed(copy: Path, contract: str, module: str, line: str) -> None:
    path = copy / "astra_ros" / module
    path.write_text(f"{path.read_text()}\n{line}\n")
    report = lint_imports(copy)
    assert report.returncode == 1
    assert f"{_name(contract)} BROKEN" in report.stdout


def _name(contract: str) -> str:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return next(str(entry["name"]) for entry in settings["contracts"] if entry["id"] == contract)
