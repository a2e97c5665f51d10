"""What a manifest says of a checkpoint before any graph is written."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import onnxscript
import torch

from astra_ros.backends.manifest import (
    SCHEMA_VERSION,
    CameraSpec,
    FileSpec,
    GoldenSpec,
    HistorySpec,
    LatentSpec,
    Manifest,
    NetworkSpec,
)
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.io import graph_specs

OPSET = 20
WEIGHTS_FILE, GOLDEN_FILE = "weights.bin", "golden.npz"
# float32 weights are kept while the whole bundle stays below this; it travels in a git repository.
MAX_BUNDLE_BYTES = 25_000_000
# How far any backend may be from torch on a robot.
LATENTS_TOLERANCE, PIXELS_TOLERANCE = 1e-3, 2


@dataclass(frozen=True)
class ExportConfig:
    """What a checkpoint does not say.

    chunks: how many may be rolled out, max_horizon = chunks * chunk_len.
    seed: of the golden inputs. command: goes into the provenance.
    """

    chunks: int = 2
    seed: int = 0
    command: str = "export.to_onnx.export_bundle"


def draft_manifest(checkpoint: Checkpoint, config: ExportConfig) -> Manifest:
    """The manifest, complete but for the digests of the files."""
    dims, preset, sigmas = checkpoint.dims, checkpoint.config.preset, checkpoint.config.sigmas
    graphs = {name: f"{name}.onnx" for name in graph_specs(dims, len(sigmas) - 1)}
    unwritten = FileSpec("0" * 64, 0)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_id=model_id(checkpoint),
        preset=preset,
        camera=CameraSpec(dims.image_height, dims.image_width),
        action=checkpoint.action,
        latents=LatentSpec(dims.latent_channels, dims.latent_height, dims.latent_width),
        history=HistorySpec(dims.history_slots),
        network=NetworkSpec(dims.depth, dims.num_heads, dims.head_dim, dims.tokens_per_frame),
        chunk_len=dims.chunk_len,
        max_horizon=config.chunks * dims.chunk_len,
        sigmas=sigmas,
        precision="fp32",
        weights_dtype=_weights_dtype(checkpoint),
        opset=OPSET,
        graphs=graphs,
        files=dict.fromkeys([*graphs.values(), WEIGHTS_FILE, GOLDEN_FILE], unwritten),
        golden=GoldenSpec(GOLDEN_FILE, LATENTS_TOLERANCE, PIXELS_TOLERANCE),
        provenance={
            "command": config.command,
            "seed": config.seed,
            "versions": _versions(),
            "training": checkpoint.provenance,
        },
    )


def model_id(checkpoint: Checkpoint) -> str:
    """The preset's name and a digest of the weights as they were trained."""
    digest = hashlib.sha256()
    for module in (checkpoint.codec, checkpoint.denoiser):
        for value in module.state_dict().values():
            digest.update(value.numpy().tobytes())
    return f"{checkpoint.config.preset}-{digest.hexdigest()[:12]}"


def _weights_dtype(checkpoint: Checkpoint) -> str:
    # The noise-level embedder becomes constants of the steps and is not stored.
    stored = [*checkpoint.codec.parameters(), *checkpoint.denoiser.parameters()]
    folded = sum(p.numel() for p in checkpoint.denoiser.noise_level.parameters())
    size = 4 * (sum(p.numel() for p in stored) - folded)
    return "float32" if size < MAX_BUNDLE_BYTES else "float16"


def _versions() -> dict[str, Any]:
    modules = {
        "torch": torch,
        "onnx": onnx,
        "onnxscript": onnxscript,
        "onnxruntime": onnxruntime,
        "numpy": np,
    }
    return {"python": platform.python_version(), **{name: str(m.__version__) for name, m in modules.items()}}
