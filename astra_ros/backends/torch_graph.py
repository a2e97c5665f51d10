"""An ONNX graph of a bundle as a torch function, so that torch runs what every other runtime runs.

Each operator becomes one call of a function in torch_ops.py. The file decides only which functions of that table are
called on what: nothing in it is executed as code.
"""

from __future__ import annotations

import operator
from typing import Any

import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, fx

from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError
from astra_ros.backends.torch_ops import OPERATORS, PLAIN, SHAPED
from astra_ros.backends.torch_weights import SharedWeights
from astra_ros.denoiser.io import GraphSpec, Shape

_OPSET = 20


def load_graphs(bundle: Bundle, device: torch.device | str = "cpu") -> dict[str, fx.GraphModule]:
    """Every graph of a bundle by name: float32 tensors in the order of GraphSpec.inputs → a tuple in that of its outputs.

    Equal weights are one tensor on the device for all graphs; whatever depends on weights alone is computed here. What is
    left has static shapes, no host tensors and no synchronisation: torch.compile and CUDA graphs take it as it is.
    Raises BundleError.
    """
    weights = SharedWeights(bundle, torch.device(device))
    specs = bundle.manifest.graph_specs
    return {name: load_graph(bundle, name, spec, weights) for name, spec in specs.items()}


def load_graph(bundle: Bundle, name: str, spec: GraphSpec, weights: SharedWeights) -> fx.GraphModule:
    """One of them. Raises BundleError."""
    path = bundle.graph(name)
    try:
        onnx.checker.check_model(str(path))  # operators against their schemas; order and names of values
        model = onnx.load_model(path, load_external_data=False)
        return _Translation(name, weights).of(model, spec)
    except BundleError:
        raise
    except Exception as error:  # the parser's and torch's exceptions share no base class
        raise BundleError(
            f"{path.name}: torch {torch.__version__} cannot run it ({error}); {EXPORT_AGAIN}"
        ) from error


class _Translation:
    """Of one graph. A value is a tensor while it depends on constants only, else a node of the torch graph.

    A node carries a tensor without memory in meta["val"], as is the custom in torch.fx: shapes are checked by trying every
    operator on those.
    """

    def __init__(self, name: str, weights: SharedWeights) -> None:
        self._name = name
        self._weights = weights
        self._graph = fx.Graph()
        self._values: dict[str, Tensor | fx.Node | None] = {"": None}  # an input that is left out has no name
        self._constants: dict[str, Tensor] = {}
        self._constant_nodes: dict[int, fx.Node] = {}

    def of(self, model: ModelProto, spec: GraphSpec) -> fx.GraphModule:
        _require(f"{self._name} opset", {one.domain: one.version for one in model.opset_import}[""], _OPSET)
        _require(f"{self._name} inputs", _declared(model), spec.inputs)
        for tensor in model.graph.initializer:
            self._values[tensor.name] = self._weights.tensor(tensor)
        for name, shape in spec.inputs.items():
            self._values[name] = _typed(self._graph.placeholder(name), torch.empty(shape, device="meta"))
        for node in model.graph.node:
            self._add(node)
        outputs = {name: self._node(self._values[name]) for name in spec.outputs}
        _require(
            f"{self._name} outputs", {name: _shape(node) for name, node in outputs.items()}, spec.outputs
        )
        self._graph.output(tuple(outputs.values()))
        self._graph.eliminate_dead_code()
        return fx.GraphModule(self._constants, self._graph, self._name)

    def _add(self, node: NodeProto) -> None:
        label = f"{self._name}: operator {node.op_type} {node.name[:80]!r}"
        function = OPERATORS.get(node.op_type) if node.domain == "" else None
        if function is None:
            raise BundleError(
                f"{label}: expected one that torch_ops.py knows; choose another backend or {EXPORT_AGAIN}"
            )
        try:
            values = self._apply(node, function)
        except Exception as error:
            raise BundleError(f"{label}: {error}; {EXPORT_AGAIN}") from error
        _require(f"{label} outputs", len(values), len(node.output))
        self._values.update(zip(node.output, values, strict=True))

    def _apply(self, node: NodeProto, function: Any) -> list[Any]:
        attributes = {one.name: _attribute(one) for one in node.attribute}
        if node.op_type in PLAIN and attributes:
            raise ValueError(f"attributes: expected none, found {sorted(attributes)}")
        inputs = [self._values[name] for name in node.input]
        if node.op_type in SHAPED:
            inputs[1:] = [_numbers(value) for value in inputs[1:]]
        if not any(isinstance(value, fx.Node) for value in inputs):
            result = self._weights.fold(function, inputs, attributes)
            return list(result) if isinstance(result, tuple) else [result]
        arguments = tuple(map(self._argument, inputs))
        tried = function(*fx.node.map_arg(arguments, lambda one: one.meta["val"]), **attributes)
        call = _typed(self._graph.call_function(function, arguments, attributes), tried)
        if not isinstance(tried, tuple):
            return [call]
        parts = [self._graph.call_function(operator.getitem, (call, part)) for part in range(len(tried))]
        return [_typed(part, value) for part, value in zip(parts, tried, strict=True)]

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        # A single number goes into the call: no memory is read for it, and a single index is a view.
        return value.item() if value.ndim == 0 else self._node(value)

    def _node(self, value: Tensor | fx.Node | None) -> fx.Node:
        if isinstance(value, fx.Node):
            return value
        assert value is not None
        if id(value) not in self._constant_nodes:
            name = f"constant_{len(self._constants)}"
            self._constants[name] = value
            self._constant_nodes[id(value)] = _typed(self._graph.get_attr(name), value.to("meta"))
        return self._constant_nodes[id(value)]


def _typed(node: fx.Node, value: Any) -> fx.Node:
    node.meta["val"] = value
    return node


def _numbers(value: Tensor | fx.Node | None) -> Any:
    if isinstance(value, fx.Node):
        raise ValueError(f"shapes and axes: expected constants, found the result of {value.target}")
    return None if value is None else value.tolist()


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _declared(model: ModelProto) -> dict[str, Shape]:
    """Shapes of the float32 inputs."""
    types = {one.name: one.type.tensor_type for one in model.graph.input}
    return {
        name: tuple(side.dim_value for side in kind.shape.dim)
        for name, kind in types.items()
        if kind.elem_type == TensorProto.FLOAT
    }


def _shape(node: fx.Node) -> Shape | str:
    value = node.meta["val"]
    return tuple(value.shape) if value.dtype == torch.float32 else str(value.dtype)


def _require(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise BundleError(f"{what}: expected {expected}, found {found}; {EXPORT_AGAIN}")
