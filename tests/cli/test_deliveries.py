"""What a run leaves in its folder, and which of its checkpoints it calls the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from astra_ros.cli.deliveries import Deliveries, checkpoint_every_s, rank
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint
from tests.unit.training.toy_denoiser import toy_checkpoint, toy_specs


class Measured:
    """In the place of TrainingSamples: these decibels over copying, one after the other."""

    def __init__(self, *gains: float | None) -> None:
        self._gains = iter(gains)

    def evaluate(self, checkpoint: Checkpoint, share: float) -> dict[str, float]:
        del checkpoint, share
        gain = next(self._gains)
        return {} if gain is None else {"toy_arm": 20.0 + gain, "toy_arm_gain": gain, "toy_arm_codec": 30.0}


def deliver(folder: Path, *gains: float | None) -> Deliveries:
    """One checkpoint for every gain."""
    deliveries = Deliveries(folder, Measured(*gains))  # type: ignore[arg-type]
    for number in range(len(gains)):
        checkpoint = toy_checkpoint(toy_specs())
        deliveries.deliver(checkpoint, (number + 1) / len(gains), {"number": number})
    return deliveries


def provenance(folder: Path) -> dict[str, Any]:
    return load_checkpoint(folder).provenance


def test_the_best_so_far_is_kept_beside_the_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deliveries = deliver(tmp_path, 0.5, 1.7, 1.2, 1.25)
    last, best = provenance(tmp_path), provenance(tmp_path / "best")
    assert (last["number"], last["share"], last["held_out_db_at_1s"]["toy_arm_gain"]) == (3, 1.0, 1.25)
    assert (best["number"], best["share"], best["held_out_db_at_1s"]["toy_arm_gain"]) == (1, 0.5, 1.7)
    capsys.readouterr()
    deliveries.tell_better()
    expected = "held out: +1.25 dB over copying in the end, +1.70 after 50% of the time; that model is in "
    assert capsys.readouterr().out == f"{expected}{tmp_path / 'best'}\n"


def test_of_equals_and_of_better_ones_the_later_is_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliveries = deliver(tmp_path, 0.5, 1.7, 1.7)
    assert provenance(tmp_path / "best")["number"] == 2
    capsys.readouterr()
    deliveries.tell_better()
    assert not capsys.readouterr().out


def test_a_later_start_knows_what_was_best(tmp_path: Path) -> None:
    deliver(tmp_path, 1.7)
    deliver(tmp_path, 1.2)
    assert provenance(tmp_path / "best")["held_out_db_at_1s"]["toy_arm_gain"] == 1.7


def test_what_was_not_measured_is_not_the_best(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deliveries = deliver(tmp_path, None)
    capsys.readouterr()
    deliveries.tell_better()
    assert not (tmp_path / "best").exists()
    assert not capsys.readouterr().out
    assert provenance(tmp_path)["held_out_db_at_1s"] == {}


def test_a_short_stage_has_more_than_one_checkpoint() -> None:
    assert checkpoint_every_s(10.0, 90.0) == 600.0
    assert checkpoint_every_s(10.0, 6.0) == 60.0


def test_a_model_that_fails_in_one_space_comes_after_all_that_do_not() -> None:
    everywhere = {"arm": 20.0, "arm_gain": -3.0, "arm_codec": 30.0, "car_gain": -1.0}
    in_one = {"arm": 29.0, "arm_gain": 6.0}
    assert rank({}) < rank(in_one) < rank(everywhere) < rank({**everywhere, "car_gain": 0.0})
