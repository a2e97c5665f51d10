"""A folder is one run, whoever starts it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from astra_ros.training.state import require_same_run


def test_processes_that_start_together_are_one_run(tmp_path: Path) -> None:
    """Whoever reads finds the whole description, however many write it."""
    fields = {"long": "x" * 4_000_000}
    for attempt in range(5):
        with ThreadPoolExecutor(4) as pool:
            started = [pool.submit(require_same_run, tmp_path / f"{attempt}.json", fields) for _ in range(4)]
        assert [one.exception() for one in started] == [None] * 4
    assert {file.suffix for file in tmp_path.iterdir()} == {".json"}
