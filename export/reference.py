"""The bundle's graphs run by torch: what golden vectors are made with and every other backend is compared to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.golden import NUM_CHUNKS, NUM_PICTURES, RolloutInputs
from astra_ros.backends.manifest import Manifest
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.types import ByteArray, FloatArray
from export.graphs import build_graphs


class TorchReference(Backend):
    """Of a checkpoint of one action space. Loading it checks no golden vectors: it makes them."""

    name = "torch"
    version = f"torch {torch.__version__}"
    precision = "fp32"
    device = "cpu"

    def __init__(self, checkpoint: Checkpoint, manifest: Manifest) -> None:
        super().__init__(Bundle(Path(), manifest, sha256=""))
        self._graphs = build_graphs(checkpoint, list(manifest.graphs), manifest.batches)

    def load(self) -> None:
        self._open()
        self._is_loaded = True

    def _check(self, batch: int) -> None:
        """It is what golden vectors are made with."""

    def _open(self) -> None:
        """Modules need no opening."""

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        spec = self.specs[graph]
        with torch.inference_mode():
            outputs = self._graphs[graph](*(torch.as_tensor(inputs[name]) for name in spec.inputs))
        return dict(zip(spec.outputs, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))

    def fetch(self, value: torch.Tensor) -> FloatArray:
        return value.numpy()

    def _release(self) -> None:
        """Nothing was acquired."""


def golden_inputs(manifest: Manifest, seed: int) -> RolloutInputs:
    """A seeded rollout of plausible size: smooth pictures, wandering actions, and slots empty as in short histories."""
    rng = np.random.default_rng(seed)
    action, slots, chunk = manifest.action, manifest.history.num_slots, manifest.chunk_len
    steps = rng.standard_normal((slots + NUM_CHUNKS * chunk, action.dim)) * np.asarray(action.delta_std)
    actions = (np.asarray(action.mean) + np.cumsum(steps, axis=0)).astype(np.float32)
    mask = np.ones(slots, np.float32)
    mask[1 : slots // 2] = 0
    latent = (manifest.latents.channels, manifest.latents.height, manifest.latents.width)
    return RolloutInputs(
        pixels=np.stack([_smooth_picture(rng, manifest) for _ in range(NUM_PICTURES)]),
        actions=actions[:slots],
        mask=mask,
        noise=rng.standard_normal((NUM_CHUNKS, chunk, *latent), np.float32),
        plan=actions[slots:].reshape(NUM_CHUNKS, chunk, action.dim),
    )


def _smooth_picture(rng: np.random.Generator, manifest: Manifest) -> ByteArray:
    height, width = manifest.camera.height, manifest.camera.width
    rows, columns = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[:, None]
    frequency, phase = rng.uniform(1, 12, (2, 3)), rng.uniform(0, 6, 3)
    waves = np.sin(frequency[0] * rows + frequency[1] * columns + phase)
    return np.asarray(127.5 + 120 * waves, np.uint8)
