"""Every graph of a bundle alone."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.manifest import FlopsSpec
from astra_ros.benchmarking.interleaving import Subject
from astra_ros.denoiser.io import CACHE_AXES, Shape
from astra_ros.types import FloatArray

UNITS = 8


def stage_subject(name: str, backend: Backend, graph: str) -> Subject:
    """The graph on seeded numbers of its inputs' shapes, or what `remember` makes of some.

    Raises BackendError for a graph that the backend has not, such as one of a batch that no engine was built of.
    """
    if graph not in backend.manifest.graph_specs:
        raise BackendError(f"{graph}: expected one of the graphs that {backend.name} has here, found another")
    spec, inputs = backend.specs[graph], {**_seeded(backend, graph), **_remembered(backend, graph)}
    smallest = min(spec.outputs, key=lambda output: prod(spec.outputs[output]))

    def run() -> None:
        for _ in range(UNITS):
            # Other actions each time, as a robot's are: a runtime may keep what it made of the last.
            if "actions" in inputs:
                inputs["actions"] = -inputs["actions"]
            backend.fetch(backend.run(graph, inputs)[smallest])  # a device has finished when that is here

    return Subject(name, run, UNITS)


def stage_flops(graph: str, flops: FlopsSpec) -> int | None:
    """Of one run; None for the codec and for graphs that have no formula."""
    stage, _, batch = graph.partition("_x")
    kind = stage.split("_")[0]
    if kind not in ("remember", "append", "step"):
        return None
    operations: int = getattr(flops, kind)
    return operations * int(batch or 1)


def _remembered(backend: Backend, graph: str) -> dict[str, Any]:
    """The graph's keys and values of the history where a rollout has them: in the runtime's memory, uploaded by nobody."""
    shapes = backend.specs[graph].inputs
    if not CACHE_AXES.keys() <= shapes.keys():
        return {}
    cache = backend.run("remember", _seeded(backend, "remember"))
    return {name: backend.repeat(cache[name], shapes[name][axis], axis) for name, axis in CACHE_AXES.items()}


def _seeded(backend: Backend, graph: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: _values(name, shape, rng) for name, shape in backend.specs[graph].inputs.items()}


def _values(name: str, shape: Shape, rng: np.random.Generator) -> FloatArray:
    if name.endswith("mask"):
        return np.ones(shape, np.float32)
    if name.startswith("sigma"):
        return np.full(shape, 0.5, np.float32)
    return rng.standard_normal(shape, np.float32)
