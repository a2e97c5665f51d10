"""What runs one of OpenVINO's compiled models, and a second set of such, to run at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from astra_ros.backends.base import Backend
from astra_ros.backends.openvino_plan import ACTIONS, Plan
from astra_ros.backends.quiet_openvino import ov
from astra_ros.denoiser.io import GraphSpec
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class Runnable:
    """How a graph is run. Its model reads these inputs, then `more`, then what the plan, if any, makes of the actions."""

    request: ov.InferRequest
    inputs: Sequence[str]
    more: Sequence[ov.Tensor] = ()
    plan: Plan | None = None

    @cached_property
    def _types(self) -> tuple[list[ov.Type], list[ov.Type]]:
        """Of the inputs and of the outputs."""
        ports = self.request.model_inputs, self.request.model_outputs
        inputs, outputs = ([port.element_type for port in side] for side in ports)
        return inputs, outputs

    def tensors(self, given: Mapping[str, Any]) -> list[ov.Tensor]:
        own = [to_tensor(given[name], kind) for name, kind in zip(self.inputs, self._types[0], strict=False)]
        planned = self.plan.tensors(to_tensor(given[ACTIONS])) if self.plan else ()
        return [*own, *self.more, *planned]

    def run(self, given: Mapping[str, Any], spec: GraphSpec) -> dict[str, ov.Tensor]:
        # A graph that is watched (export/quantize.py) has more outputs than these.
        made = [
            ov.Tensor(kind, shape) for kind, shape in zip(self._types[1], spec.outputs.values(), strict=False)
        ]
        for index, tensor in enumerate(self.tensors(given)):
            self.request.set_input_tensor(index, tensor)
        for index, tensor in enumerate(made):
            self.request.set_output_tensor(index, tensor)
        self.request.infer(share_outputs=True)  # as views, which nobody takes: otherwise they would be copied
        return dict(zip(spec.outputs, made, strict=True))


class Lane:
    """Runs some of a backend's graphs, by requests of its own, while the backend runs them too."""

    def __init__(self, backend: Backend, runnables: Mapping[str, Runnable]) -> None:
        self._backend, self._runnables = backend, runnables
        self.manifest, self.fetch, self.repeat = backend.manifest, backend.fetch, backend.repeat

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, ov.Tensor]:
        return self._runnables[graph].run(inputs, self._backend.specs[graph])


def again(runnables: Mapping[str, Runnable]) -> dict[str, Runnable]:
    """The same once more; those that share a request or a plan share one again."""
    requests = {id(one.request): one.request for one in runnables.values()}
    plans = {id(one.plan): one.plan for one in runnables.values() if one.plan}
    new_requests = {key: one.get_compiled_model().create_infer_request() for key, one in requests.items()}
    new_plans = {key: one.again() for key, one in plans.items()}
    return {
        graph: replace(one, request=new_requests[id(one.request)], plan=new_plans.get(id(one.plan)))
        for graph, one in runnables.items()
    }


def to_tensor(value: Any, kind: ov.Type = ov.Type.f32) -> ov.Tensor:
    """A tensor as it is, an array without a copy if it is a contiguous one of float32 and that is the type wanted."""
    if isinstance(value, ov.Tensor):
        return value
    array = np.require(value, np.float32, ["C", "W"])
    return _rounded(array) if kind == ov.Type.bf16 else ov.Tensor(array, shared_memory=True)


def to_array(value: ov.Tensor) -> FloatArray:
    """Its own memory, or in float32 what is bfloat16, which numpy does not know."""
    if value.element_type != ov.Type.bf16:
        array: FloatArray = value.data
        return array
    return (value.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def repeat(value: ov.Tensor, count: int, axis: int) -> ov.Tensor:
    """A tensor with its only element along the axis so many times."""
    shape = list(value.shape)
    shape[axis] = count
    repeated = ov.Tensor(value.element_type, shape)
    repeated.data[:] = value.data
    return repeated


def _rounded(array: FloatArray) -> ov.Tensor:
    """Finite numbers in bfloat16: the nearest, of two as near the even one."""
    bits = array.view(np.uint32)
    tensor = ov.Tensor(ov.Type.bf16, array.shape)
    tensor.data.view(np.uint16)[:] = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return tensor
