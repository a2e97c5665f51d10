"""The loop: it learns, goes on exactly after an interruption, and survives bad steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from astra_ros.training.machine import make_fabric
from tests.unit.training.toy_step import toy_trainer


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return make_fabric("32-true")


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_loss_falls_and_is_logged(fabric: Fabric, tmp_path: Path) -> None:
    toy_trainer(fabric, tmp_path, max_steps=200)[0].run()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("stopped_after", [1, 17])
def test_an_interrupted_run_goes_on_to_the_bit(fabric: Fabric, tmp_path: Path, stopped_after: int) -> None:
    whole = toy_trainer(fabric, tmp_path / "whole")[0]
    whole.run()
    first, seen = toy_trainer(fabric, tmp_path / "parts")[0], []

    def stop(_: nn.Module, share: float) -> None:
        seen.append(share)
        if len(seen) == stopped_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(stop, every_s=0.0)
    assert not same(first.model, whole.model)
    second = toy_trainer(fabric, tmp_path / "parts")[0]
    second.run()
    assert same(second.model, whole.model)
    assert same(second.ema.model, whole.ema.model)


@pytest.mark.parametrize("save_every_s", [0.0, 300.0])
def test_a_run_interrupted_between_its_optimisers_goes_on_to_the_bit(
    fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save_every_s: float
) -> None:
    monkeypatch.setattr("astra_ros.training.trainer.SAVE_EVERY_S", save_every_s)
    whole = toy_trainer(fabric, tmp_path / "whole")[0]
    whole.run()
    first, steps = toy_trainer(fabric, tmp_path / "parts")[0], []

    def interrupt(*_: Any) -> None:
        steps.append(1)
        if len(steps) == 17:
            raise KeyboardInterrupt

    first._optimizers[1].register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = toy_trainer(fabric, tmp_path / "parts")[0]
    assert second._budget.steps == (16 if save_every_s == 0.0 else 0)
    second.run()
    assert same(second.model, whole.model)
    assert same(second.ema.model, whole.ema.model)


def test_a_finished_stage_is_not_trained_again(fabric: Fabric, tmp_path: Path) -> None:
    done = toy_trainer(fabric, tmp_path)[0]
    done.run()
    again, step = toy_trainer(fabric, tmp_path)
    again.run()
    assert step.calls == 0
    assert same(again.ema.model, done.ema.model)


def test_an_interrupted_run_keeps_the_minutes_it_was_given(fabric: Fabric, tmp_path: Path) -> None:
    toy_trainer(fabric, tmp_path, minutes=2)[0].save()
    assert toy_trainer(fabric, tmp_path, minutes=5)[0]._budget.minutes == 2.0


def test_steps_without_a_finite_gradient_are_skipped_and_counted(fabric: Fabric, tmp_path: Path) -> None:
    trainer, step = toy_trainer(fabric, tmp_path)
    step.poison = (10, 30)  # micro-batches of the steps 5 and 15
    trainer.run()
    assert trainer.skipped == 2
    assert trainer.ema.updates == 38
    assert all(bool(p.isfinite().all()) for p in trainer.ema.model.parameters())
    assert toy_trainer(fabric, tmp_path)[0].skipped == 2


def test_a_state_of_another_network_or_a_damaged_one_is_refused(fabric: Fabric, tmp_path: Path) -> None:
    trainer = toy_trainer(fabric, tmp_path)[0]
    trainer.model.register_module("0", nn.Linear(4, 4))
    trainer.save()
    with pytest.raises(
        ValueError, match=r"state\.safetensors: expected the state of this run, found .*; use another"
    ) as info:
        toy_trainer(fabric, tmp_path)
    assert "\n" not in str(info.value)
    (tmp_path / "state.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{garbage")
    with pytest.raises(ValueError, match="expected the state of this run"):
        toy_trainer(fabric, tmp_path)


def test_a_batch_that_cannot_be_divided_is_refused(fabric: Fabric, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch: expected a multiple of micro_batches = 3, found 16"):
        toy_trainer(fabric, tmp_path, micro_batches=3)
