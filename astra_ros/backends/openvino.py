"""OpenVINO backend for CPUs: one compiled model per graph, and one for all denoising steps of a batch.

Values go from graph to graph without copies. openvino_compiler.py opens the graphs. Threads are at their best with work of
their own: candidates run as several smaller batches at once, where the bundle has graphs for them (docs/decisions/0014).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.freed_memory import return_freed_memory
from astra_ros.backends.openvino_compiler import VERSION, Compiler
from astra_ros.backends.openvino_plan import ACTIONS, Plan, split_plan
from astra_ros.backends.openvino_runnable import Lane, Runnable, again, repeat, to_array
from astra_ros.backends.openvino_steps import one_model
from astra_ros.backends.quiet_openvino import ov, properties
from astra_ros.backends.rollout import BatchRollout, Rollout, Runner, SideBySide
from astra_ros.denoiser.io import batched
from astra_ros.types import FloatArray

logger = logging.getLogger(__name__)


class OpenVinoBackend(Backend):
    """Runs on the CPU.

    num_threads: of one inference, or of several parts of a question's candidates at once, which share them.
    precision: of `precisions`; another one in its place is an error.
    """

    name = "openvino"
    version = VERSION
    device = "cpu"

    def __init__(self, bundle: Bundle, num_threads: int = 2, precision: str = "fp32") -> None:
        super().__init__(bundle)
        self.precision = precision
        self._compiler = Compiler(bundle, precision, num_threads)
        self._num_threads = num_threads
        self._runnables: dict[str, Runnable] = {}
        self._lanes: dict[int, list[Lane]] = {}  # beside the backend itself, by the batch of their graphs
        self._pool: ThreadPoolExecutor | None = None

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
            return_freed_memory()  # or the next one's is taken beside it
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
        del models  # whose weights would be there once more while it is compiled
        make = self._opened_steps(model, graphs)
        numbers = [ov.Tensor(np.array(step, np.int32)) for step in range(len(graphs))]
        return {graph: make(more=(step,)) for graph, step in zip(graphs, numbers, strict=True)}

    def _opened_steps(self, model: ov.Model, graphs: Sequence[str]) -> Callable[..., Runnable]:
        """What makes a step of the one model that is these graphs: its part that knows the actions alone runs once for all."""
        inputs = [*self.specs[graphs[0]].inputs]
        parts = split_plan(model)
        if parts is None:
            (request,) = self._compiler.compile(graphs, model, lanes=self._lanes_of(graphs[0]))
            return partial(Runnable, request, inputs)
        planning, request = self._compiler.compile(graphs, *parts, lanes=self._lanes_of(graphs[0]))
        others = [name for name in inputs if name != ACTIONS]
        return partial(Runnable, request, others, plan=Plan(planning))

    def _open_one(self, graph: str) -> dict[str, Runnable]:
        model = self._compiler.read(graph)
        (request,) = self._compiler.compile((graph,), model, lanes=self._lanes_of(graph))
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
        return self._runnable(graph).run(inputs, self.specs[graph])

    def graphs_batch(self, batch: int) -> int:
        """The smallest, of which as many as it takes have a thread each."""
        return next(
            part
            for part in self.manifest.batches
            if part == batch or (part > 1 and not batch % part and batch // part <= self._num_threads)
        )

    def fetch(self, value: ov.Tensor) -> FloatArray:
        return to_array(value)

    def repeat(self, value: ov.Tensor, count: int, axis: int) -> ov.Tensor:
        return repeat(value, count, axis)

    def _lanes_of(self, graph: str) -> int:
        """How many requests of this graph run at the same time, at most."""
        users = (batch for batch in self.manifest.batches if graph in self._rollout_graphs(batch))
        return max((batch // self.graphs_batch(batch) for batch in users), default=1)

    def _new_rollout(self, batch: int) -> Rollout:
        part = self.graphs_batch(batch)
        if part == batch:
            return super()._new_rollout(batch)
        own = {graph: self._runnable(graph) for graph in self._rollout_graphs(batch)}
        lanes = self._lanes.setdefault(part, [])
        while len(lanes) < batch // part - 1:
            lanes.append(Lane(self, again(own)))
        self._pool = self._pool or ThreadPoolExecutor(self._num_threads, "openvino")
        runners: Sequence[Runner] = (self, *lanes[: batch // part - 1])
        return SideBySide([BatchRollout(runner, part) for runner in runners], self._pool)

    def _release(self) -> None:
        self._runnables.clear()
        self._lanes.clear()
        self._compiler.release()
        if self._pool is not None:
            self._pool.shutdown()
        self._pool = None
