"""OpenVINO backend for CPUs: one compiled model per graph, and one for all denoising steps of a batch.

Values go from graph to graph without copies.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from astra_ros.backends.openvino_steps import STEP, one_model
from astra_ros.denoiser.io import GraphSpec, Shape, batched
from astra_ros.types import FloatArray

logger = logging.getLogger(__name__)

# The type of what is not rounded.
_TYPES = {"fp32": ov.Type.f32, "bf16": ov.Type.bf16, "int8": ov.Type.f32, "int8_bf16": ov.Type.bf16}
# The types that products of integers, and all others, are compiled to.
_INTEGERS, _FLOATS = ("i8", "u8"), {ov.Type.f32: ("f32",), ov.Type.bf16: ("bf16",)}
# Layers whose precision is the network's: nearly all of its arithmetic.
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul")


@dataclass(frozen=True)
class Runnable:
    """How a graph is run. more: tensors after the graph's own inputs."""

    request: ov.InferRequest
    more: tuple[ov.Tensor, ...] = ()


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
        self._runnables: dict[str, Runnable] = {}
        self._ranges = Ranges({})

    @classmethod
    def precisions(cls, bundle: Bundle) -> tuple[str, ...]:
        """bf16 where the processor has instructions for it, int8 where the bundle says how (export/quantize.py)."""
        native = ov.Core().get_property("CPU", properties.device.capabilities())
        bf16 = ("bf16",) if "BF16" in native else ()
        int8 = ("int8",) if bundle.manifest.quantization else ()
        return ("fp32", *bf16, *int8, *(("int8_bf16",) if bf16 and int8 else ()))

    def _open(self) -> None:
        if self.precision.startswith("int8") and (spec := self.manifest.quantization):
            self._ranges = read_ranges(self._bundle.file(spec.file))
        for graph in self._always_needed:
            self._runnable(graph)

    def _runnable(self, graph: str) -> Runnable:
        if graph not in self._runnables:
            self._runnables |= self._open_steps(graph) or self._open_one(graph)
        return self._runnables[graph]

    def _open_steps(self, graph: str) -> dict[str, Runnable]:
        """All denoising steps of the batch that this one is of, as one model; none where that cannot be."""
        graphs = self._steps_with(graph)
        if len(graphs) < 2:
            return {}
        models = [self._read(graph) for graph in graphs]
        try:
            model = one_model(models)
        except ValueError as error:
            logger.info("%s: each compiled for itself: %s", ", ".join(graphs), error)
            return {}
        request = self._compile(model, graphs, (STEP,))
        numbers = [ov.Tensor(np.array(step, np.int32)) for step in range(len(graphs))]
        return {graph: Runnable(request, (step,)) for graph, step in zip(graphs, numbers, strict=True)}

    def _open_one(self, graph: str) -> dict[str, Runnable]:
        return {graph: Runnable(self._compile(self._read(graph), (graph,)))}

    def _steps_with(self, graph: str) -> tuple[str, ...]:
        """The denoising steps of the batch that this one is of; none for another graph."""
        manifest = self.manifest
        of_batches = (
            tuple(batched(f"step_{k}", batch) for k in range(manifest.num_steps))
            for batch in manifest.batches
        )
        return next((steps for steps in of_batches if graph in steps), ())

    def _read(self, graph: str) -> ov.Model:
        path = self._bundle.graph(graph)
        try:
            return ov.Core().read_model(path)
        except RuntimeError as error:
            raise BundleError(f"{path.name}: {self.version} cannot open it ({error})") from error

    def _compile(
        self, model: ov.Model, graphs: tuple[str, ...], more_inputs: tuple[str, ...] = ()
    ) -> ov.InferRequest:
        """Of the model that is these graphs."""
        limits = self._ranges.of_all(graphs)
        round_products(model, limits)
        try:
            compiled = ov.Core().compile_model(model, "CPU", self._options())
        except RuntimeError as error:
            name = self._bundle.graph(graphs[0]).name
            raise BundleError(f"{name}: {self.version} cannot open it ({error})") from error
        _require_io(graphs[0], compiled, self.specs[graphs[0]], more_inputs)
        self._require_precision(graphs[0], compiled, len(limits))
        return compiled.create_infer_request()

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

    def _require_precision(self, graph: str, compiled: ov.CompiledModel, rounded: int) -> None:
        """The hint is one: what counts is what products were compiled to. In int8 those of the ranges, else most."""
        infos = [layer.get_rt_info() for layer in compiled.get_runtime_model().get_ops()]
        products = [info for info in infos if info["layerType"].astype(str) in _PRODUCTS]
        compiled_to = Counter(info["runtimePrecision"].astype(str) for info in products)
        wanted = _INTEGERS if rounded else _FLOATS[_TYPES[self.precision]]
        if sum(compiled_to[name] for name in wanted) < (rounded or (len(products) + 1) // 2):
            raise BackendError(
                f"precision: expected {self.precision} in {graph}, found {dict(compiled_to)} with {self.version};"
                " choose precision fp32"
            )

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, ov.Tensor]:
        runnable, spec = self._runnable(graph), self.specs[graph]
        given = [*(_to_tensor(inputs[name]) for name in spec.inputs), *runnable.more]
        request = runnable.request
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
        self._runnables.clear()


def _require_io(
    graph: str, compiled: ov.CompiledModel, spec: GraphSpec, more_inputs: tuple[str, ...]
) -> None:
    inputs, more = compiled.inputs[: len(spec.inputs)], compiled.inputs[len(spec.inputs) :]
    for side, ports, expected in (
        ("inputs", inputs, spec.inputs),
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
    if (names := tuple(port.any_name for port in more)) != more_inputs:
        raise BundleError(
            f"{graph} inputs: expected {more_inputs} more, found {names}; export the bundle again"
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
