"""All denoising steps as one model, so that their weights are in memory, and in the processor's cache, once.

The steps of a bundle are one network at several noise levels: some vectors of its normalisations and gates differ. The one
model reads these from tables, by the number of the step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from astra_ros.backends.quiet_openvino import ops, ov

NOISY = "noisy_latents"
STEP = "step"  # last input of the one model: number of the step, an int32 without dimensions


def one_model(steps: Sequence[ov.Model]) -> ov.Model:
    """One model of all denoising steps, which must not be used afterwards. steps: in order, the last one ends at noise 0.

    Raises ValueError when they differ in more than the values of constants.
    """
    _keep_nothing_noisy(steps[-1])
    step = ops.parameter([], np.int32, name=STEP)
    step.output(0).set_names({STEP})
    for place, values in list(_differing_constants(steps)):
        row = ops.gather(ops.constant(values), step, ops.constant(0))
        place.replace_source_output(row.output(0))
    return ov.Model(steps[0].get_results(), [*steps[0].get_parameters(), step], "steps")


def _keep_nothing_noisy(last: ov.Model) -> None:
    """It returns clean latents; as 0 · noisy + 1 · clean they have the form of the other steps' answers."""
    answer = last.get_results()[0].input(0)
    clean, noisy = answer.get_source_output(), next((x for x in last.inputs if NOISY in x.names), None)
    if noisy is None:
        raise ValueError(f"denoising steps: expected the input {NOISY}, found {last.inputs}")
    kept, taken = (ops.multiply(x, np.array(weight, np.float32)) for x, weight in ((noisy, 0), (clean, 1)))
    answer.replace_source_output(ops.add(kept, taken).output(0))


def _differing_constants(steps: Sequence[ov.Model]) -> Iterator[tuple[ov.Input, np.ndarray]]:
    """Where the first reads a constant that the others have otherwise, and everyone's value, (steps, ...)."""
    known: dict[str, tuple[str, ...]] = {}
    waiting = [tuple(model.get_results()[0] for model in steps)]
    while waiting:
        nodes = waiting.pop()
        names = tuple(node.get_friendly_name() for node in nodes)
        if known.setdefault(names[0], names) is not names:
            _require_same("used again", known[names[0]], names)
            continue
        for what, values in _form(nodes).items():
            _require_same(f"{what} of {names[0]}", *values)
        for places in zip(*(node.inputs() for node in nodes), strict=True):
            sources = tuple(place.get_source_output().get_node() for place in places)
            if any(source.get_type_name() != "Constant" for source in sources):
                waiting.append(sources)
                continue
            values = [source.get_data() for source in sources]
            if any(not np.array_equal(values[0], other) for other in values[1:]):
                yield places[0], np.stack(values)


def _form(nodes: Sequence[ov.Node]) -> dict[str, list[Any]]:
    """What all steps must have alike: the operator, its attributes, and which outputs it reads."""
    return {
        "type": [node.get_type_name() for node in nodes],
        "attributes": [node.get_attributes() for node in nodes],
        "inputs": [[place.get_source_output().get_index() for place in node.inputs()] for node in nodes],
        "name": [node.get_friendly_name() if node.get_type_name() == "Parameter" else "" for node in nodes],
    }


def _require_same(what: str, first: Any, *others: Any) -> None:
    if different := [other for other in others if other != first]:
        raise ValueError(f"denoising steps: expected one form, found {what} {first} and {different[0]}")
