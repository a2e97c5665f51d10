"""How OpenVINO compiles a bundle's graphs: in the precision that was asked for, or not at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError
from astra_ros.backends.openvino_int8 import Ranges, read_ranges, round_products
from astra_ros.backends.openvino_weights import Weights
from astra_ros.backends.quiet_openvino import PrePostProcessor, hint, ops, ov, properties
from astra_ros.denoiser.io import GraphSpec, Shape

VERSION = f"openvino {ov.__version__.split('-')[0]}"

# The type of what is not rounded.
_TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32, "int8_bf16": ov.Type.bf16}
# The types that products of integers, and all others, are compiled to.
_INTEGERS, _FLOATS = ("i8", "u8"), {ov.Type.f32: ("f32",), ov.Type.bf16: ("bf16",)}
# Layers whose precision is the network's: nearly all of its arithmetic.
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")
_KEYS_AND_VALUES = {"history_keys", "history_values", "new_history_keys", "new_history_values"}


class Compiler:
    """Graphs of a bundle → what runs them. Refuses a graph that is not what the manifest promises."""

    def __init__(self, bundle: Bundle, precision: str, num_threads: int) -> None:
        self._bundle = bundle
        self._precision = precision
        self._num_threads = num_threads
        self._specs = bundle.manifest.graph_specs
        self.release()

    @cached_property
    def ranges(self) -> Ranges:
        """Of the values that are rounded to integers, the bundle's unless they are set; none in another precision."""
        spec = self._bundle.manifest.quantization
        if spec is None or not self._precision.startswith("int8"):
            return Ranges({})
        return read_ranges(self._bundle.file(spec.file))

    def release(self) -> None:
        """Forget the weights that compiled graphs share; those that are in use stay for as long as they are."""
        self._weights = Weights(keep_float16=_TYPES[self._precision] == ov.Type.bf16)

    def read(self, graph: str) -> ov.Model:
        """Raises BundleError."""
        path = self._bundle.graph(graph)
        try:
            # Mapped into memory, the file of all weights would stay there once per graph.
            model = ov.Core().read_model(path, config={properties.enable_mmap(): False})
        except RuntimeError as error:
            raise BundleError(f"{path.name}: {VERSION} cannot open it ({error})") from error
        _require_io(graph, model, self._specs[graph])
        return model

    def compile(self, graphs: Sequence[str], *models: ov.Model, lanes: int = 1) -> list[ov.InferRequest]:
        """Of models that together are these graphs. lanes: requests of it that run at the same time and share the threads.

        Raises BundleError or BackendError.
        """
        rounded = round_products(models, self.ranges.of_all(graphs))
        for model in models:
            self._weights.share(model)
        options = self.options() | {properties.num_streams(): lanes}
        pairs = zip(models, rounded, strict=True)
        return [self._compile(graphs[0], model, count, options) for model, count in pairs]

    def _compile(
        self, graph: str, model: ov.Model, rounded: int, options: Mapping[str, Any]
    ) -> ov.InferRequest:
        try:
            compiled = ov.Core().compile_model(_with_cache_in(_TYPES[self._precision], model), "CPU", options)
        except RuntimeError as error:
            raise BundleError(
                f"{self._bundle.graph(graph).name}: {VERSION} cannot open it ({error})"
            ) from error
        self._require_precision(graph, compiled, rounded)
        return compiled.create_infer_request()

    def options(self) -> dict[str, Any]:
        """OpenVINO's, by name."""
        return {
            hint.performance_mode(): hint.PerformanceMode.LATENCY,
            hint.inference_precision(): _TYPES[self._precision],
            # A thread that is tied to a core waits for it while others are idle: a robot's computer is shared.
            hint.enable_cpu_pinning(): False,
            properties.inference_num_threads(): self._num_threads,
            properties.num_streams(): 1,
        }

    def _require_precision(self, graph: str, compiled: ov.CompiledModel, rounded: int) -> None:
        """The hint is one: what counts is what products were compiled to. In int8 those of the ranges, else most."""
        infos = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
        products = [info for info in infos if info["layerType"].astype(str) in _PRODUCTS]
        compiled_to = Counter(info["runtimePrecision"].astype(str) for info in products)
        wanted = _INTEGERS if rounded else _FLOATS[_TYPES[self._precision]]
        if sum(compiled_to[name] for name in wanted) < (rounded or (len(products) + 1) // 2):
            raise BackendError(
                f"precision: expected {self._precision} in {graph}, found {dict(compiled_to)} with {VERSION};"
                " choose precision fp32"
            )


def _require_io(graph: str, model: ov.Model, spec: GraphSpec) -> None:
    for side, ports, expected in (
        ("inputs", model.inputs, spec.inputs),
        ("outputs", model.outputs, spec.outputs),
    ):
        found = {
            _known_name(port, expected): tuple(port.partial_shape.to_shape())
            for port in ports
            if port.partial_shape.is_static and port.element_type == ov.Type.f32
        }
        # In order, because tensors are bound by position.
        if list(found.items()) != list(expected.items()) or len(ports) != len(expected):
            raise BundleError(f"{graph} {side}: expected float32 {expected}, found {found}; {EXPORT_AGAIN}")


def _with_cache_in(kind: ov.Type, model: ov.Model) -> ov.Model:
    """The history's keys and values cross from graph to graph as they are computed. The given model must not be used afterwards."""
    if kind == ov.Type.f32:
        return model
    typed = PrePostProcessor(model)
    for ports, of_port in ((model.inputs, typed.input), (model.outputs, typed.output)):
        for index, port in enumerate(ports):
            if port.get_names() & _KEYS_AND_VALUES:
                of_port(index).tensor().set_element_type(kind)
    return typed.build()


def _known_name(port: ov.Output, expected: Mapping[str, Shape]) -> str:
    """A port may have several names."""
    return next((name for name in expected if name in port.get_names()), str(sorted(port.get_names())))


def product(num_threads: int, precision: str, side: int) -> Callable[[], object]:
    """What multiplies two square matrices in fp32 or bf16: how fast this library can be on this machine, whatever the network."""
    left, right = np.random.default_rng(0).random((2, side, side), np.float32)
    given = ops.parameter((side, side), np.float32)
    multiplied = ops.matmul(given, ops.constant(right), transpose_a=False, transpose_b=False)
    options = {properties.inference_num_threads(): num_threads, hint.inference_precision(): _TYPES[precision]}
    compiled = ov.Core().compile_model(ov.Model([multiplied], [given], "product"), "CPU", options)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(left))
    return lambda: request.infer(share_outputs=True)
