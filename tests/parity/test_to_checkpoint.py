"""A bundle turned back into the checkpoint that it was exported from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from astra_ros.backends.bundle import load_bundle, write_manifest
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from astra_ros.denoiser.dit import NoiseLevelEmbedder
from astra_ros.denoiser.presets import PRESETS
from export import to_checkpoint
from export.contract import ExportConfig
from export.graphs import HISTORY_SIGMA
from export.served import as_served
from export.to_onnx import export_bundle
from tests.bundle_fixture import untrained, untrained_model


@pytest.fixture(scope="module", autouse=True)
def preset() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "untrained", lambda: untrained_model().config)
        yield


def distinct(checkpoint: Checkpoint) -> Checkpoint:
    """With weights no two tensors of which are alike, as in one that was trained."""
    with torch.no_grad():
        for parameter in [*checkpoint.codec.parameters(), *checkpoint.denoiser.parameters()]:
            parameter.add_(0.01 * torch.randn_like(parameter))
    return checkpoint


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint and its bundle."""
    folder = tmp_path_factory.mktemp("exported")
    checkpoint = distinct(untrained_model())
    save_checkpoint(folder / "checkpoint", checkpoint)
    export_bundle(checkpoint, folder / "bundle", ExportConfig("panda"))
    return folder / "checkpoint", folder / "bundle"


@pytest.fixture(scope="module")
def turned_back(preset: None, exported: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("turned_back")
    assert to_checkpoint.main([str(exported[1]), "--out", str(out)]) == 0
    return out


def test_every_weight_is_found_again(exported: tuple[Path, Path], turned_back: Path) -> None:
    original, found = (as_served(load_checkpoint(folder), "panda") for folder in (exported[0], turned_back))
    for before, after in ((original.codec, found.codec), (original.denoiser, found.denoiser)):
        expected = {k: v for k, v in before.state_dict().items() if not k.startswith("noise_level.")}
        weights = after.state_dict()
        assert len(expected) > 20
        for name, value in expected.items():
            assert torch.equal(weights[name], value), name


def test_served_noise_levels_are_embedded_as_before(exported: tuple[Path, Path], turned_back: Path) -> None:
    original, found = (load_checkpoint(folder).denoiser.noise_level for folder in (exported[0], turned_back))
    sigmas = load_checkpoint(turned_back).config.sigmas[:-1]
    for sigma in sigmas:
        torch.testing.assert_close(constants(found, sigma), constants(original, sigma), rtol=0, atol=1e-4)
    history = constants(original, HISTORY_SIGMA)
    used = torch.ones(history.shape[:2], dtype=torch.bool)
    used[-1, 2:] = False  # what the last block's keys and values do not need
    assert not torch.allclose(history, constants(original, sigmas[0]), atol=0.1)
    torch.testing.assert_close(constants(found, HISTORY_SIGMA)[used], history[used], rtol=0, atol=1e-4)


def constants(embedder: NoiseLevelEmbedder, sigma: float) -> torch.Tensor:
    """(depth, 6, width)."""
    with torch.no_grad():
        blocks, _ = embedder(torch.tensor([sigma]))
    return torch.stack([torch.cat([*block]).squeeze(1) for block in blocks])


def test_more_weights_than_numbers_are_found_in_several_goes(
    exported: tuple[Path, Path], turned_back: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_checkpoint, "_LAST", 80_000)
    again = tmp_path / "again"
    assert to_checkpoint.main([str(exported[1]), "--out", str(again)]) == 0
    one, other = (load_checkpoint(folder).denoiser.state_dict() for folder in (turned_back, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_knows_what_it_was_trained_on(exported: tuple[Path, Path], turned_back: Path) -> None:
    checkpoint = load_checkpoint(turned_back)
    assert checkpoint.provenance == {"data": "none: untrained"}
    assert checkpoint.actions == {"panda": load_bundle(exported[1]).manifest.action}


def test_one_of_several_cameras_is_turned_back(tmp_path: Path) -> None:
    """Of another size than its preset, too."""
    checkpoint = distinct(untrained(untrained_model().config.for_pictures(64, 64, ("front", "wrist"))))
    export_bundle(checkpoint, tmp_path / "bundle", ExportConfig("panda", candidates=1))
    assert to_checkpoint.main([str(tmp_path / "bundle"), "--out", str(tmp_path / "out")]) == 0
    found = load_checkpoint(tmp_path / "out")
    assert found.config.cameras == ("front", "wrist")
    assert (found.config.image_height, found.config.image_width) == (64, 64)
    assert torch.equal(found.denoiser.position, checkpoint.denoiser.position)


def test_an_unknown_preset_is_refused(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(bundle_copy, replace(load_bundle(bundle_copy).manifest, preset="huge"))
    assert to_checkpoint.main([str(bundle_copy), "--out", str(bundle_copy / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: preset: expected one of tiny, small, base, astra_1b3, untrained, found 'huge'"
    )


def test_other_sizes_than_the_presets_are_refused(
    untrained_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(PRESETS, "untrained", lambda: untrained_model(mlp_hidden=96).config)
    assert to_checkpoint.main([str(untrained_bundle), "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "found" in line
    assert line.endswith("only a bundle of this version's exporter can be turned back")
    assert not (tmp_path / "out").exists()


def test_a_missing_bundle_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert to_checkpoint.main([str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
