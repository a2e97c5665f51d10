"""A bundle of a very small untrained network, exported for real once per test session."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.manifest import LatentSpec
from astra_ros.backends.ort import OrtBackend
from astra_ros.codec.autoencoder import CodecConfig
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint, new_checkpoint, save_checkpoint
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.presets import ModelConfig
from astra_ros.rollout.proposals import expected_shapes
from astra_ros.training.proposals import ProposalNetwork, ProposalsConfig
from export.contract import ExportConfig
from export.proposals import add_proposals
from export.to_onnx import export_bundle
from tests.recordings import AXES

# Many waiting threads of a second runtime cost far more than they bring on networks of this size.
torch.set_num_threads(1)

JOINTS = (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1")
KEYS = tuple(f"key_{i}" for i in range(16))
# One side is no multiple of the poolings, and height and width differ, so that mistaking them shows.
HEIGHT, WIDTH, LATENT = 48, 64, (4, 6, 8)
CHUNK, MAX_CHUNKS = 4, 25
SIZES = {
    "latent_channels": LATENT[0],
    "latent_height": LATENT[1],
    "latent_width": LATENT[2],
    "width": 64,
    "depth": 2,
    "num_heads": 2,
    "chunk_len": CHUNK,
    "refiner": 8,
}


def action_specs() -> tuple[ActionSpec, ActionSpec]:
    """Keys, whose features are the wider ones, and an arm."""
    return _spec("keys", "command", "rate", KEYS), _spec("panda", "arm", "joint_position", JOINTS)


def untrained_model(**sizes: Any) -> Checkpoint:
    """Two layers, 48x64 pictures, chunks of four frames, two denoising steps, two action spaces; random weights.

    sizes: other fields of the DenoiserConfig.
    """
    config = ModelConfig(
        preset="untrained",
        image_height=HEIGHT,
        image_width=WIDTH,
        num_steps=2,
        codec=CodecConfig(latent_channels=4, widths=(16, 40), num_blocks=1),
        denoiser=DenoiserConfig(**{**SIZES, **sizes}),
    )
    return untrained(config)


def untrained(config: ModelConfig, specs: tuple[ActionSpec, ...] = ()) -> Checkpoint:
    """Random weights everywhere. specs: the action spaces; none: those of `action_specs`."""
    torch.manual_seed(0)
    checkpoint = new_checkpoint(config, specs or action_specs())
    for parameter in checkpoint.denoiser.parameters():
        if not parameter.any():  # zero at initialisation: such a network would ignore history and actions
            torch.nn.init.normal_(parameter, std=0.1)
    checkpoint.provenance = {"data": "none: untrained"}
    return checkpoint


def _spec(space: str, modality: str, representation: str, names: tuple[str, ...]) -> ActionSpec:
    dim = len(names)
    return ActionSpec(
        space=space,
        modality=modality,
        representation=representation,
        names=names,
        units=(*("rad",) * (dim - 1), "m"),
        step_dt=0.2,
        mean=(0.1,) * dim,
        std=(0.5,) * dim,
        delta_std=(0.1,) * dim,
        lower=(-2.0,) * dim,
        upper=(2.0,) * dim,
    )


@pytest.fixture(scope="session")
def untrained_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, untrained_model())
    return folder


@pytest.fixture(scope="session")
def untrained_bundle(untrained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the arm, in rollouts of up to 100 frames. Read it only; `bundle_copy` is there to be damaged."""
    out = tmp_path_factory.mktemp("bundles") / "untrained"
    export_bundle(load_checkpoint(untrained_checkpoint), out, ExportConfig("panda", chunks=MAX_CHUNKS))
    return out


@pytest.fixture(scope="session")
def vehicle_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For a robot that drives, in rollouts of up to 20 frames. Read it only."""
    out = tmp_path_factory.mktemp("bundles") / "rover"
    units, twos = ("m/s", "rad/s"), (0.5, 0.5)
    spec = ActionSpec(
        "rover", "drive", "rate", AXES, units, 0.2, (0.0, 0.0), twos, (0.2, 0.2), (-1.0, -2.0), (1.0, 2.0)
    )
    export_bundle(untrained(untrained_model().config, (spec,)), out, ExportConfig("rover", chunks=5))
    return out


@pytest.fixture(scope="session")
def proposing_bundle(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, which proposes 12 plans of up to 20 rows; untrained, too. Read it only."""
    out = Path(shutil.copytree(untrained_bundle, tmp_path_factory.mktemp("bundles") / "proposing"))
    manifest = load_bundle(out).manifest
    config = ProposalsConfig(count=12, horizon=20, width=4, features=16, rank=6)
    spec = config.spec("proposals.npz", ("none",))
    add_proposals(out, untrained_proposals(config, manifest.latents, manifest.action), spec)
    return out


def untrained_proposals(config: ProposalsConfig, latents: LatentSpec, action: ActionSpec) -> ProposalNetwork:
    """Random everywhere, so that every weight counts."""
    torch.manual_seed(0)
    network = ProposalNetwork(config, expected_shapes(config.spec("", ()), latents, action.dim))
    for name, value in network.state_dict().items():
        if name.endswith("bias") or name in ("shapes", "latent_mean"):
            value.normal_(std=0.3)
    network.latent_std.uniform_(0.5, 2.0)
    return network.eval()


@pytest.fixture
def bundle_copy(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The graphs that ONNX Runtime opens from now on, in their order."""
    names: list[str] = []
    open_session = OrtBackend._open_session

    def watched(backend: OrtBackend, path: Path) -> Any:
        names.append(path.stem)
        return open_session(backend, path)

    monkeypatch.setattr(OrtBackend, "_open_session", watched)
    return names
