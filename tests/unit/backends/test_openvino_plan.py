"""What the denoising steps compute of the actions alone: the same numbers, once per chunk, and never those of other actions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.golden import blank_inputs
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.backends.openvino_plan import ACTIONS, split_plan
from astra_ros.backends.ort import OrtBackend
from astra_ros.backends.rollout import Rollout
from astra_ros.history.memory import HistorySlots
from astra_ros.types import FloatArray


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


def answers(model: ov.Model, given: list[FloatArray]) -> list[FloatArray]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(value) for value in compiled(given).values()]


@pytest.mark.parametrize("graph", ["step_0", "step_1_x8"])
def test_the_parts_answer_as_the_whole(bundle: Bundle, graph: str) -> None:
    rng = np.random.default_rng(0)
    shapes = bundle.manifest.graph_specs[graph].inputs
    given = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    path = bundle.graph(graph)
    parts = split_plan(ov.Core().read_model(path))
    assert parts is not None
    plan, rest = parts
    others = [values for name, values in given.items() if name != ACTIONS]
    found = answers(rest, [*others, *answers(plan, [given[ACTIONS]])])
    np.testing.assert_allclose(found, answers(ov.Core().read_model(path), [*given.values()]), atol=1e-5)


def test_the_steps_are_left_without_what_the_plan_computes(bundle: Bundle) -> None:
    def products(model: ov.Model) -> int:
        return sum(node.get_type_name() in ("MatMul", "Convolution") for node in model.get_ops())

    whole = products(ov.Core().read_model(bundle.graph("step_0")))
    parts = split_plan(ov.Core().read_model(bundle.graph("step_0")))
    assert parts is not None
    plan, rest = map(products, parts)
    assert plan + rest == whole
    assert plan > 10


def toy(name: str) -> ov.Model:
    """1 + 2 x + noise."""
    x, noise = (ops.parameter([2], np.float32, name=one) for one in (name, "noise"))
    x.output(0).set_names({name})
    one, two = np.array(1, np.float32), np.array(2, np.float32)
    return ov.Model([ops.add(ops.add(ops.multiply(x, two), one), noise)], [x, noise])


def test_constants_alone_belong_to_the_rest_and_actions_to_the_plan() -> None:
    parts = split_plan(toy(ACTIONS))
    assert parts is not None
    x, noise = np.array([1, 2], np.float32), np.array([10, 20], np.float32)
    (planned,) = answers(parts[0], [x])
    np.testing.assert_array_equal(planned, [3, 5])
    np.testing.assert_array_equal(answers(parts[1], [noise, planned]), [[13, 25]])


def test_a_model_that_reads_no_actions_is_one_whole() -> None:
    model = toy("speed")
    assert split_plan(model) is None
    assert len(model.inputs) == 2
    np.testing.assert_array_equal(answers(model, [np.ones(2, np.float32)] * 2), [[4, 4]])


class Counted:
    """A request that counts its runs."""

    def __init__(self, request: ov.InferRequest) -> None:
        self.request, self.runs = request, 0

    def infer(self, **options: Any) -> None:
        self.runs += 1
        self.request.infer(**options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.request, name)


def begun(backend: OpenVinoBackend | OrtBackend) -> Rollout:
    inputs, shape = blank_inputs(backend.manifest), backend.manifest.latents
    latents = np.zeros((len(inputs.mask), shape.channels, shape.height, shape.width), np.float32)
    rollout = backend.rollout()
    rollout.begin(backend.remember(HistorySlots(latents, inputs.actions, inputs.mask)))
    return rollout


def test_the_plan_runs_once_for_a_chunk_and_again_for_other_actions(bundle: Bundle) -> None:
    noise = np.random.default_rng(0).standard_normal(
        (1, *blank_inputs(bundle.manifest).noise.shape[1:]), np.float32
    )
    plan = blank_inputs(bundle.manifest).plan[:1]
    with OpenVinoBackend(bundle, 1) as backend, OrtBackend(bundle) as judge:
        rollout, right = begun(backend), begun(judge)
        step = backend._runnables["step_0"]
        assert step.plan is not None
        assert step.plan is backend._runnables["step_1"].plan
        counted = Counted(step.plan._request)
        step.plan._request = counted
        found = {}
        for change, runs in ((0.5, 1), (0.5, 1), (-0.5, 2), (0.5, 3)):
            found[change] = rollout.sample(noise, plan + change).copy()
            assert counted.runs == runs
            np.testing.assert_allclose(found[change], right.sample(noise, plan + change), atol=1e-4)
        assert np.abs(found[0.5] - found[-0.5]).max() > 0.01
        # A step of another plan than the one before it.
        np.testing.assert_allclose(
            rollout.denoise(1, noise, plan - 0.5), right.denoise(1, noise, plan - 0.5), atol=1e-4
        )
        assert counted.runs == 4


def test_a_plan_that_failed_is_not_taken_for_answered(bundle: Bundle) -> None:
    with OpenVinoBackend(bundle, 1) as backend:
        plan = backend._runnables["step_0"].plan
        assert plan is not None
        given = ov.Tensor(np.ones(backend.specs["step_0"].inputs[ACTIONS], np.float32))
        expected = [tensor.data.copy() for tensor in plan.tensors(given)]
        plan.tensors(ov.Tensor(np.zeros_like(given.data)))
        with pytest.raises(RuntimeError):
            plan.tensors(ov.Tensor(np.ones((1, 2), np.float32)))
        for found, right in zip(plan.tensors(given), expected, strict=True):
            np.testing.assert_array_equal(found.data, right)
