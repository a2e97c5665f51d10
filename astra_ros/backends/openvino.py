"""OpenVINO backend for CPUs: one compiled model per graph, and one for all denoising steps of a batch.

Values go from graph to graph without copies. openvino_compiler.py opens the graphs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
from openvino import properties

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.openvino_compiler import VERSION, Compiler
from astra_ros.backends.openvino_plan import ACTIONS, Plan, split_plan
from astra_ros.backends.openvino_steps import one_model
from astra_ros.denoiser.io import batched
from astra_ros.types import FloatArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runnable:
    """How a graph is run. Its model reads these inputs, then `more`, then what the plan, if any, makes of the actions."""

    request: ov.InferRequest
    inputs: Sequence[str]
    more: Sequence[ov.Tensor] = ()
    plan: Plan | None = None

    def tensors(self, given: Mapping[str, Any]) -> list[ov.Tensor]:
        own = [_to_tensor(given[name]) for name in self.inputs]
        planned = self.plan.tensors(_to_tensor(given[ACTIONS])) if self.plan else ()
        return [*own, *self.more, *planned]


class OpenVinoBackend(Backend):
    """Runs on the CPU.

    num_threads: threads of one inference; graphs run one after another, never together.
    precision: of `precisions`; another one in its place is an error.
    """

    name = "openvino"
    version = VERSION
    device = "cpu"

    def __init__(self, bundle: Bundle, num_threads: int = 2, precision: str = "fp32") -> None:
        super().__init__(bundle)
        self.precision = precision
        self._compiler = Compiler(bundle, precision, num_threads)
        self._runnables: dict[str, Runnable] = {}

    @classmethod
    def precisions(cls, bundle: Bundle) -> tuple[str, ...]:
        """bf16 where the processor has instructions for it, int8 where the bundle says how (export/quantize.py)."""
        native = ov.Core().get_property("CPU", properties.device.capabilities())
        bf16 = ("bf16",) if "BF16" in native else ()
        int8 = ("int8",) if bundle.manifest.quantization else ()
        return ("fp32", *bf16, *int8, *(("int8_bf16",) if bf16 and int8 else ()))

    @property
    def plans_once(self) -> bool:
        return any(one.plan is not None for one in self._runnables.values())

    def _open(self) -> None:
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
        models = [self._compiler.read(graph) for graph in graphs]
        try:
            model = one_model(models)
        except ValueError as error:
            logger.info("%s: each compiled for itself: %s", ", ".join(graphs), error)
            return {}
        make = self._opened_steps(model, graphs)
        numbers = [ov.Tensor(np.array(step, np.int32)) for step in range(len(graphs))]
        return {graph: make(more=(step,)) for graph, step in zip(graphs, numbers, strict=True)}

    def _opened_steps(self, model: ov.Model, graphs: Sequence[str]) -> Callable[..., Runnable]:
        """What makes a step of the one model that is these graphs: its part that knows the actions alone runs once for all."""
        inputs = [*self.specs[graphs[0]].inputs]
        parts = split_plan(model)
        if parts is None:
            (request,) = self._compiler.compile(graphs, model)
            return partial(Runnable, request, inputs)
        planning, request = self._compiler.compile(graphs, *parts)
        others = [name for name in inputs if name != ACTIONS]
        return partial(Runnable, request, others, plan=Plan(planning))

    def _open_one(self, graph: str) -> dict[str, Runnable]:
        (request,) = self._compiler.compile((graph,), self._compiler.read(graph))
        return {graph: Runnable(request, [*self.specs[graph].inputs])}

    def _steps_with(self, graph: str) -> tuple[str, ...]:
        """The denoising steps of the batch that this one is of; none for another graph."""
        manifest = self.manifest
        of_batches = (
            tuple(batched(f"step_{k}", batch) for k in range(manifest.num_steps))
            for batch in manifest.batches
        )
        return next((steps for steps in of_batches if graph in steps), ())

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, ov.Tensor]:
        runnable, spec = self._runnable(graph), self.specs[graph]
        request, given = runnable.request, runnable.tensors(inputs)
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


def _new_tensor(shape: Sequence[int]) -> ov.Tensor:
    return ov.Tensor(ov.Type.f32, shape)


def _to_tensor(value: Any) -> ov.Tensor:
    if isinstance(value, ov.Tensor):
        return value
    return ov.Tensor(np.require(value, np.float32, ["C", "W"]), shared_memory=True)
