"""The bundle's graphs run by torch: what golden vectors are made with and every other backend is compared to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import Manifest
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.types import FloatArray
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
