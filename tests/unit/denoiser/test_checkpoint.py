"""Checkpoints load strictly: nothing is ignored, nothing is left at its initial value."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from astra_ros.denoiser.checkpoint import load_checkpoint, new_checkpoint, save_checkpoint, save_codec
from tests.bundle_fixture import action_specs, untrained_model

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(untrained_checkpoint: Path, tmp_path: Path) -> Path:
    for path in untrained_checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_what_was_saved_is_loaded(untrained_checkpoint: Path) -> None:
    loaded, saved = load_checkpoint(untrained_checkpoint), untrained_model()
    assert (loaded.config, loaded.actions, loaded.provenance) == (
        saved.config,
        saved.actions,
        saved.provenance,
    )
    for name in ("codec", "denoiser"):
        expected = getattr(saved, name).state_dict()
        found = getattr(loaded, name).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_files_are_replaced_at_once(folder: Path, tmp_path: Path) -> None:
    """Whoever holds the old file still reads all of it."""
    checkpoint, old = load_checkpoint(folder), tmp_path / "old"
    old.mkdir()
    save_codec(folder / "codec.safetensors", checkpoint.codec)
    kept = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    for name in kept:
        os.link(folder / name, old / name)
    checkpoint.provenance = {"seed": 1}
    with torch.no_grad():
        checkpoint.denoiser.position.add_(1)
        checkpoint.codec.mean.add_(1)
    save_checkpoint(folder, checkpoint)
    save_codec(folder / "codec.safetensors", checkpoint.codec)
    assert {file.name for file in folder.iterdir() if file.is_file()} == kept.keys()
    for name, content in kept.items():
        assert (old / name).read_bytes() == content != (folder / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("denoiser.position"), "position"),
        (lambda w: w.update({"denoiser.more": torch.zeros(1)}), "more"),
        (lambda w: w.update({"denoiser.position": torch.zeros(3, 3)}), "position"),
        # As a training framework nests them: a lenient loader takes none and says nothing.
        (
            lambda w: [
                w.update({f"denoiser.module.{k[9:]}": w.pop(k)}) for k in list(w) if k[:9] == "denoiser."
            ],
            "module",
        ),
    ],
    ids=["missing", "unknown", "another shape", "nested"],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[Weights], Any], named: str
) -> None:
    weights = load_file(folder / "weights.safetensors")
    change(weights)
    save_file(weights, folder / "weights.safetensors")
    with pytest.raises(
        ValueError, match=rf"weights.safetensors: weights do not fit the Denoiser .*{named}"
    ) as refusal:
        load_checkpoint(folder)
    assert "\n" not in str(refusal.value)


def test_a_file_that_was_not_copied_to_its_end_is_refused(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(
        ValueError, match=r"weights.safetensors: expected a whole safetensors file, found "
    ) as refusal:
        load_checkpoint(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["model"]["denoiser"].update(colour=1), "colour"),
        (lambda c: c["model"].pop("image_height"), "image_height|weights|latent_height"),
        (lambda c: c["actions"][0].pop("space"), "space"),
        (lambda c: c.pop("actions"), "actions"),
        (lambda c: c["actions"][1].update(space="keys"), "space: expected a name of its own"),
    ],
)
def test_a_config_of_another_version_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], Any], named: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=named) as refusal:
        load_checkpoint(folder)
    assert "config.json" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_unknown_action_space_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="space: expected one of keys, panda, found 'rover'"):
        untrained_model().space_index("rover")
    keys = action_specs()[0]
    with pytest.raises(ValueError, match="space: expected a name of its own"):
        new_checkpoint(untrained_model().config, [keys, keys])
