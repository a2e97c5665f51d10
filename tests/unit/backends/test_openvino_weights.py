"""Weights in memory once: graphs that read the same numbers read the same memory, and answer as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as ops

from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.openvino_weights import Weights
from astra_ros.benchmarking.footprint import resident_mb
from astra_ros.types import FloatArray
from tests.unit.backends.processor import has_bf16

NAME = "weight.float16"


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


def product(weights: FloatArray) -> ov.Model:
    """x (4, n) times weights (n, n), which it holds in their own type."""
    given = ops.parameter([4, len(weights)], np.float32, name="x")
    stored = ops.constant(weights)
    stored.set_friendly_name(NAME)
    known = ops.convert(stored, "f32") if weights.dtype == np.float16 else stored
    multiplied = ops.matmul(given, known, transpose_a=False, transpose_b=False)
    return ov.Model([multiplied], [given], "product")


def matrix(side: int, kind: type, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((side, side), np.float32).astype(kind)


def constants(model: ov.Model) -> dict[str, ov.Node]:
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"]
    return {node.get_friendly_name(): node for node in found}


def address(model: ov.Model) -> int:
    return int(constants(model)[NAME].data.ctypes.data)


def answer(model: ov.Model, precision: str = "f32") -> FloatArray:
    options = {"INFERENCE_PRECISION_HINT": precision}
    x = np.random.default_rng(1).standard_normal(model.inputs[0].shape, np.float32)
    found: FloatArray = ov.Core().compile_model(model, "CPU", options)(x)[0].copy()
    return found


@pytest.mark.parametrize("stored", [np.float16, np.float32])
def test_the_same_numbers_are_the_same_memory(stored: type) -> None:
    weights = Weights(keep_float16=False)
    first, same, other = (product(matrix(64, stored, seed)) for seed in (0, 0, 1))
    expected = [answer(product(matrix(64, stored, seed))) for seed in (0, 1)]
    for model in (first, same, other):
        weights.share(model)
    assert address(first) == address(same) != address(other)
    assert constants(first)[NAME].get_element_type() == ov.Type.f32
    for model, numbers in ((first, expected[0]), (same, expected[0]), (other, expected[1])):
        np.testing.assert_array_equal(answer(model), numbers)


def test_numbers_alike_in_another_type_or_shape_are_others() -> None:
    weights = Weights(keep_float16=True)
    models = [product(matrix(64, np.float16)), product(matrix(64, np.float32))]
    zeros = [product(np.zeros((side, side), np.float16)) for side in (64, 128)]
    for model in (*models, *zeros):
        weights.share(model)
    assert len({address(model) for model in (*models, *zeros)}) == 4


def test_small_constants_stay_where_they_are() -> None:
    model = product(matrix(8, np.float16))
    before = address(model)
    Weights(keep_float16=False).share(model)
    assert address(model) == before


def test_what_is_rounded_to_integers_is_not_kept() -> None:
    given, stored = ops.parameter([4, 64], np.float32), ops.constant(matrix(64, np.float32))
    low, high = ops.constant(np.float32(-3)), ops.constant(np.float32(3))
    rounded = ops.fake_quantize(stored, low, high, low, high, 255)
    model = ov.Model([ops.matmul(given, rounded, transpose_a=False, transpose_b=False)], [given], "rounded")
    weights = Weights(keep_float16=False)
    weights.share(model)
    assert not weights._known


def test_graphs_of_a_bundle_share_what_they_have_in_common(bundle: Bundle) -> None:
    def held(*graphs: str) -> int:
        weights = Weights(keep_float16=False)
        for graph in graphs:
            weights.share(ov.Core().read_model(bundle.graph(graph)))
        return sum(tensor.byte_size for tensor in weights._known.values())

    assert 0 < held("append") == held("append", "append_x4", "append_x8")
    assert held("remember", "append", "step_0", "step_1") < 0.7 * sum(
        map(held, ("remember", "append", "step_0", "step_1"))
    )


@has_bf16
def test_products_in_bfloat16_read_float16_without_a_copy_in_float32() -> None:
    """Which a compiled model would keep, of 64 MB here."""

    def held_mb(weights: Weights | None) -> tuple[FloatArray, float]:
        model = product(matrix(4096, np.float16))
        if weights:
            weights.share(model)
        before = resident_mb("VmRSS")
        compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
        del model
        x = np.random.default_rng(1).standard_normal((4, 4096), np.float32)
        found: FloatArray = compiled(x)[0].copy()
        return found, resident_mb("VmRSS") - before

    (expected, plain_mb), (found, shared_mb) = held_mb(None), held_mb(Weights(keep_float16=True))
    np.testing.assert_allclose(found, expected, atol=0.01 * np.abs(expected).max())
    assert shared_mb < plain_mb - 20
