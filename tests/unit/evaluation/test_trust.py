"""Calibrate a bundle on recordings and test it on others, with the real runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends.bundle import load_bundle
from astra_ros.cli.main import main
from astra_ros.evaluation.trust import auroc, cover, rank_correlation
from export import calibrate
from tests.moving_square import write_dataset


def test_calibrating_and_testing_a_bundle(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_dataset(tmp_path / "own", [f"train_{i}" for i in range(6)] + [f"held_{i}" for i in range(4)])
    other = write_dataset(tmp_path / "other", ["elsewhere"], elsewhere=True)
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main(words) == 0
    trust = load_bundle(bundle_copy).manifest.trust
    assert trust is not None
    assert trust.fitted_on == ("held_0", "held_2")
    assert trust.interval_low < 1 < trust.interval_high
    result = tmp_path / "trust.json"
    words = ["evaluate", *words, "--test", "trust", "--others", str(other), "--json", str(result)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "Real errors inside the 90 % interval" in shown
    assert "| other | 1.000 | 1.000 |" in shown
    assert result.with_suffix(".md").read_text().removeprefix("# ").strip() in shown


def test_an_uncalibrated_bundle_cannot_be_tested(
    untrained_bundle: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_dataset(tmp_path / "own", ["train_0", "held_0"])
    words = ["evaluate", str(untrained_bundle), "--test", "trust", "--data", str(own)]
    assert main([*words, "--held-out", str(held_out_file)]) == 1
    assert "python -m export.calibrate" in capsys.readouterr().err


def test_calibrating_needs_episodes_of_both_kinds(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", "held_0"])
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main(words) == 1
    assert "expected two training and two held-out episodes" in capsys.readouterr().err


def test_auroc_of_known_values() -> None:
    usual = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    assert auroc(usual, np.array([5.0, 6.0], np.float32)) == 1.0
    assert auroc(usual, np.array([0.0], np.float32)) == 0.0
    assert auroc(usual, usual) == 0.5
    assert auroc(usual, np.array([2.5], np.float32)) == 0.5


def test_rank_correlation_is_of_columns_and_0_for_constants() -> None:
    rising = np.arange(6, dtype=np.float32)[:, None]
    assert rank_correlation(rising, rising**2) == pytest.approx(1.0)
    assert rank_correlation(rising, -rising) == pytest.approx(-1.0)
    assert rank_correlation(np.ones_like(rising), rising) == 0.0
    both = np.concatenate([rising, np.ones_like(rising)], axis=1)
    assert rank_correlation(both, np.concatenate([rising, rising], axis=1)) == pytest.approx(0.5)


def test_a_cover_hides_the_share_that_it_says() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    shares = [
        (cover(frame, np.random.default_rng(seed), 0.25, 0.6) != 0).any(axis=-1).mean() for seed in range(50)
    ]
    assert min(shares) > 0.23
    assert max(shares) < 0.62
    assert max(shares) - min(shares) > 0.15
    assert (frame == 0).all()
