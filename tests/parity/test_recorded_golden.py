"""Golden vectors of a recording: what the robot's own camera saw, and what its joints then did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends import golden
from astra_ros.backends.bundle import load_bundle
from astra_ros.data.lerobot import Dataset
from astra_ros.history.layout import NUM_SLOTS
from export import check_parity, to_onnx
from tests.bundle_fixture import CHUNK, HEIGHT, WIDTH
from tests.moving_square import write_dataset


@pytest.fixture
def exporting(untrained_checkpoint: Path, tmp_path: Path) -> list[str]:
    return [str(untrained_checkpoint), "--out", str(tmp_path / "bundle"), "--space", "panda"]


def test_they_are_the_middle_of_the_first_recording_that_is_long_enough(
    exporting: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "own", ["one", "two", "three"], short=["one"])
    assert to_onnx.main([*exporting, "--data", str(data)]) == 0
    assert "one: expected more than" in capsys.readouterr().err
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.manifest.provenance["command"].endswith("--data own")
    inputs, _ = golden.load(bundle.file("golden.npz"), bundle.manifest)
    (first,) = Dataset.open(data).stream(["three"], (HEIGHT, WIDTH), print)
    horizon = golden.NUM_CHUNKS * CHUNK
    now = (NUM_SLOTS - 1 + len(first.pixels) - horizon - 1) // 2
    assert 2 * CHUNK < now < len(first.pixels) - horizon
    seen = golden.spread(inputs.pixels.transpose(0, 3, 1, 2).astype(np.float32), NUM_SLOTS)
    for age in range(golden.NUM_PICTURES):
        np.testing.assert_array_equal(seen[-1 - age].transpose(1, 2, 0), first.pixels[now - age])
    np.testing.assert_allclose(inputs.actions[-1], first.measured[now], atol=1e-6)
    plan = inputs.plan.reshape(horizon, -1)
    np.testing.assert_allclose(plan, first.commanded[now + 1 : now + 1 + horizon], atol=1e-6)
    assert check_parity.main([str(bundle.root), exporting[0]]) == 0


def test_what_cannot_be_shown_is_told_in_one_line(
    exporting: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = write_dataset(tmp_path / "short", ["one"], short=["one"])
    assert to_onnx.main([*exporting, "--data", str(short)]) == 1
    assert (
        "are longer than 5.4 s without a gap, a history and 8 frames, found none" in capsys.readouterr().err
    )
    exporting[-1] = "keys"
    assert to_onnx.main([*exporting, "--data", str(short)]) == 1
    error = capsys.readouterr().err
    assert f"error: {short}: actions: expected" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "bundle").exists()
