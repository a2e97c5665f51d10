"""PyTorch backend: the bundle's own graphs, operator by operator on a CPU, or recorded and replayed on a CUDA device."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

# Threads that wait must sleep, as in the other backends. The threading library reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.cuda_graph import Recorder, TorchFunction
from astra_ros.backends.torch_graph import load_graphs
from astra_ros.types import FloatArray

_DEVICES = ("cpu", "cuda")


class EagerBackend(Backend):
    """Needs no checkpoint and, on a CUDA device, no other runtime.

    num_threads: CPU threads of torch, in the whole process. device: "cpu" or "cuda".
    """

    name = "torch"
    version = f"torch {torch.__version__}"

    def __init__(self, bundle: Bundle, num_threads: int = 2, device: str = "cpu") -> None:
        super().__init__(bundle)
        self.precision = bundle.manifest.precision
        self.device = device
        self._num_threads = num_threads
        self._graphs: dict[str, TorchFunction] = {}
        self._landing: dict[torch.Size, Tensor] = {}  # page-locked host memory, by shape

    def _open(self) -> None:
        _require_device(self.device)
        torch.set_num_threads(self._num_threads)
        graphs = load_graphs(self._bundle, self.device)
        if self.device == "cpu":
            self._graphs.update(graphs)
            return
        recorder = Recorder(torch.device(self.device))
        for name, graph in graphs.items():
            self._graphs[name] = recorder.record(graph, self.specs[name])

    @torch.inference_mode()
    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        spec = self.specs[graph]
        outputs = self._graphs[graph](*(_to_tensor(inputs[name]) for name in spec.inputs))
        return dict(zip(spec.outputs, outputs, strict=True))

    @torch.inference_mode()
    def fetch(self, value: Tensor) -> FloatArray:
        if value.is_cuda:
            if value.shape not in self._landing:
                self._landing[value.shape] = torch.empty(value.shape, pin_memory=True)
            value = self._landing[value.shape].copy_(value, non_blocking=True)
            torch.cuda.current_stream().synchronize()
        array: FloatArray = value.numpy()
        return array

    @torch.inference_mode()
    def repeat(self, value: Tensor, count: int, axis: int) -> Tensor:
        return value.repeat_interleave(count, axis)

    def _release(self) -> None:
        self._graphs.clear()
        self._landing.clear()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()  # torch would keep it from whatever this process runs next


def _to_tensor(value: np.ndarray[Any, Any] | Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value, np.float32))


def _require_device(device: str) -> None:
    if device not in _DEVICES:
        raise BackendError(f"device: expected one of {_DEVICES}, found {device[:80]!r}; choose 'cpu'")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackendError(
            f"device: expected a CUDA device, found none that torch {torch.__version__} can use;"
            " choose device 'cpu', or install the driver and a CUDA build of torch"
        )
