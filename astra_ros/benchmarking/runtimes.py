"""What the subjects run on, by name, and how it is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.factory import open_backend

SERVED = "served"  # what the node would take
COMPARED_ON = "onnxruntime"  # where graphs are compared that no node runs

Opener = Callable[[Bundle, int], Backend]


def _as_shipped(name: str, precision: str = "auto") -> Opener:
    return lambda bundle, num_threads: open_backend(bundle, name, num_threads, precision)


def _onnxruntime_defaults(bundle: Bundle, num_threads: int) -> Backend:
    from astra_ros.backends.ort import OrtBackend

    class OrtDefaults(OrtBackend):
        """A thread for every core, which spins while it waits: what SessionOptions() asks for."""

        def _options(self) -> Any:
            return type(super()._options())()

    return OrtDefaults(bundle, num_threads)


def _plain_torch(device: str, mode: Literal["", "default", "max-autotune"] = "") -> Opener:
    def open_torch(bundle: Bundle, num_threads: int) -> Backend:
        from astra_ros.benchmarking.torch_runtimes import PlainTorch

        return PlainTorch(bundle, num_threads, device, mode)

    return open_torch


RUNTIMES: dict[str, Opener] = {
    "torch": _plain_torch("cpu"),
    "torch.compile": _plain_torch("cpu", "default"),
    "torch-sleeping": _as_shipped("torch"),
    "onnxruntime-defaults": _onnxruntime_defaults,
    "onnxruntime": _as_shipped("onnxruntime"),
    "openvino-fp32": _as_shipped("openvino", "fp32"),
    "openvino-bf16": _as_shipped("openvino", "bf16"),
    "openvino-int8": _as_shipped("openvino", "int8"),
    "openvino-int8_bf16": _as_shipped("openvino", "int8_bf16"),
    SERVED: _as_shipped("auto"),
    "cuda": _plain_torch("cuda"),
    "cuda.compile": _plain_torch("cuda", "max-autotune"),
    "cuda.graph": _as_shipped("torch:cuda"),
    "tensorrt": _as_shipped("tensorrt"),
    "tensorrt_rtx": _as_shipped("tensorrt_rtx"),
}
