"""A bundle of a very small untrained network, exported for real once per test session."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.codec.autoencoder import CodecConfig
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint, new_checkpoint, save_checkpoint
from astra_ros.denoiser.dit import DenoiserConfig
from astra_ros.denoiser.presets import ModelConfig
from export.contract import ExportConfig
from export.to_onnx import export_bundle

# Many waiting threads of a second runtime cost far more than they bring on networks of this size.
torch.set_num_threads(1)

JOINTS = (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1")


def untrained_model() -> Checkpoint:
    """Two layers, 32x32 pictures, chunks of two frames, two denoising steps; every weight is random."""
    config = ModelConfig(
        preset="untrained",
        image_size=32,
        num_steps=2,
        codec=CodecConfig(latent_channels=4, widths=(16, 40), num_blocks=1),
        denoiser=DenoiserConfig(
            latent_channels=4, latent_size=4, width=64, depth=2, num_heads=2, history_slots=4, chunk_len=2
        ),
    )
    action = ActionSpec(
        modality="arm",
        representation="joint_position",
        names=JOINTS,
        units=("rad",) * 7 + ("m",),
        step_dt=0.2,
        mean=(0.1,) * 8,
        std=(0.5,) * 8,
        delta_std=(0.1,) * 8,
        lower=(-2.0,) * 8,
        upper=(2.0,) * 8,
    )
    torch.manual_seed(0)
    checkpoint = new_checkpoint(config, action)
    for parameter in checkpoint.denoiser.parameters():
        if not parameter.any():  # zero at initialisation: such a network would ignore history and actions
            torch.nn.init.normal_(parameter, std=0.1)
    checkpoint.provenance = {"data": "none: untrained"}
    return checkpoint


@pytest.fixture(scope="session")
def untrained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, untrained_model())
    return folder


@pytest.fixture(scope="session")
def untrained_bundle(untrained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read it only; `bundle_copy` is there to be damaged."""
    out = tmp_path_factory.mktemp("bundles") / "untrained"
    export_bundle(load_checkpoint(untrained_checkpoint), out, ExportConfig(chunks=3))
    return out


@pytest.fixture
def bundle_copy(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))
