"""What runs one of OpenVINO's compiled models, and a second set of such, to run at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from astra_ros.backends.base import Backend
from astra_ros.backends.openvino_plan import ACTIONS, Plan
from astra_ros.backends.quiet_openvino import ov
from astra_ros.denoiser.io import GraphSpec


@dataclass(frozen=True)
class Runnable:
    """How a graph is run. Its model reads these inputs, then `more`, then what the plan, if any, makes of the actions."""

    request: ov.InferRequest
    inputs: Sequence[str]
    more: Sequence[ov.Tensor] = ()
    plan: Plan | None = None

    def tensors(self, given: Mapping[str, Any]) -> list[ov.Tensor]:
        own = [to_tensor(given[name]) for name in self.inputs]
        planned = self.plan.tensors(to_tensor(given[ACTIONS])) if self.plan else ()
        return [*own, *self.more, *planned]

    def run(self, given: Mapping[str, Any], spec: GraphSpec) -> dict[str, ov.Tensor]:
        made = [new_tensor(shape) for shape in spec.outputs.values()]
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


def new_tensor(shape: Sequence[int]) -> ov.Tensor:
    """Of float32, in the runtime's memory, not filled."""
    return ov.Tensor(ov.Type.f32, shape)


def to_tensor(value: Any) -> ov.Tensor:
    """A tensor as it is, an array without a copy if it is a contiguous one of float32."""
    if isinstance(value, ov.Tensor):
        return value
    return ov.Tensor(np.require(value, np.float32, ["C", "W"]), shared_memory=True)
