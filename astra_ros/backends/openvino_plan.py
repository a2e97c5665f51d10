"""What a chunk's denoising steps compute of its actions alone, computed once for all of them (docs/decisions/0012)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from astra_ros.backends.quiet_openvino import ops, ov
from astra_ros.types import FloatArray

ACTIONS = "actions"


def split_plan(model: ov.Model) -> tuple[ov.Model, ov.Model] | None:
    """Split a model in two: what depends on the actions alone (the plan), and the rest (the steps).

    The last inputs of the steps are the outputs of the plan. The given model must not be used afterwards. Returns None, and
    leaves the model as it was, when nothing depends on the actions alone.
    """
    of_plan = _of_actions_alone(model)
    planned = [output for node in of_plan for output in node.outputs() if _readers(output, of_plan)]
    if not planned:
        return None
    results, given = [], []
    for output in planned:
        readers = _readers(output, of_plan)
        last = _channels(output, last=True)
        results.append(ops.result(last))
        given.append(ops.parameter(last.get_shape(), np.float32))
        place = _channels(given[-1].output(0), last=False)
        for reader in readers:
            reader.replace_source_output(place)
    parameters = model.get_parameters()
    actions = [one for one in parameters if _is_actions(one)]
    others = [one for one in parameters if not _is_actions(one)]
    return ov.Model(results, actions, "plan"), ov.Model(model.get_results(), [*others, *given], "steps")


class Plan:
    """Answers again what it answered last, for as long as the actions stay the same."""

    def __init__(self, request: ov.InferRequest) -> None:
        self._request = request
        self._actions: FloatArray | None = None

    def again(self) -> Plan:
        """Another one of the same model, that may run at the same time."""
        return Plan(self._request.get_compiled_model().create_infer_request())

    def tensors(self, actions: ov.Tensor) -> Sequence[ov.Tensor]:
        """What the steps read of these actions. The next call with other actions overwrites them."""
        if self._actions is None or not np.array_equal(self._actions, actions.data):
            self._actions = None  # until the answer is there
            self._request.set_input_tensor(actions)
            self._request.infer(share_outputs=True)
            self._actions = actions.data.copy()
        found: Sequence[ov.Tensor] = self._request.output_tensors
        return found


def _of_actions_alone(model: ov.Model) -> list[ov.Node]:
    """In the order in which they run; what depends on nothing at all is not among them."""
    found: dict[str, ov.Node] = {}
    constant: set[str] = set()
    for node in model.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        sources = {place.get_source_output().get_node().get_friendly_name() for place in node.inputs()}
        if kind == "Parameter":
            if _is_actions(node):
                found[name] = node
        elif sources <= constant:
            constant.add(name)
        elif kind != "Result" and sources <= constant | found.keys():
            found[name] = node
    return list(found.values())


def _channels(output: ov.Output, *, last: bool) -> ov.Output:
    """Of a picture, (n, c, h, w), to the end or back: as convolutions have them in memory. Everything else stays as it is."""
    if len(output.get_shape()) != 4:
        return output
    order = [0, 2, 3, 1] if last else [0, 3, 1, 2]
    return ops.transpose(output, ops.constant(np.array(order))).output(0)


def _is_actions(parameter: ov.Node) -> bool:
    return ACTIONS in parameter.output(0).get_names()


def _readers(output: ov.Output, nodes: Sequence[ov.Node]) -> list[ov.Input]:
    """Those that are none of the nodes."""
    inside = {node.get_friendly_name() for node in nodes}
    return [
        place for place in output.get_target_inputs() if place.get_node().get_friendly_name() not in inside
    ]
