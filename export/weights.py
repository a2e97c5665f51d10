"""One weight file for all graphs of a bundle: equal tensors are stored once, each on a page of its own.

The K denoising steps differ in a few constants only; sharing keeps a bundle at the size of one network.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.types import FloatArray
from export.paged_file import PagedFile

# Smaller tensors stay inside the graphs: the constants of a step, norms, biases.
MIN_SHARED_BYTES = 8_192


def round_to_float16(checkpoint: Checkpoint) -> None:
    """Give every large weight the nearest float16 value, in place, so that storing it as float16 loses nothing."""
    for module in (checkpoint.codec, checkpoint.denoiser):
        for parameter in module.parameters():
            if 4 * parameter.numel() >= MIN_SHARED_BYTES:
                with torch.no_grad():
                    parameter.copy_(parameter.half().float())


class WeightFile(PagedFile):
    """Writes the shared file.

    dtype: "float32", or "float16": then a tensor whose every value float16 can hold is stored so and cast by its
    graph; the arithmetic stays float32.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        super().__init__(path)
        self._dtype = dtype

    def move_from(self, model: onnx.ModelProto) -> None:
        """Replace the large tensors of a graph by references to this file."""
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT and 4 * int(np.prod(tensor.dims)) >= MIN_SHARED_BYTES:
                values = numpy_helper.to_array(tensor)
                if self._dtype == "float16" and _fits_float16(values):
                    values = values.astype(np.float16)
                    _cast_in_graph(model.graph, tensor)
                self._refer(tensor, values)

    def _refer(self, tensor: TensorProto, values: FloatArray) -> None:
        raw = values.tobytes()
        offset = self.append(raw)
        tensor.ClearField("float_data")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self.path.name), ("offset", str(offset)), ("length", str(len(raw)))):
            tensor.external_data.add(key=key, value=value)


def _fits_float16(values: FloatArray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.array_equal(values, values.astype(np.float16).astype(np.float32)))


def _cast_in_graph(graph: onnx.GraphProto, tensor: TensorProto) -> None:
    """The initialiser becomes `name.float16`; a Cast gives back `name` as float32."""
    name, tensor.name, tensor.data_type = tensor.name, f"{tensor.name}.float16", TensorProto.FLOAT16
    graph.node.insert(0, helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
