"""ONNX graphs as torch functions, beside ONNX Runtime on the same files."""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx

from astra_ros.backends.bundle import Bundle, load_bundle, shipped_bundle
from astra_ros.backends.cuda_graph import Recorder
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError
from astra_ros.backends.torch_graph import load_graph, load_graphs
from astra_ros.backends.torch_weights import SharedWeights
from astra_ros.denoiser.io import GraphSpec
from astra_ros.types import FloatArray
from export.weights import MIN_SHARED_BYTES
from tests.unit.backends.test_bundle import accept

TOLERANCE = 1e-4
CPU = torch.device("cpu")
Graphs = tuple[Bundle, dict[str, fx.GraphModule]]


@pytest.fixture(scope="module", params=["untrained", "shipped"])
def graphs(request: pytest.FixtureRequest, untrained_bundle: Path) -> Graphs:
    bundle = load_bundle(untrained_bundle if request.param == "untrained" else shipped_bundle())
    return bundle, load_graphs(bundle)


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    """To be damaged."""
    return load_bundle(bundle_copy)


def random_inputs(spec: GraphSpec, seed: int = 0) -> list[FloatArray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, np.float32) for shape in spec.inputs.values()]


def run_onnxruntime(path: Path, spec: GraphSpec, inputs: list[FloatArray]) -> list[FloatArray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options)
    answers: list[FloatArray] = session.run(list(spec.outputs), dict(zip(spec.inputs, inputs, strict=True)))
    return answers


@torch.inference_mode()
def run_torch(graph: Callable[..., Any], inputs: list[FloatArray]) -> list[FloatArray]:
    return [output.numpy() for output in graph(*map(torch.from_numpy, inputs))]


def largest_difference(found: list[FloatArray], expected: list[FloatArray]) -> float:
    assert [array.shape for array in found] == [array.shape for array in expected]
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))


def test_every_graph_answers_as_onnxruntime(graphs: Graphs, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, functions = graphs
    differences = {}
    for name, spec in bundle.manifest.graph_specs.items():
        inputs = random_inputs(spec)
        expected = run_onnxruntime(bundle.graph(name), spec, inputs)
        differences[name] = largest_difference(run_torch(functions[name], inputs), expected)
    with capsys.disabled():
        table = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
        print(f"\n{bundle.manifest.model_id}, torch - onnxruntime: {table}")
    assert max(differences.values()) <= TOLERANCE


def test_weights_are_in_memory_once(graphs: Graphs) -> None:
    bundle, functions = graphs
    large = {
        name: [t for t in graph.buffers() if t.nbytes >= MIN_SHARED_BYTES]
        for name, graph in functions.items()
    }
    matrices = {name: {t.data_ptr() for t in tensors if t.ndim == 2} for name, tensors in large.items()}
    assert matrices["step_0"]
    assert matrices["step_0"] == matrices["step_1"] == matrices["step_0_x8"]
    together = sum({t.data_ptr(): t.nbytes for tensors in large.values() for t in tensors}.values())
    per_byte = 2 if bundle.manifest.weights_dtype == "float16" else 1
    assert together <= per_byte * bundle.file("weights.bin").stat().st_size
    assert not any(
        tensor.dtype == torch.float16 for graph in functions.values() for tensor in graph.buffers()
    )


def test_what_depends_on_constants_only_is_not_computed_again(graphs: Graphs) -> None:
    _, functions = graphs
    for graph in functions.values():
        for node in graph.graph.nodes:
            inputs = [one.op for one in node.all_input_nodes]
            assert node.op != "call_function" or set(inputs) - {"get_attr"}, node


def test_a_run_neither_waits_for_its_device_nor_uses_host_memory(graphs: Graphs) -> None:
    """On torch's device without memory, whose values cannot be read and whose tensors do not mix with the host's."""
    bundle, functions = graphs
    for name, spec in bundle.manifest.graph_specs.items():
        elsewhere = copy.deepcopy(functions[name]).to("meta")
        outputs = elsewhere(*(torch.empty(shape, device="meta") for shape in spec.inputs.values()))
        assert [tuple(output.shape) for output in outputs] == list(spec.outputs.values())
        assert all(output.is_meta for output in outputs)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++, found none")
def test_torch_compile_takes_a_graph_whole(untrained_bundle: Path) -> None:
    bundle = load_bundle(untrained_bundle)
    spec = bundle.manifest.graph_specs["step_0"]
    graph = load_graph(bundle, "step_0", spec, SharedWeights(bundle, CPU))
    inputs = random_inputs(spec)
    compiled = run_torch(torch.compile(graph, fullgraph=True), inputs)
    assert largest_difference(compiled, run_torch(graph, inputs)) <= 1e-5


def test_recorded_functions_answer_as_plain_ones_from_run_to_run(graphs: Graphs) -> None:
    """What runs around a CUDA graph, without one: fixed input buffers, shared by all graphs, and outputs that stay."""
    bundle, functions = graphs
    specs = bundle.manifest.graph_specs
    recorder = Recorder(CPU)
    recorded = {name: recorder.record(functions[name], spec) for name, spec in specs.items()}
    given = [(name, random_inputs(spec, seed)) for seed in (1, 2) for name, spec in specs.items()]
    found = [run_torch(recorded[name], inputs) for name, inputs in given]
    for (name, inputs), outputs in zip(given, found, strict=True):
        assert largest_difference(outputs, run_torch(functions[name], inputs)) == 0


def test_a_recorded_function_copies_a_value_once(graphs: Graphs) -> None:
    bundle, functions = graphs
    spec = bundle.manifest.graph_specs["step_0"]
    recorded = Recorder(CPU).record(functions["step_0"], spec)
    values = [torch.from_numpy(array) for array in random_inputs(spec)]
    first = recorded(*values)
    versions = [buffer.tensor._version for buffer in recorded._inputs]
    others = [values[0] + 1, *values[1:]]
    assert not torch.equal(recorded(*others)[0], first[0])
    copied = [
        buffer.tensor._version - before for buffer, before in zip(recorded._inputs, versions, strict=True)
    ]
    assert copied == [1] + [0] * (len(values) - 1)
    assert torch.equal(recorded(*values)[0], first[0])


# Operators one by one: inputs' shapes, constants that follow them, attributes.
Case = tuple[str, list[tuple[int, ...]], list[Any], dict[str, Any]]
CASES: list[Case] = [
    ("ArgMax", [(2, 5)], [], {"axis": -1, "keepdims": 0}),
    ("AveragePool", [(1, 2, 5, 7)], [],
     {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [0, 0, 0, 0], "count_include_pad": 1}),
    ("Gather", [(4, 5, 3)], [np.array([[3, 0], [1, 1]])], {"axis": -2}),
    ("Gather", [(4, 5, 3)], [np.array(2)], {"axis": 1}),
    ("GatherND", [(4, 5)], [np.array([[[3], [0]]])], {}),
    ("Clip", [(3, 4)], [None, np.float32(0.5)], {}),
    ("Clip", [(3, 4)], [np.float32(0.1)], {}),
    ("Expand", [(3, 1, 2)], [np.array([4, 1, 5, 1])], {}),
    ("Pad", [(1, 2, 3, 4)], [np.array([0, 0, 1, 2, 0, 0, 3, 0])], {"mode": "edge"}),
    ("Pow", [(3, 2)], [np.float32(2)], {}),
    ("ReduceL2", [(3, 4, 2)], [np.array([1])], {}),
    ("ReduceMean", [(3, 4, 2)], [np.array([0, -1])], {"keepdims": 0}),
    ("ReduceSum", [(3, 4, 2)], [np.array([1])], {}),
    ("Reshape", [(3, 4, 2)], [np.array([0, -1])], {}),
    ("Resize", [(1, 2, 3, 4)], [None, np.array([1, 1, 2, 3], np.float32)],
     {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}),
    ("Slice", [(5, 6)], [np.array([-4, 1]), np.array([1 << 62, -1]), np.array([0, 1]), np.array([1, 2])], {}),
    ("Slice", [(5, 6)], [np.array([1]), np.array([3]), np.array([-1])], {}),
    ("Softmax", [(3, 4)], [], {"axis": 0}),
    ("Split", [(3, 8)], [], {"axis": -1, "num_outputs": 2}),
    ("Split", [(6, 2)], [np.array([1, 3, 2])], {}),
    ("Squeeze", [(1, 3, 1)], [np.array([0, -1])], {}),
    ("Unsqueeze", [(3, 2)], [np.array([-1, 0])], {}),
    ("Transpose", [(2, 3, 4)], [], {"perm": [2, 0, 1]}),
    ("Conv", [(1, 4, 5, 6), (6, 2, 3, 3), (6,)], [],
     {"kernel_shape": [3, 3], "pads": [1, 0, 1, 0], "strides": [2, 1], "dilations": [1, 2], "group": 2}),
    ("DepthToSpace", [(1, 8, 2, 3)], [], {"blocksize": 2, "mode": "CRD"}),
    ("Einsum", [(2, 3, 4), (4, 5)], [], {"equation": "bij,jk->bk"}),
    ("Gelu", [(3, 4)], [], {}),
    ("GridSample", [(1, 2, 4, 5), (1, 3, 3, 2)], [], {"padding_mode": "border"}),
    ("InstanceNormalization", [(1, 3, 7), (3,), (3,)], [], {}),
    ("LayerNormalization", [(2, 3, 4), (3, 4)], [], {"axis": 1, "epsilon": 1e-3}),
    ("Tanh", [(3,)], [], {}),
    ("Relu", [(3,)], [], {}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_operators_answer_as_onnxruntime(bundle: Bundle, case: Case) -> None:
    operator, shapes, constants, attributes = case
    spec = write_graph(bundle, operator, shapes, constants, attributes)
    graph = load_graph(bundle, "encode", spec, SharedWeights(bundle, CPU))
    inputs = random_inputs(spec)
    expected = run_onnxruntime(bundle.graph("encode"), spec, inputs)
    assert largest_difference(run_torch(graph, inputs), expected) <= 1e-5


def write_graph(
    bundle: Bundle,
    operator: str,
    shapes: list[tuple[int, ...]],
    constants: list[Any],
    attributes: dict[str, Any],
) -> GraphSpec:
    """A graph of one operator and a Cast of its results to float32 in place of encode.onnx."""
    inputs = {f"input_{index}": shape for index, shape in enumerate(shapes)}
    tensors = [
        numpy_helper.from_array(np.asarray(value), f"constant_{index}")
        for index, value in enumerate(constants)
        if value is not None
    ]
    names = ["" if value is None else f"constant_{index}" for index, value in enumerate(constants)]
    parts = len(constants[0]) if operator == "Split" and constants else attributes.get("num_outputs", 1)
    results = [f"result_{part}" for part in range(parts)]
    nodes = [helper.make_node(operator, [*inputs, *names], results, "the_node", **attributes)]
    nodes += [helper.make_node("Cast", [one], [f"output_{one}"], to=TensorProto.FLOAT) for one in results]
    graph = helper.make_graph(
        nodes,
        "one operator",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(f"output_{one}", TensorProto.FLOAT, None) for one in results],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    sides = {one.name: one.type.tensor_type.shape.dim for one in model.graph.output}
    for output in model.graph.output:
        output.type.tensor_type.shape.SetInParent()  # stays empty where nothing can be inferred
    onnx.save(model, bundle.graph("encode"))
    return GraphSpec(inputs, {name: tuple(side.dim_value for side in dims) for name, dims in sides.items()})


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (("Erf", [(3,)], [], {}), r"encode: operator Erf 'the_node': expected one that torch_ops.py knows"),
        (("Transpose", [(3, 2)], [], {"perm": [0, 0]}), "encode: operator Transpose 'the_node': .*duplicate dims"),
        (("MatMul", [(3, 2), (3, 2)], [], {}), "encode: operator MatMul 'the_node': "),
        (("Reshape", [(3, 2)], [np.array([7, 1])], {}), "encode: operator Reshape 'the_node': shape '.7, 1.'"),
        (("Slice", [(3,)], [np.array([0]), np.array([3]), np.array([0]), np.array([-1])], {}),
         "encode: operator Slice 'the_node': .*step"),
        (("DepthToSpace", [(1, 8, 2, 3)], [], {"blocksize": 2}),
         "encode: operator DepthToSpace 'the_node': mode: expected CRD, found DCR"),
        (("AveragePool", [(1, 1, 4, 4)], [], {"kernel_shape": [2, 2], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
         r"encode: operator AveragePool 'the_node': pads: expected \[0, 0, 0, 0\], found \[1, 1, 1, 1\]"),
        (("Gelu", [(3,)], [], {"colour": 1}), "encode.onnx: torch .*Unrecognized attribute: colour"),
        (("Nonsense", [(3,)], [], {}), "encode.onnx: torch .*No Op registered for Nonsense"),
    ],
)  # fmt: skip
def test_what_torch_cannot_do_is_refused_by_name(bundle: Bundle, case: Case, message: str) -> None:
    spec = write_graph(bundle, *case)
    with pytest.raises(BundleError, match=message) as refusal:
        load_graph(bundle, "encode", spec, SharedWeights(bundle, CPU))
    assert str(refusal.value).endswith(EXPORT_AGAIN)
    assert "\n" not in str(refusal.value)


def test_a_shape_that_depends_on_the_inputs_is_refused(bundle: Bundle) -> None:
    write_graph(bundle, "Relu", [(2,)], [], {})
    model = onnx.load(bundle.graph("encode"))
    model.graph.node.insert(0, helper.make_node("Cast", ["input_0"], ["shape"], to=TensorProto.INT64))
    model.graph.node.insert(1, helper.make_node("Expand", ["input_0", "shape"], ["wide"]))
    model.graph.node[2].input[0] = "wide"
    onnx.save(model, bundle.graph("encode"))
    spec = GraphSpec({"input_0": (2,)}, {"output_result_0": (2,)})
    with pytest.raises(BundleError, match="operator Expand '': shapes and axes: expected constants, found"):
        load_graph(bundle, "encode", spec, SharedWeights(bundle, CPU))


def change_graph(folder: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(folder / "step_0.onnx", load_external_data=False)
    change(model)
    (folder / "step_0.onnx").write_bytes(model.SerializeToString())
    accept(folder, "step_0.onnx")


def external(model: onnx.ModelProto, key: str) -> Iterator[onnx.StringStringEntryProto]:
    return (entry for t in model.graph.initializer for entry in t.external_data if entry.key == key)


def point_beyond(model: onnx.ModelProto) -> None:
    for entry in external(model, "offset"):
        entry.value = str(1 << 40)


def point_before(model: onnx.ModelProto) -> None:
    for entry in external(model, "offset"):
        entry.value = "-4096"


def shorten(model: onnx.ModelProto) -> None:
    for entry in external(model, "length"):
        entry.value = "16"


def widen(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.external_data:
            tensor.dims[0] = 1 << 40


def ask_for_another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 19


def rename_an_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "noise"


def forget_a_node(model: onnx.ModelProto) -> None:
    del model.graph.node[5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (point_beyond, r"expected \d+ bytes at \d+ of weights.bin, found -\d+ there"),
        (point_before, r"step_0.onnx: torch .* offset must be non-negative, got -4096"),
        (shorten, r"expected \d+ bytes at \d+ of weights.bin, found \d+ there and 16 in the graph"),
        (widen, r"expected \d+ bytes at \d+ of weights.bin"),
        (ask_for_another_opset, "step_0 opset: expected 20, found 19|step_0.onnx: torch .* cannot run it"),
        (rename_an_input, "step_0.onnx: torch .* cannot run it|step_0 inputs: expected"),
        (forget_a_node, "step_0.onnx: torch .* cannot run it"),
    ],
)
def test_a_malformed_graph_is_refused(
    bundle_copy: Path, change: Callable[[onnx.ModelProto], object], message: str
) -> None:
    change_graph(bundle_copy, change)
    with pytest.raises(BundleError, match=message) as refusal:
        load_graphs(load_bundle(bundle_copy))
    assert "\n" not in str(refusal.value)


def test_truncated_weights_are_refused(bundle_copy: Path) -> None:
    os.truncate(bundle_copy / "weights.bin", 4096)
    accept(bundle_copy, "weights.bin")
    with pytest.raises(BundleError, match=r"expected \d+ bytes at \d+ of weights.bin, found -?\d+ there"):
        load_graphs(load_bundle(bundle_copy))


def test_damaged_graphs_are_refused_or_run(bundle_copy: Path) -> None:
    """Bytes changed at random: nothing but a BundleError, whatever they were."""
    original, chance = (bundle_copy / "encode.onnx").read_bytes(), random.Random(0)
    messages = []
    for _ in range(40):
        raw = bytearray(original)
        for _ in range(4):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        (bundle_copy / "encode.onnx").write_bytes(raw)
        accept(bundle_copy, "encode.onnx")
        try:
            bundle = load_bundle(bundle_copy)
            spec = bundle.manifest.graph_specs["encode"]
            graph = load_graph(bundle, "encode", spec, SharedWeights(bundle, CPU))
            assert run_torch(graph, random_inputs(spec))[0].shape == spec.outputs["latents"]
        except BundleError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)
