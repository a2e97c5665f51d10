"""Weights as inputs of networks: the engines of a bundle then share one copy on the device."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper, numpy_helper

from astra_ros.backends.engines import DType, WeightSpec
from export.paged_file import PagedFile

SHARED_WEIGHTS_FILE = "weights.bin"
MIN_SHARED_BYTES = 100_000
# Convolutions want their kernels as constants, and only encode and decode have large ones, which nobody shares.
_SHARING = {"Einsum", "Gemm", "MatMul"}
_DTYPES: dict[int, DType] = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
}


class SharedWeights(PagedFile):
    """Writes the file that the engines of a folder share."""

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
        return WeightSpec(tuple(tensor.dims), dtype, self.append(raw), len(raw))
