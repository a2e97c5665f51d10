"""A folder is one run, whoever starts it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import nn

from astra_ros.training.state import Counters, require_same_run, save_state, spent_s


def test_processes_that_start_together_are_one_run(tmp_path: Path) -> None:
    """Whoever reads finds the whole description, however many write it."""
    fields = {"long": "x" * 4_000_000}
    for attempt in range(5):
        with ThreadPoolExecutor(4) as pool:
            started = [pool.submit(require_same_run, tmp_path / f"{attempt}.json", fields) for _ in range(4)]
        assert [one.exception() for one in started] == [None] * 4
    assert {file.suffix for file in tmp_path.iterdir()} == {".json"}


def test_what_earlier_starts_spent_is_counted(tmp_path: Path) -> None:
    assert spent_s(tmp_path / "state") == 0.0
    for stage, seconds in (("codec", 60.0), ("decoder", 30.5)):
        save_state(
            tmp_path / f"{stage}.safetensors", {"model": nn.Linear(1, 1)}, [], Counters(1, 0, 1, seconds)
        )
    (tmp_path / "denoiser.safetensors").write_bytes(b"torn")
    assert spent_s(tmp_path) == 90.5
