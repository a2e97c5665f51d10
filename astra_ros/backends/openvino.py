"""OpenVINO backend for CPUs: one compiled model per graph, values go from graph to graph without copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import properties
from openvino.properties import hint

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import BundleError
from astra_ros.backends.openvino_int8 import Ranges, read_ranges, round_products
from astra_ros.denoiser.io import GraphSpec, Shape
from astra_ros.types import FloatArray

# The type of what is not rounded, and the types that products then run in.
_TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32}
_COMPILED = {"fp32": ("f32",), "bf16": ("bf16",), "int8": ("i8", "u8")}
# Layers whose precision is the network's: nearly all of its arithmetic.
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")


class OpenVinoBackend(Backend):
    """Runs on the CPU.

    num_threads: threads of one inference; graphs run one after another, never together.
    precision: of `precisions`; another one in its place is an error. cache_dir: folder for compiled graphs, which makes
    the next load two to three times faster; None: nothing is written.
    """

    name = "openvino"
    version = f"openvino {ov.__version__.split('-')[0]}"
    device = "cpu"

    def __init__(
        self, bundle: Bundle, num_threads: int = 2, precision: str = "fp32", cache_dir: Path | None = None
    ) -> None:
        super().__init__(bundle)
        self.precision = precision
        self._num_threads = num_threads
        self._cache_dir = cache_dir
        self._requests: dict[str, ov.InferRequest] = {}
        self._ranges = Ranges({})

    @classmethod
    def precisions(cls, bundle: Bundle) -> tuple[str, ...]:
        """bf16 where the processor has instructions for it, int8 where the bundle says how (export/quantize.py)."""
        native = ov.Core().get_property("CPU", properties.device.capabilities())
        bf16 = ("bf16",) if "BF16" in native else ()
        int8 = ("int8",) if bundle.manifest.quantization else ()
        return ("fp32", *bf16, *int8)

    def _open(self) -> None:
        if self.precision == "int8" and (spec := self.manifest.quantization):
            self._ranges = read_ranges(self._bundle.file(spec.file))
        for graph in self._always_needed:
            self._request(graph)

    def _request(self, graph: str) -> ov.InferRequest:
        if graph not in self._requests:
            compiled = self._compile(graph)
            _require_io(graph, compiled, self.specs[graph])
            self._require_precision(graph, compiled)
            self._requests[graph] = compiled.create_infer_request()
        return self._requests[graph]

    def _compile(self, graph: str) -> ov.CompiledModel:
        path, core = self._bundle.graph(graph), ov.Core()
        try:
            if graph not in self._ranges.graphs:
                return core.compile_model(path, "CPU", self._options())
            model = core.read_model(path)
            round_products(model, self._ranges.graphs[graph])
            return core.compile_model(model, "CPU", self._options())
        except RuntimeError as error:
            raise BundleError(f"{path.name}: {self.version} cannot open it ({error})") from error

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            hint.performance_mode(): hint.PerformanceMode.LATENCY,
            hint.inference_precision(): _TYPES[self.precision],
            # A thread that is tied to a core waits for it while others are idle: a robot's computer is shared.
            hint.enable_cpu_pinning(): False,
            properties.inference_num_threads(): self._num_threads,
            properties.num_streams(): 1,
        }
        return options if self._cache_dir is None else {**options, properties.cache_dir(): self._cache_dir}

    def _require_precision(self, graph: str, compiled: ov.CompiledModel) -> None:
        """The hint is one: what counts is what products were compiled to. In int8 those of the ranges, else most."""
        infos = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
        products = [info for info in infos if info["layerType"].astype(str) in _PRODUCTS]
        compiled_to = Counter(info["runtimePrecision"].astype(str) for info in products)
        rounded = len(self._ranges.graphs.get(graph, ()))
        enough = rounded or (len(products) + 1) // 2
        if sum(compiled_to[name] for name in _COMPILED["int8" if rounded else self.precision]) < enough:
            raise BackendError(
                f"precision: expected {self.precision} in {graph}, found {dict(compiled_to)} with {self.version};"
                " choose precision fp32"
            )

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, ov.Tensor]:
        request, spec = self._request(graph), self.specs[graph]
        given = [_to_tensor(inputs[name]) for name in spec.inputs]
        made = [_new_tensor(shape) for shape in spec.outputs.values()]
        for index, tensor in enumerate(given):
            request.set_input_tensor(index, tensor)
        for index, tensor in enumerate(made):
            request.set_output_tensor(index, tensor)
        request.infer(share_outputs=True)  # as views, which nobody takes: otherwise they would be copied
        return dict(zip(spec.outputs, made, strict=True))

    def fetch(self, value: ov.Tensor) -> FloatArray:
        array: FloatArray = value.data
        return array

    def repeat(self, value: ov.Tensor, count: int, axis: int) -> ov.Tensor:
        shape = list(value.shape)
        shape[axis] = count
        repeated = _new_tensor(shape)
        repeated.data[:] = value.data
        return repeated

    def _release(self) -> None:
        self._requests.clear()


def _require_io(graph: str, compiled: ov.CompiledModel, spec: GraphSpec) -> None:
    for side, ports, expected in (
        ("inputs", compiled.inputs, spec.inputs),
        ("outputs", compiled.outputs, spec.outputs),
    ):
        found = {
            _known_name(port, expected): tuple(port.shape)
            for port in ports
            if port.partial_shape.is_static and port.element_type == ov.Type.f32
        }
        # In order, because tensors are bound by position.
        if list(found.items()) != list(expected.items()) or len(ports) != len(expected):
            raise BundleError(
                f"{graph} {side}: expected float32 {expected}, found {found}; export the bundle again"
            )


def _known_name(port: ov.ConstOutput, expected: Mapping[str, Shape]) -> str:
    """A port keeps the names of the operators that were optimised away beside its own."""
    return next((name for name in expected if name in port.names), str(sorted(port.names)))


def _new_tensor(shape: Sequence[int]) -> ov.Tensor:
    return ov.Tensor(ov.Type.f32, shape)


def _to_tensor(value: Any) -> ov.Tensor:
    if isinstance(value, ov.Tensor):
        return value
    return ov.Tensor(np.require(value, np.float32, ["C", "W"]), shared_memory=True)
