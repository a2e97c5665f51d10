"""Rules about the files themselves."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_BYTES = 25_000_000
EXECUTABLES = [
    "scripts/world_model",
    "scripts/bag_player",
    "scripts/planner",
    "scripts/simulated_arm",
    "scripts/simulated_rover",
    "scripts/astra",
    ".ci/run",
]


def tracked() -> list[Path]:
    """Files that are, or would be, in the repository."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("needs git and a clone: the files of the repository are asked from it")
    return [path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file()]


@pytest.mark.parametrize("path", EXECUTABLES)
def test_is_executable(path: str) -> None:
    assert os.access(ROOT / path, os.X_OK)


@pytest.mark.parametrize("path", [path for path in EXECUTABLES if path.startswith("scripts/")])
def test_programs_only_start_a_module(path: str) -> None:
    (imported, call) = ast.parse((ROOT / path).read_text()).body
    assert isinstance(imported, ast.ImportFrom)
    name = imported.names[0].name
    assert ast.unparse(call) == ("raise SystemExit(main())" if path == "scripts/astra" else f"{name}()")


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    assert "make test" in (ROOT / "README.md").read_text()
    assert re.search(r"^make .*\btest$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_packages_import_nothing() -> None:
    """Importing one module must not drag in its neighbours: the robot has no torch."""
    for path in (ROOT / "astra_ros").glob("*/__init__.py"):
        if path.parent.name not in {"msg", "srv", "action"}:
            body = ast.parse(path.read_text()).body
            assert not [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)], path


def test_no_paths_of_one_machine() -> None:
    suspicious = re.compile(r"(?<![\w.])/(?:root|home|work)/[\w.]+/?")
    texts = (
        path
        for path in tracked()
        if path.suffix in {".py", ".md", ".txt", ".in", ".toml", ".yaml", ".json", ".xml", ""}
    )
    assert [
        str(path)
        for path in texts
        if path != Path(__file__) and suspicious.search(path.read_text(errors="ignore"))
    ] == []


def test_no_file_is_larger_than_a_bundle_may_be() -> None:
    assert [str(path) for path in tracked() if path.stat().st_size > MAX_BYTES] == []
