"""The benchmark of how latents move, on a small dataset and an untrained codec."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astra_ros.denoiser.checkpoint import load_checkpoint, save_checkpoint
from benchmarks import latent_motion
from tests.moving_square import write_dataset


def test_it_measures_held_out_pictures_only(
    untrained_checkpoint: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "own", ["train_0", "held_0", "held_1"])
    result = tmp_path / "motion.json"
    words = [
        str(untrained_checkpoint),
        "--data",
        str(data),
        "--held-out",
        str(held_out_file),
        "--json",
        str(result),
    ]
    assert latent_motion.main(words) == 0
    shown = capsys.readouterr().out
    assert result.with_suffix(".md").read_text().removeprefix("# How latents move\n\n") == shown
    found = json.loads(result.read_text())["motion"]
    assert [one["distance"] for one in found] == list(latent_motion.DISTANCES)
    assert all(one["pictures"] == 8 for one in found)
    by_distance = {one["distance"]: one for one in found}
    assert by_distance[8]["left"] < 0.5 * by_distance[4]["left"]  # a whole latent moves, whatever the codec
    assert by_distance[1]["copied_db"] > by_distance[8]["copied_db"]


def test_pictures_that_the_codec_was_trained_on_are_refused(
    untrained_checkpoint: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(untrained_checkpoint)
    checkpoint.provenance = {"data": {"own": {"held_out": ["held_1"]}}}
    save_checkpoint(tmp_path / "seen", checkpoint)
    data = write_dataset(tmp_path / "own", ["train_0", "held_0", "held_1"])
    words = [str(tmp_path / "seen"), "--data", str(data), "--held-out", str(held_out_file)]
    assert latent_motion.main(words) == 1
    assert capsys.readouterr().err.startswith(
        "error: own: expected held-out episodes that the model was not trained on, found 1 that it was, first held_0;"
        " use the file of held-out episodes of its training"
    )


def test_without_held_out_pictures_it_says_so(
    untrained_checkpoint: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "other", ["train_0"])
    words = [str(untrained_checkpoint), "--data", str(data), "--held-out", str(held_out_file)]
    assert latent_motion.main(words) == 1
    assert capsys.readouterr().err == (
        f"error: {data}: expected held-out episodes, found none; name some in --held-out\n"
    )
