"""What a training run makes of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from astra_ros.training import machine
from astra_ros.training.machine import keep_precision, kept_precision, make_fabric, product_dtype


def test_products_are_in_the_precision_of_the_run() -> None:
    assert product_dtype(make_fabric("bf16-mixed")) == torch.bfloat16
    assert product_dtype(make_fabric("32-true")) == torch.float32


def test_a_run_keeps_the_precision_that_it_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured anew, beside other work, it might be another one."""
    assert kept_precision(tmp_path) is None
    for precision in ("bf16-mixed", "32-true"):
        keep_precision(tmp_path, make_fabric(precision))
        assert kept_precision(tmp_path) == "bf16-mixed"
    monkeypatch.setattr(machine, "_device", lambda: "another")
    assert kept_precision(tmp_path) is None


def test_a_damaged_note_of_the_precision_is_named(tmp_path: Path) -> None:
    (tmp_path / "precision.json").write_text('{"device": "cpu", "precision": "int3"}')
    with pytest.raises(ValueError, match=r"precision.json: precision: expected one of .*; remove it"):
        kept_precision(tmp_path)


def test_several_processes_do_not_go_by_their_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They might read them differently, and would then train apart."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(machine, "_product_seconds", lambda dtype: pytest.fail("the clock was read"))
    assert machine._multiplies_bfloat16()
