"""Calibrate a bundle on recordings and test it on others, with the real runtime."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends.arrays import read_arrays
from astra_ros.backends.bundle import describe_file, load_bundle, write_manifest
from astra_ros.backends.factory import open_backend
from astra_ros.cli.main import main
from astra_ros.data.lerobot import DatasetWriter
from astra_ros.evaluation.reliving import common_horizon
from astra_ros.evaluation.trust import auroc, cover, rank_correlation
from astra_ros.rollout.trust import Trust, load_trust
from astra_ros.rollout.world_model import WorldModel
from export import calibrate, quantize
from tests.bundle_fixture import HEIGHT, WIDTH
from tests.moving_square import ARM, FPS, episode, write_dataset


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
    assert f"--test trust --data {own} --held-out {held_out_file}" in capsys.readouterr().out
    result = tmp_path / "trust.json"
    words = ["evaluate", *words, "--test", "trust", "--others", str(other), "--json", str(result)]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "Real errors inside the 90 % interval" in shown
    assert "| other | 1.000 | 1.000 |" in shown
    assert result.with_suffix(".md").read_text().removeprefix("# ").strip() in shown
    assert ", cpu" in json.loads(result.read_text())["backend"]


def test_fitted_and_judged_is_as_far_as_the_model_and_half_of_the_recordings_go(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model predicts 100 frames. 40 frames hold a history and 20, 60 hold 40; pieces of a recording count once."""
    held_out_file.write_text('own: ["held_*"]\n')
    lengths = {
        "train_0": 40,
        "train_1": 40,
        "held_0": 40,
        "held_1": 60,
        "held_2": 60,
        "held_3": 40,
        "held_4": 60,
    }
    pieces = {f"held_4_segment_{part:02d}": 30 for part in range(1, 4)}
    own = tmp_path / "own"
    with DatasetWriter(own, "own", ARM, FPS, (HEIGHT, WIDTH)) as writer:
        for seed, (name, count) in enumerate((lengths | pieces).items()):
            writer.append(episode(name, seed, count=count), "task")
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main(words) == 0
    shown = capsys.readouterr()
    assert (
        "in frames 1 to 40 of 100 (later ones get no uncertainty: fewer than half of these recordings hold"
        in shown.out
    )
    assert "skipped: held_0: expected more than 59 frames" in shown.err
    trust = load_trust(load_bundle(bundle_copy), "fp32")
    assert trust is not None
    assert trust.horizon == 40
    words = ["evaluate", *words, "--test", "trust", "--json", str(tmp_path / "trust.json")]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "predictions of 40 frames in 1 recordings." in shown.out
    assert "skipped: held_3: expected more than 59 frames" in shown.out
    _with_trust(bundle_copy, replace(trust, intercept=trust.intercept[:16], slope=trust.slope[:16]))
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "predictions of 16 frames in 2 recordings." in shown.out
    assert "Frames 17 to 100 are not judged: no more were fitted." in shown.out
    result = json.loads((tmp_path / "trust.json").read_text())
    assert (result["horizon"], result["fitted_horizon"], result["max_horizon"]) == (16, 16, 100)


def _with_trust(bundle: Path, trust: Trust) -> None:
    manifest = load_bundle(bundle).manifest
    trust.save(bundle / "trust.npz")
    files = manifest.files | {"trust.npz": describe_file(bundle / "trust.npz")}
    write_manifest(bundle, replace(manifest, files=files))


def test_the_common_horizon_is_that_of_half_of_the_usable_recordings() -> None:
    assert common_horizon({"a": 50, "b": 20, "c": 30, "d": 10}, 32) == 30
    assert common_horizon({"a": 50, "b": 40, "c": 30}, 32) == 32
    assert common_horizon({"a_segment_00": 3, "a_segment_01": 9, "a_segment_02": 2, "b": 8}, 32) == 9
    assert common_horizon({"a": 12, "b": 0, "c": -4, "d": -4}, 32) == 12
    assert common_horizon({"a": -1}, 32) == 32  # so that what is told to be too short is told of the whole
    assert common_horizon({}, 32) == 32


def test_what_was_fitted_on_is_left_out_of_every_folder(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path
) -> None:
    """The bundle remembers names alone."""
    held_out_file.write_text('own: ["held_?"]\ntwin: ["held_?"]\n')
    names = ["train_0", "train_1", *(f"held_{i}" for i in range(4))]
    own, twin = (write_dataset(tmp_path / name, names) for name in ("own", "twin"))
    words = [str(bundle_copy), "--held-out", str(held_out_file), "--data", str(own)]
    assert calibrate.main(words) == 0
    result = tmp_path / "trust.json"
    assert main(["evaluate", *words, str(twin), "--test", "trust", "--json", str(result)]) == 0
    judged = [f"{folder}/{name}" for folder in (own, twin) for name in ("held_1", "held_3")]
    assert json.loads(result.read_text())["episodes"] == judged


def test_what_ran_is_recorded_and_not_what_was_asked_for(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path
) -> None:
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", *(f"held_{i}" for i in range(4))])
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main([*words, "--precision", "auto"]) == 0
    trust = load_bundle(bundle_copy).manifest.trust
    assert trust is not None
    with open_backend(load_bundle(bundle_copy)) as backend:
        assert trust.precision in type(backend).precisions(load_bundle(bundle_copy))


def test_integers_are_fitted_beside_floating_point(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what runs takes its own, until its ranges are others."""
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", *(f"held_{i}" for i in range(4))])
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert quantize.main(words) == 0
    assert calibrate.main(words) == 0
    before = load_bundle(bundle_copy).manifest
    assert calibrate.main([*words, "--precision", "int8"]) == 0
    manifest = load_bundle(bundle_copy).manifest
    integers = manifest.trust_integers
    assert manifest.trust == before.trust
    assert integers is not None
    assert manifest.trust is not None
    assert (integers.file, integers.precision) == ("trust_integers.npz", "int8")
    assert manifest.trust_for("int8_bf16") == manifest.trust_for("int8") == integers
    assert manifest.trust_for("bf16") == manifest.trust_for("fp32") == manifest.trust
    for precision, spec in (("fp32", manifest.trust), ("int8", integers)):
        with WorldModel.load(bundle_copy, "openvino", precision=precision) as world_model:
            loaded, expected = world_model.trust, read_arrays(bundle_copy / spec.file, "", "")
        assert loaded is not None
        assert (loaded.intercept == expected["intercept"]).all()
    result = tmp_path / "trust.json"
    test = ["evaluate", *words, "--test", "trust", "--precision", "int8", "--json", str(result)]
    assert main(test) == 0
    assert "int8" in json.loads(result.read_text())["backend"]
    judged = json.loads(result.read_text())["coverage"]["mean"]
    narrow = replace(integers, interval_low=0.999, interval_high=1.001)
    write_manifest(bundle_copy, replace(manifest, trust_integers=narrow))
    assert main(test) == 0
    assert json.loads(result.read_text())["coverage"]["mean"] < judged, "by the interval of what runs"
    write_manifest(bundle_copy, manifest)
    assert quantize.main(words) == 0
    again = load_bundle(bundle_copy)
    assert again.manifest.trust_integers is None
    assert "trust_integers.npz" not in again.manifest.files
    assert not (bundle_copy / "trust_integers.npz").exists()
    assert again.manifest.trust_for("int8") == manifest.trust, "of usual pictures it tells nevertheless"


def test_all_of_later_recordings_is_fitted_to(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out_file.write_text('own: ["held_?"]\nlater: ["late_?"]\nall_seen: []\n')
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", *(f"held_{i}" for i in range(4))])
    later = write_dataset(tmp_path / "later", ["train_2", "late_0", "late_1"])
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main(words) == 0
    before = load_bundle(bundle_copy).manifest.trust
    assert calibrate.main([*words, "--later", str(later)]) == 0
    trust = load_bundle(bundle_copy).manifest.trust
    assert before is not None
    assert trust is not None
    assert trust.fitted_on == ("held_0", "held_2", "late_0", "late_1")
    assert (trust.interval_low, trust.interval_high) != (before.interval_low, before.interval_high)
    assert "test it on the other 2 held-out episodes" in capsys.readouterr().out
    assert calibrate.main([*words, "--later", str(own)]) == 1
    assert "name: expected one of its own, found own" in capsys.readouterr().err
    nothing = write_dataset(tmp_path / "all_seen", ["train_3"])
    assert calibrate.main([*words, "--later", str(nothing)]) == 1
    assert f"all_seen: expected held-out episodes, found none; give all_seen a line in {held_out_file}" in (
        capsys.readouterr().err
    )


def test_views_and_pieces_of_a_trajectory_are_on_one_side(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out_file.write_text('own: ["held_*"]\n')
    pieces = [f"held_{i}_{part}" for i in range(3) for part in ("cam0", "cam1", "segment_00")]
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", *pieces])
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main(words) == 0
    trust = load_bundle(bundle_copy).manifest.trust
    assert trust is not None
    assert trust.fitted_on == tuple(name for name in pieces if "held_1" not in name)
    held_out_file.write_text('own: ["held_[01]_*"]\n')
    assert calibrate.main(words) == 1
    assert "(views and pieces of one count once)" in (error := capsys.readouterr().err)
    assert "found 2; hold more out and train again" in error


def test_too_short_episodes_are_named_and_passed_over(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a bundle is fitted, and where it is judged; only where no other is left they are an error."""
    names = ["train_0", "train_1", *(f"held_{i}" for i in range(5))]
    own = write_dataset(tmp_path / "own", names, short=("held_1", "held_2"))
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main(words) == 0
    assert capsys.readouterr().err.count("skipped: held_2: expected more than") == 1
    for test, judged in (("trust", "in 1 recordings"), ("held_out", "predictions in 3 recordings")):
        assert main(["evaluate", *words, "--test", test]) == 0
        shown = capsys.readouterr().out
        assert shown.count("skipped: held_1: expected more than") == 1
        assert judged in shown
    (tmp_path / "short").mkdir()
    own = write_dataset(tmp_path / "short/own", names, short=names)
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert calibrate.main(words) == 1
    assert main(["evaluate", *words, "--test", "held_out"]) == 1
    problem = "episodes: expected one or more that can be read and are longer than 5.8 s without a gap"
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("program", ["evaluate", "calibrate"])
def test_a_bundle_is_not_judged_on_what_it_was_trained_on(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", "held_0", "held_1"])
    trained = {"data": {"own": {"held_out": ["held_1"]}}}
    manifest = load_bundle(bundle_copy).manifest
    write_manifest(bundle_copy, replace(manifest, provenance={"training": trained}))
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert (main(["evaluate", *words]) if program == "evaluate" else calibrate.main(words)) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it: which backend was taken
    assert (
        "own: expected held-out episodes that the model was not trained on, found 1 that it was, first held_0"
        in line
    )


@pytest.mark.parametrize("program", ["evaluate", "calibrate"])
def test_a_bundle_is_not_judged_on_another_robot(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    swapped = replace(ARM, names=ARM.names[::-1])
    with DatasetWriter(tmp_path / "own", "own", swapped, FPS, (HEIGHT, WIDTH)) as writer:
        for seed, name in enumerate(("train_0", "train_1", "held_0", "held_1")):
            writer.append(episode(name, seed), "task")
    words = [str(bundle_copy), "--data", str(tmp_path / "own"), "--held-out", str(held_out_file)]
    assert (main(["evaluate", *words]) if program == "evaluate" else calibrate.main(words)) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it: which backend was taken
    assert "own: actions: expected arm, joint_position of panda_joint1, " in line
    assert "found arm, joint_position of panda_finger_joint1, panda_joint7, " in line


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
