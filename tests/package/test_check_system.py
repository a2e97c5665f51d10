"""The check that runs before anything is installed says all that is missing at once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "requirements" / "check_system.py"


def check(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_is_silent_where_everything_is_there() -> None:
    report = check(path="/usr/local/bin:/usr/bin:/bin")
    assert (report.returncode, report.stdout, report.stderr) == (0, "", "")


def test_names_one_line_to_paste(tmp_path: Path) -> None:
    report = check(path=str(tmp_path))
    assert report.returncode == 1
    lines = [line for line in report.stderr.splitlines() if "apt-get install" in line]
    assert lines == ["  sudo apt-get update && sudo apt-get install -y build-essential"]


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("sys.version_info", (3, 10, 0), "needs Python 3.11 or 3.12"),
        ("platform.machine", lambda: "aarch64", "Linux x86_64 only, found linux aarch64"),
    ],
)
def test_refuses_what_the_wheels_do_not_serve(
    attribute: str,
    value: object,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = importlib.util.spec_from_file_location("check_system", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    monkeypatch.setattr(attribute, value)
    assert module.main() == 1
    assert expected in capsys.readouterr().err


def test_needs_no_more_than_the_standard_library() -> None:
    report = subprocess.run([sys.executable, "-S", "-I", SCRIPT], capture_output=True, text=True, check=False)
    assert report.returncode == 0, report.stderr
