"""Graphs in float16 and bfloat16: which products change, what stays float32, and how far the answers move."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper, parser

from astra_ros.backends import golden
from astra_ros.backends.bundle import describe_file, load_bundle, write_manifest
from astra_ros.backends.engines import Precision
from astra_ros.backends.golden import RolloutOutputs
from astra_ros.backends.ort import OrtBackend
from export.precision import DTYPES, PRODUCTS, load_graph

LOW: tuple[Precision, ...] = ("fp16", "bf16")
SENSITIVE = {
    *("Exp", "GridSample", "InstanceNormalization", "LayerNormalization", "LpNormalization", "Pow", "ReduceL2"),
    *("ReduceMean", "ReduceSum", "Reciprocal", "Sin", "Softmax", "Sqrt"),
}  # fmt: skip


Convert = Callable[[str, Precision], onnx.ModelProto]


@pytest.fixture(scope="module")
def convert(untrained_bundle: Path) -> Convert:
    """The bundle's graph of a name, converted once for all tests, which must leave it as it is."""
    bundle = load_bundle(untrained_bundle)
    return cache(lambda graph, precision: load_graph(bundle.graph(graph), precision))


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}


@pytest.mark.parametrize("precision", ["fp32", *LOW])
def test_graphs_stay_valid_and_their_inputs_and_outputs_float32(
    untrained_bundle: Path, convert: Convert, precision: Precision
) -> None:
    for graph, spec in load_bundle(untrained_bundle).manifest.graph_specs.items():
        model = convert(graph, precision)
        onnx.checker.check_model(model, full_check=True)
        for values, expected in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
            assert [value.name for value in values] == list(expected)
            assert {value.type.tensor_type.elem_type for value in values} == {TensorProto.FLOAT}


@pytest.mark.parametrize("precision", LOW)
def test_products_change_and_the_sensitive_rest_does_not(
    untrained_bundle: Path, convert: Convert, precision: Precision
) -> None:
    low = DTYPES[precision]
    for graph in load_bundle(untrained_bundle).manifest.graphs:
        model = convert(graph, precision)
        types, nodes = element_types(model), model.graph.node
        products = Counter(types[node.output[0]] for node in nodes if node.op_type in PRODUCTS)
        assert set(products) <= {low, TensorProto.FLOAT}
        assert products[low] >= 0.7 * products.total(), (graph, products)
        assert {types[n.output[0]] for n in nodes if n.op_type in SENSITIVE} == {TensorProto.FLOAT}, graph
        stored = {tensor.name for tensor in model.graph.initializer}
        assert not [node for node in nodes if node.op_type == "Cast" and node.input[0] in stored]


def last_products(model: onnx.ModelProto, value: str) -> Iterator[NodeProto]:
    """The first products that are met on the way from a value back to the inputs."""
    for node in model.graph.node:
        if value in node.output:
            if node.op_type in PRODUCTS:
                yield node
            else:
                for name in node.input:
                    yield from last_products(model, name)


@pytest.mark.parametrize("precision", LOW)
def test_the_last_product_before_latents_stays_float32_unless_that_is_not_wanted(
    untrained_bundle: Path, convert: Convert, precision: Precision
) -> None:
    all_low = load_graph(load_bundle(untrained_bundle).graph("encode"), precision, keep_exact=False)
    graphs = ("encode", "step_0", "step_1", "step_1_x8")
    cases = [(convert(graph, precision), TensorProto.FLOAT) for graph in graphs]
    for model, expected in [*cases, (all_low, DTYPES[precision])]:
        types = element_types(model)
        assert {types[node.output[0]] for node in last_products(model, "latents")} == {expected}


CHOICE = """<ir_version: 10, opset_import: ["" : 20]>
agraph (float[2, 4] x) => (float[2, 4] y, int64[2, 1] pick) {
    logits = MatMul(x, router)
    pick = ArgMax<axis = -1>(logits)
    mixed = MatMul(x, w)
    y = Add(x, mixed)
}"""


def save(folder: Path, text: str, **weights: npt.NDArray[Any]) -> Path:
    model = parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    onnx.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


@pytest.mark.parametrize("precision", LOW)
def test_what_chooses_stays_float32_and_the_residual_stream_too(tmp_path: Path, precision: Precision) -> None:
    path = save(tmp_path, CHOICE, router=np.eye(4, 3, dtype=np.float32), w=np.eye(4, dtype=np.float32))
    model = load_graph(path, precision)
    types, low = element_types(model), DTYPES[precision]
    products = {types[node.output[0]] for node in model.graph.node if node.op_type == "MatMul"}
    assert types["logits"] == TensorProto.FLOAT
    assert products == {TensorProto.FLOAT, low}
    (residual,) = [node for node in model.graph.node if node.op_type == "Add"]
    assert residual.output[0] == "y"


def test_a_weight_beyond_float16_is_refused_with_the_precision_that_holds_it(tmp_path: Path) -> None:
    weights = {"router": np.eye(4, 3, dtype=np.float32), "w": 1e5 * np.eye(4, dtype=np.float32)}
    path = save(tmp_path, CHOICE, **weights)
    with pytest.raises(
        ValueError, match=r"w: expected values that float16 can hold, found 100000; use --precision bf16"
    ):
        load_graph(path, "fp16")
    load_graph(path, "bf16")


def test_weights_stored_as_float16_become_weights_of_the_precision(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["" : 20]>
    agraph (float[2, 4] x) => (float[2, 4] y) {
        w = Cast<to = 1>(stored)
        y = MatMul(x, w)
    }"""
    values = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float16)
    path = save(tmp_path, text, stored=values)
    names: dict[Precision, str] = {"fp32": "w", "fp16": "w.float16", "bf16": "w.bfloat16"}
    for precision, name in names.items():
        (weight,) = load_graph(path, precision).graph.initializer
        assert (weight.name, weight.data_type) == (name, DTYPES[precision])
        rounded = values.astype(helper.tensor_dtype_to_np_dtype(weight.data_type))
        assert np.array_equal(numpy_helper.to_array(weight), rounded)


def test_attention_is_exported_as_a_softmax(untrained_bundle: Path) -> None:
    """So that its products can be in the low dtype."""
    for path in untrained_bundle.glob("*.onnx"):
        assert "Exp" not in {node.op_type for node in onnx.load(path, load_external_data=False).graph.node}


def rounded_step_by_step(model: onnx.ModelProto, low: int) -> onnx.ModelProto:
    """The arithmetic of a GPU where no kernel of the low dtype is at hand: float32, each result rounded to it."""
    types, graph, nodes = element_types(model), model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type == low:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
            )
    for node in graph.node:
        nodes.append(node)
        for index, name in enumerate(node.output):
            if types.get(name) == low:
                node.output[index] = f"{name}.exact"
                nodes.append(helper.make_node("Cast", [f"{name}.exact"], [f"{name}.rounded"], to=low))
                nodes.append(helper.make_node("Cast", [f"{name}.rounded"], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    return model


SOFTMAX = """<ir_version: 10, opset_import: ["" : 20]>
agraph (float[2, 64] x) => (float[2, 4] y) {
    e = Exp(x)
    p = MatMul(e, v)
    s = ReduceSum<keepdims = 1>(e, axes)
    y = Div(p, s)
}"""


def test_a_softmax_written_out_overflows_float16_unless_its_products_are_exact(tmp_path: Path) -> None:
    """64 exponentials of 8 are beyond float16; their quotients are not."""
    path = save(tmp_path, SOFTMAX, v=np.ones((64, 4), np.float32), axes=np.array([-1]))
    answers = []
    for keep_exact in (True, False):
        model = rounded_step_by_step(load_graph(path, "fp16", keep_exact=keep_exact), TensorProto.FLOAT16)
        session = onnxruntime.InferenceSession(model.SerializeToString())
        answers += session.run(None, {"x": np.full((2, 64), 8, np.float32)})
    assert np.allclose(answers[0], 1)
    assert np.isinf(answers[1]).all()


def bundle_of(
    source: Path, folder: Path, convert: Convert, precision: Precision, *, is_simulated: bool
) -> Path:
    """A copy of a bundle with converted graphs, which ONNX Runtime can run."""
    bundle = load_bundle(source)
    shutil.copytree(source, folder)
    for graph, file in bundle.manifest.graphs.items():
        model = onnx.ModelProto()
        model.CopyFrom(convert(graph, precision))
        onnx.save(rounded_step_by_step(model, DTYPES[precision]) if is_simulated else model, folder / file)
    files = {name: describe_file(folder / name) for name in bundle.manifest.files}
    far = replace(bundle.manifest.golden, latents_tolerance=1.0, pixels_tolerance=16)
    write_manifest(folder, replace(bundle.manifest, files=files, golden=far))
    return folder


def answers(folder: Path) -> RolloutOutputs:
    bundle = load_bundle(folder)
    inputs, _ = golden.load(bundle.file(bundle.manifest.golden.file), bundle.manifest)
    with OrtBackend(bundle, num_threads=1) as backend:
        return golden.run_rollout(backend, inputs)


def test_float32_gives_the_same_answers(untrained_bundle: Path, convert: Convert, tmp_path: Path) -> None:
    folder = bundle_of(untrained_bundle, tmp_path / "fp32", convert, "fp32", is_simulated=False)
    found = golden.deviation(answers(folder), answers(untrained_bundle))
    assert max(found.latents) <= 1e-5
    assert found.pixels <= 1


def relative(found: RolloutOutputs, expected: RolloutOutputs) -> float:
    """Root of the mean square of the difference of the latents, against that of the latents."""
    difference = np.concatenate([(a - b).ravel() for a, b in pairs(found, expected)])
    size = np.concatenate([b.ravel() for _, b in pairs(found, expected)])
    return float(np.sqrt(np.mean(difference**2) / np.mean(size**2)))


def pairs(
    found: RolloutOutputs, expected: RolloutOutputs
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    yield found.encoded, expected.encoded
    yield found.steps, expected.steps


# ONNX Runtime has no bfloat16 kernels on a CPU, and runs float16 partly in float32; rounding each result is the honest
# test of both. Half a unit in the last place is 2^-11 of float16 and 2^-8 of bfloat16.
@pytest.mark.parametrize(
    ("precision", "is_simulated", "limit"),
    [("fp16", False, 1e-3), ("fp16", True, 2e-3), ("bf16", True, 1.5e-2)],
)
def test_answers_move_little(
    untrained_bundle: Path,
    convert: Convert,
    tmp_path: Path,
    precision: Precision,
    is_simulated: bool,
    limit: float,
) -> None:
    folder = bundle_of(untrained_bundle, tmp_path / precision, convert, precision, is_simulated=is_simulated)
    expected = answers(untrained_bundle)
    found = answers(folder)
    moved = relative(found, expected)
    pixels = golden.deviation(found, expected).pixels
    print(f"\n{precision}: latents move by {moved:.1e} of their size, pictures by up to {pixels} of 255")
    assert 0 < moved <= limit
    assert pixels <= (1 if precision == "fp16" else 4)
