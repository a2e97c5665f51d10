"""`python -m export.proposals` on recordings, and what becomes of the bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.backends.bundle import load_bundle, write_manifest
from astra_ros.data.lerobot import Dataset, DatasetWriter
from astra_ros.rollout.proposals import load_proposals
from export import proposals
from export.contract import ExportConfig
from export.to_onnx import export_bundle
from tests.bundle_fixture import HEIGHT, JOINTS, LATENT, MAX_CHUNKS, WIDTH, untrained_model
from tests.moving_square import ARM, FPS, episode, write_dataset

FEW = ["--steps", "5"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "own", [f"train_{i}" for i in range(3)] + [f"held_{i}" for i in range(2)])


def words_for(bundle: Path, data: Path, held_out: Path, *more: str) -> list[str]:
    return [str(bundle), "--data", str(data), "--held-out", str(held_out), *FEW, *more]


def test_a_bundle_is_taught_and_taught_again(
    bundle_copy: Path, own: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert proposals.main(words_for(bundle_copy, own, held_out_file)) == 0
    shown = capsys.readouterr().out
    assert "after 1.6 s: " in shown
    assert "after 3.2 s: " in shown
    bundle = load_bundle(bundle_copy)
    spec = bundle.manifest.proposals
    assert spec is not None
    assert (spec.file, spec.count, spec.horizon, spec.learned_from) == ("proposals.npz", 64, 32, ("own",))
    taught = load_proposals(bundle)
    assert taught is not None
    rng = np.random.default_rng(0)
    observed, goal = rng.normal(size=(2, *LATENT)).astype(np.float32)
    still = np.zeros(len(JOINTS), np.float32)
    assert taught.propose(observed, goal, still, 8).plans.shape == (64, 8, len(JOINTS))
    first = (bundle_copy / spec.file).read_bytes()
    more = write_dataset(tmp_path / "other", ["a", "b"])
    assert proposals.main(words_for(bundle_copy, own, held_out_file, "--further", str(more))) == 0
    again = load_bundle(bundle_copy).manifest.proposals
    assert again is not None
    assert again.learned_from == ("own", "other")
    assert (bundle_copy / spec.file).read_bytes() != first


def test_held_out_episodes_are_never_learned_from(
    bundle_copy: Path, own: Path, held_out_file: Path, tmp_path: Path
) -> None:
    """Other held-out episodes, and the network is the same."""
    assert proposals.main(words_for(bundle_copy, own, held_out_file)) == 0
    first = (bundle_copy / "proposals.npz").read_bytes()
    with DatasetWriter(tmp_path / "changed/own", "own", ARM, FPS, (HEIGHT, WIDTH)) as writer:
        for seed, name in enumerate([f"train_{i}" for i in range(3)] + [f"held_{i}" for i in range(2)]):
            writer.append(episode(name, seed + 100 * name.startswith("held")), "task")
    assert proposals.main(words_for(bundle_copy, tmp_path / "changed/own", held_out_file)) == 0
    assert (bundle_copy / "proposals.npz").read_bytes() == first


def test_what_is_wrong_is_one_line_and_leaves_the_bundle_as_it_was(
    bundle_copy: Path, own: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle_copy / "manifest.json").read_text()
    held = write_dataset(tmp_path / "other", ["a", "b"])
    held_out_file.write_text('own: ["held_?"]\nother: ["*"]\n')
    cases = {
        ("--steps", "0"): "steps: expected 1 or more, found 0",
        ("--further", str(held)): "expected episodes that",
        ("--further", str(own)): "own",
        ("--further", str(tmp_path / "nowhere")): "nowhere",
    }
    for more, message in cases.items():
        assert proposals.main(words_for(bundle_copy, own, held_out_file, *more)) == 1
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ")
        assert message in line
    assert (bundle_copy / "manifest.json").read_text() == before
    assert not (bundle_copy / "proposals.npz").exists()


def test_a_short_horizon_has_fewer_shapes_and_no_report_of_what_no_episode_holds(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = load_bundle(bundle_copy).manifest
    write_manifest(bundle_copy, replace(manifest, max_horizon=3))
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", "held_0", "held_1"])
    assert proposals.main(words_for(bundle_copy, own, held_out_file)) == 0
    spec = load_bundle(bundle_copy).manifest.proposals
    assert spec is not None
    assert (spec.horizon, spec.rank) == (3, 24)
    shown = capsys.readouterr().out
    assert "after 0.2 s: " in shown
    assert shown.count("after ") == 1


def test_of_more_recordings_than_fit_into_memory_some_are_left_out_evenly(
    own: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, dataset = load_bundle(bundle_copy).manifest, Dataset.open(own)
    names = dataset.episode_names
    chosen = [(dataset, names)]
    assert proposals._kept(chosen, manifest) == chosen
    of_one = 2 * int(np.prod(LATENT)) * 40
    monkeypatch.setattr(proposals, "MAX_BYTES", 3 * of_one)
    assert proposals._kept(chosen, manifest) == [(dataset, names[::2])]


def test_proposals_outlive_a_denoiser_that_is_trained_on(
    bundle_copy: Path, own: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = shutil.copytree(bundle_copy, tmp_path / "later")
    assert proposals.main([str(later), "--earlier", str(bundle_copy)]) == 1
    assert "expected a bundle with proposals, found none" in capsys.readouterr().err
    assert proposals.main(words_for(bundle_copy, own, held_out_file)) == 0
    wider = load_bundle(later).manifest
    upper = tuple(2 * value + 1 for value in wider.action.upper)
    write_manifest(later, replace(wider, action=replace(wider.action, upper=upper)))
    assert proposals.main([str(later), "--earlier", str(bundle_copy)]) == 0
    theirs, ours = load_bundle(bundle_copy), load_bundle(later)
    assert ours.manifest.proposals == theirs.manifest.proposals
    assert ours.file("proposals.npz").read_bytes() == theirs.file("proposals.npz").read_bytes()


def test_those_of_another_encoder_are_refused(
    bundle_copy: Path, own: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert proposals.main(words_for(bundle_copy, own, held_out_file)) == 0
    changed = untrained_model()
    with torch.no_grad():
        for parameter in changed.codec.encoder.parameters():
            parameter.mul_(1.01)
    other = export_bundle(changed, tmp_path / "other", ExportConfig("panda", chunks=MAX_CHUNKS)).root
    capsys.readouterr()
    assert proposals.main([str(other), "--earlier", str(bundle_copy)]) == 1
    assert "expected the encoder of" in capsys.readouterr().err
    assert load_bundle(other).manifest.proposals is None


@pytest.mark.parametrize("words", [[], ["--data", "a", "--earlier", "b"]])
def test_it_learns_or_takes_over(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        proposals.main(["bundle", *words])
    assert "--data DIR, or --earlier BUNDLE" in capsys.readouterr().err
