"""What a manifest says of a checkpoint before any graph is written."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
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
from astra_ros.data.suitability import trained_data
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.io import comparison_specs, graph_specs
from astra_ros.history.layout import ANCHOR_AGE, NUM_SLOTS
from export.work import graph_flops

OPSET = 20
WEIGHTS_FILE, GOLDEN_FILE = "weights.bin", "golden.npz"
# float32 weights are kept while the whole bundle stays below this; it travels in a git repository.
MAX_BUNDLE_BYTES = 25_000_000
# Of training episodes that a manifest tells: a robot reads up to a megabyte of it.
MAX_NAMES = 10_000
# How far any backend may be from torch on a robot, in the precision of the graphs and in a lower one.
LATENTS_TOLERANCE, PIXELS_TOLERANCE, REDUCED_TOLERANCE = 1e-3, 2, 0.02


@dataclass(frozen=True)
class ExportConfig:
    """What a checkpoint does not say.

    space: the action space to serve; "": the checkpoint's only one. steps: denoising steps of a chunk; 0: the preset's.
    chunks: how many may be asked for at once, max_horizon = chunks * chunk_len.
    candidates: that one run takes; more are run in several. An even number is exported in half, too, for CPUs whose threads take a
    half each. 1: none side by side.
    comparisons: also the graphs of denoiser/io.py comparison_specs.
    seed: of the golden inputs. data: a dataset whose first recording they show; None: patterns. command: goes into the provenance.
    """

    space: str = ""
    steps: int = 0
    chunks: int = 2
    candidates: int = 8
    comparisons: bool = False
    seed: int = 0
    data: Path | None = None
    command: str = "export.to_onnx.export_bundle"


def draft_manifest(checkpoint: Checkpoint, served: Checkpoint, config: ExportConfig) -> Manifest:
    """The manifest, complete but for the digests of the files. served: the checkpoint as it is exported."""
    (action,) = served.actions.values()
    dims, preset, sigmas = served.dims(action.space), served.config.preset, served.config.sigmas
    halves = {config.candidates // 2} if config.candidates % 2 == 0 else set()
    batches = tuple(sorted({1, config.candidates} | halves))
    names = [
        *graph_specs(dims, len(sigmas) - 1, batches),
        *(comparison_specs(dims) if config.comparisons else ()),
    ]
    graphs = {name: f"{name}.onnx" for name in names}
    unwritten = FileSpec("0" * 64, 0)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model_id=model_id(checkpoint),
        preset=preset,
        camera=CameraSpec(dims.image_height, dims.image_width, names=served.config.cameras),
        action=action,
        latents=LatentSpec(dims.latent_channels, dims.latent_height, dims.latent_width),
        history=HistorySpec(NUM_SLOTS, ANCHOR_AGE, dims.history_tokens),
        network=NetworkSpec(dims.depth, dims.num_heads, dims.head_dim),
        chunk_len=dims.chunk_len,
        max_horizon=config.chunks * dims.chunk_len,
        sigmas=sigmas,
        batches=batches,
        precision="fp32",
        weights_dtype=_weights_dtype(served),
        opset=OPSET,
        graphs=graphs,
        files=dict.fromkeys([*graphs.values(), WEIGHTS_FILE, GOLDEN_FILE], unwritten),
        golden=GoldenSpec(GOLDEN_FILE, LATENTS_TOLERANCE, PIXELS_TOLERANCE, REDUCED_TOLERANCE),
        provenance={
            "command": config.command,
            "seed": config.seed,
            "versions": _versions(),
            "checkpoint": kind_of(checkpoint),
            "training": brief(checkpoint.provenance),
        },
        flops=graph_flops(served.config.denoiser),
    )


def brief(provenance: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's provenance without the names of its training episodes, where these are too many for a manifest."""
    data = trained_data(provenance)
    if sum(len(one.get("training", ())) for one in data.values()) <= MAX_NAMES:
        return provenance
    few = {name: {key: one[key] for key in one if key != "training"} for name, one in data.items()}
    return {**provenance, "data": few}


def kind_of(checkpoint: Checkpoint) -> str:
    """A student, which has its teacher's guidance in its weights, or not: a bundle's graphs guide nothing."""
    distillation = checkpoint.provenance.get("distillation")
    if isinstance(distillation, dict):
        guidance, few, many = map(distillation.get, ("guidance", "num_steps", "teacher_steps"))
        return f"student of a teacher with guidance {guidance}, {few} steps for {many}"
    return "no student: it runs without guidance (astra distill makes a student with it)"


def model_id(checkpoint: Checkpoint) -> str:
    """The preset's name and a digest of the weights as they were trained."""
    digest = hashlib.sha256()
    for module in (checkpoint.codec, checkpoint.denoiser):
        for value in module.state_dict().values():
            digest.update(value.numpy().tobytes())
    return f"{checkpoint.config.preset}-{digest.hexdigest()[:12]}"


def _weights_dtype(served: Checkpoint) -> str:
    # The noise-level embedder becomes constants of the graphs and is not stored.
    stored = [*served.codec.parameters(), *served.denoiser.parameters()]
    folded = sum(p.numel() for p in served.denoiser.noise_level.parameters())
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
