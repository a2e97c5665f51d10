"""Weights as inputs of networks: the engines of a bundle then share one copy on the device."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx
from onnx import TensorProto, helper, numpy_helper

from astra_ros.backends.engines import DType, WeightSpec

SHARED_WEIGHTS_FILE = "weights.bin"
MIN_SHARED_BYTES = 100_000
# Convolutions want their kernels as constants, and only encode and decode have large ones, which nobody shares.
_SHARING = {"Einsum", "Gemm", "MatMul"}
_DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}
# A multiple of what any kernel wants of an address.
_ALIGNMENT = 4096


class SharedWeights:
    """Writes the file that the engines of a folder share; equal weights are stored once. Single use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def move_from(self, graph: onnx.GraphProto) -> dict[str, WeightSpec]:
        """Make inputs of a graph's large weights. Returns what each is and where it lies in the file."""
        operands = {name for node in graph.node if node.op_type in _SHARING for name in node.input}
        moved = {}
        for tensor in [tensor for tensor in graph.initializer if tensor.name in operands]:
            raw = numpy_helper.to_array(tensor).tobytes()
            if len(raw) >= MIN_SHARED_BYTES:
                moved[tensor.name] = self._specify(tensor, raw)
                value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                graph.input.append(value)
                graph.initializer.remove(tensor)
        return moved

    def _specify(self, tensor: TensorProto, raw: bytes) -> WeightSpec:
        dtype = _DTYPES[tensor.data_type]
        return WeightSpec(tuple(tensor.dims), dtype, self._append_once(raw), len(raw))

    def _append_once(self, raw: bytes) -> int:
        digest = hashlib.sha256(raw).digest()
        if digest not in self._offsets:
            self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
            self._offsets[digest] = self._file.tell()
            self._file.write(raw)
        return self._offsets[digest]
