"""The dtypes of an ONNX graph. TensorRT runs each layer in the dtype the graph gives it, so the graph is where it is said.

The split is that of torch.autocast: matrix products and convolutions in the low dtype; norms, softmax, exponentials,
rotary angles and the residual stream in float32, as are all inputs and outputs. Some products stay in float32 too: those
that choose an expert, because a choice does not degrade gracefully; the last one before latents, because latents are what
the sampler adds up and what the next history is made of; and those of exponentials, a softmax written out, because their
sums are beyond float16.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from astra_ros.backends.engines import Precision
from astra_ros.backends.manifest import EXPORT_AGAIN

DTYPES: dict[Precision, int] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}

PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
# The first opset in which convolutions take bfloat16; what the ops of a bundle compute is the same as in opset 20.
_BFLOAT16_OPSET = 22
# These run in the dtype of what they are given, float32 if that differs. Whatever is in neither set runs in float32.
_FOLLOWERS = {
    *("Add", "Div", "Gelu", "Mul", "Neg", "Sigmoid", "Sub", "Where"),
    *("Concat", "DepthToSpace", "Expand", "Gather", "GatherND", "Identity", "Pad", "Reshape", "Slice", "SpaceToDepth"),
    *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
}  # fmt: skip
_CHOICES = {"ArgMax", "ArgMin", "TopK"}
_EXACT_OUTPUTS = {"latents"}


def load_graph(path: Path, precision: Precision, *, keep_exact: bool = True) -> onnx.ModelProto:
    """A float32 graph with its weights, converted.

    keep_exact: leave the products named above in float32. Raises ValueError when the file is no graph, or a constant is
    beyond float16.
    """
    model = read_graph(path)
    dtypes = _dtypes(path, model)  # while the model is small: protobuf cannot serialise more than 2 GB
    onnx.load_external_data_for_model(model, str(path.parent))
    fold_casts(model.graph)
    if precision == "bf16":
        model.opset_import[0].version = max(model.opset_import[0].version, _BFLOAT16_OPSET)
    exact = set(_exact_products(model.graph)) if keep_exact else set[str]()
    _Conversion(model.graph, dtypes, DTYPES[precision], exact).run()
    return model


def read_graph(path: Path) -> onnx.ModelProto:
    """Without the weights that other files hold. Raises ValueError."""
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise _no_graph(path, error) from error
    return onnx.load(path, load_external_data=False)


def fold_casts(graph: onnx.GraphProto) -> None:
    """Weights that are stored in one dtype and cast to another become weights of the other."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]
    for node in casts:
        values = numpy_helper.to_array(stored[node.input[0]])
        to = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to"))
        graph.initializer.append(numpy_helper.from_array(values.astype(to), node.output[0]))
        graph.node.remove(node)
    _drop_unused_constants(graph)


class _Conversion:
    """Single use. A value keeps its name in float32; in the low dtype it is called `name.float16` or `name.bfloat16`."""

    def __init__(self, graph: onnx.GraphProto, dtypes: dict[str, int], low: int, exact: set[str]) -> None:
        self._graph = graph
        self._dtypes = dtypes
        self._low = low
        self._suffix = "." + helper.tensor_dtype_to_np_dtype(low).name
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._exact = exact
        # The dtype each value is computed in, and under which names it exists.
        inputs = [value.name for value in graph.input if self._is_float(value.name)]
        self._computed: dict[str, int] = dict.fromkeys(inputs, TensorProto.FLOAT)
        self._names: dict[tuple[str, int], str] = {(name, TensorProto.FLOAT): name for name in self._computed}
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        for node in self._graph.node:
            self._convert(node)
        for output in self._graph.output:
            if self._is_float(output.name):
                self._as_dtype(output.name, TensorProto.FLOAT)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        self._graph.ClearField("value_info")
        _drop_unused_constants(self._graph)

    def _convert(self, node: NodeProto) -> None:
        dtype = self._dtype_of(node)
        converted = NodeProto()
        converted.CopyFrom(node)
        for index, name in enumerate(node.input):
            if self._is_float(name):
                converted.input[index] = self._as_dtype(name, dtype)
        for index, name in enumerate(node.output):
            if self._is_float(name):
                converted.output[index] = self._name(name, dtype)
                self._computed[name] = dtype
                self._names[name, dtype] = converted.output[index]
        self._nodes.append(converted)

    def _dtype_of(self, node: NodeProto) -> int:
        if node.op_type in PRODUCTS:
            return TensorProto.FLOAT if node.output[0] in self._exact else self._low
        # Constants take the dtype of what they are combined with.
        given = {self._computed[name] for name in node.input if name in self._computed}
        return self._low if node.op_type in _FOLLOWERS and given == {self._low} else TensorProto.FLOAT

    def _is_float(self, name: str) -> bool:
        return self._dtypes.get(name) == TensorProto.FLOAT

    def _name(self, name: str, dtype: int) -> str:
        return name if dtype == TensorProto.FLOAT else name + self._suffix

    def _as_dtype(self, name: str, dtype: int) -> str:
        """The name under which a float value exists in a dtype; makes it exist if need be."""
        if (name, dtype) not in self._names:
            target = self._names[name, dtype] = self._name(name, dtype)
            if name not in self._constants:
                source = self._names[name, self._computed[name]]
                self._nodes.append(helper.make_node("Cast", [source], [target], to=dtype))
            elif dtype != TensorProto.FLOAT:
                values = _rounded(name, numpy_helper.to_array(self._constants[name]), dtype)
                self._graph.initializer.append(numpy_helper.from_array(values, target))
        return self._names[name, dtype]


def _dtypes(path: Path, model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every value of a graph."""
    try:
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as error:
        raise _no_graph(path, error) from error
    values = [*graph.input, *graph.value_info, *graph.output]
    return {
        **{tensor.name: tensor.data_type for tensor in graph.initializer},
        **{value.name: value.type.tensor_type.elem_type for value in values},
    }


def _no_graph(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path.name}: expected an ONNX graph, found {str(error)[:200]}; {EXPORT_AGAIN}")


def _exact_products(graph: onnx.GraphProto) -> Iterator[str]:
    """Outputs of the products that stay in float32: all behind a choice, the last ones before latents, and of exponentials."""
    maker = {name: node for node in graph.node for name in node.output}
    exponentials = {node.output[0] for node in graph.node if node.op_type == "Exp"}
    yield from (
        node.output[0] for node in graph.node if node.op_type in PRODUCTS and exponentials & set(node.input)
    )
    choices = [node.input[0] for node in graph.node if node.op_type in _CHOICES]
    latents = [output.name for output in graph.output if output.name in _EXACT_OUTPUTS]
    for wanted, goes_on in ((choices, True), (latents, False)):
        waiting, seen = list(wanted), set[str]()
        while waiting:
            node = maker.get(waiting.pop())
            if node is None or node.output[0] in seen:
                continue
            seen.add(node.output[0])
            if node.op_type in PRODUCTS:
                yield node.output[0]
            if goes_on or node.op_type not in PRODUCTS:
                waiting.extend(node.input)


def _rounded(name: str, values: npt.NDArray[Any], dtype: int) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        rounded = values.astype(helper.tensor_dtype_to_np_dtype(dtype))
    if not np.array_equal(np.isfinite(rounded.astype(np.float32)), np.isfinite(values)):
        largest = np.abs(values[np.isfinite(values)]).max()
        raise ValueError(
            f"{name}: expected values that {rounded.dtype} can hold, found {largest:g}; use --precision bf16"
        )
    return rounded


def _drop_unused_constants(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
