"""All denoising steps as one model: each still answers as it does alone, and only steps are taken for steps."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from astra_ros.backends.bundle import Bundle, describe_file, load_bundle, write_manifest
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.backends.openvino_int8 import Ranges
from astra_ros.backends.openvino_steps import one_model
from astra_ros.types import FloatArray

STEPS = ("step_0", "step_1")


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


def models(bundle: Bundle, graphs: Sequence[str]) -> list[ov.Model]:
    return [ov.Core().read_model(bundle.graph(graph)) for graph in graphs]


def answers(model: ov.Model, given: dict[str, FloatArray]) -> FloatArray:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found: FloatArray = compiled(given)[0].copy()
    return found


@pytest.mark.parametrize("suffix", ["", "_x8"])
def test_each_step_answers_as_it_does_alone(bundle: Bundle, suffix: str) -> None:
    graphs = [step + suffix for step in STEPS]
    rng = np.random.default_rng(0)
    shapes = bundle.manifest.graph_specs[graphs[0]].inputs
    given = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    alone = [answers(model, given) for model in models(bundle, graphs)]
    together = one_model(models(bundle, graphs))
    found = [answers(together, {**given, "step": np.array(k, np.int32)}) for k in range(len(graphs))]
    assert np.abs(alone[0] - alone[1]).max() > 0.1
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_weights_are_there_once(bundle: Bundle) -> None:
    def num_values(model: ov.Model) -> int:
        constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
        return int(sum(np.prod(node.get_output_shape(0)) for node in constants))

    alone = sum(map(num_values, models(bundle, STEPS)))
    assert num_values(one_model(models(bundle, STEPS))) < 0.6 * alone


def toy_step(
    scale: float, *, is_last: bool = False, of: str = "noisy_latents", shifted: bool = False
) -> ov.Model:
    given = ops.parameter([2], np.float32, name=of)
    given.output(0).set_names({of})
    clean = ops.multiply(given, np.array([scale, 1], np.float32))
    if shifted:
        clean = ops.subtract(clean, np.array(1, np.float32))
    half = np.array(0.5, np.float32)
    answer = clean if is_last else ops.add(ops.multiply(given, half), ops.multiply(clean, half))
    return ov.Model([answer], [given])


def test_what_differs_is_read_by_the_number_of_the_step() -> None:
    model = one_model([toy_step(3), toy_step(5), toy_step(7, is_last=True)])
    given = {"noisy_latents": np.array([1, 1], np.float32)}
    found = [answers(model, {**given, "step": np.array(k, np.int32)})[0] for k in range(3)]
    assert found == [0.5 + 1.5, 0.5 + 2.5, 7]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (toy_step(5), "one form, found type of .* (Add|Multiply)"),  # keeps noise: not the last
        (toy_step(5, is_last=True, shifted=True), "one form, found .* Multiply and Subtract"),
        (toy_step(5, is_last=True, of="latents"), "the input noisy_latents, found"),
    ],
)
def test_other_forms_are_refused(other: ov.Model, expected: str) -> None:
    with pytest.raises(ValueError, match=f"denoising steps: expected {expected}"):
        one_model([toy_step(3), other])


def test_a_backend_shares_a_model_among_the_steps_of_a_batch(bundle: Bundle) -> None:
    with OpenVinoBackend(bundle, 1) as backend:
        list(backend.prepare(8))
        requests = {name: id(runnable.request) for name, runnable in backend._runnables.items()}
    assert requests["step_0"] == requests["step_1"]
    assert requests["step_0_x8"] == requests["step_1_x8"]
    assert len(set(requests.values())) == len(requests) - 2


def test_steps_of_another_form_run_each_for_itself(
    bundle_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Any graphs of the right inputs and outputs are a bundle."""
    manifest = load_bundle(bundle_copy).manifest
    shutil.copy(bundle_copy / "step_0.onnx", bundle_copy / "step_1.onnx")
    files = {name: describe_file(bundle_copy / name) for name in manifest.files}
    written = write_manifest(bundle_copy, replace(manifest, files=files))
    backend = OpenVinoBackend(written, 1)
    with caplog.at_level(logging.INFO), backend.only("step_0"):
        pass
    assert "step_0, step_1: each compiled for itself: denoising steps: expected one form" in caplog.text


def test_ranges_of_one_model_hold_those_of_all_its_graphs() -> None:
    ranges = Ranges({"a": {"w": (-1, 2), "only": (0, 1)}, "b": {"w": (-3, 1)}})
    assert ranges.of_all(("a", "b")) == {"w": (-3, 2)}
    assert ranges.of_all(("a",)) == ranges.graphs["a"]
    assert ranges.of_all(("a", "c")) == {}
