"""The operations that an export writes into the manifest, against its graphs."""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx
import pytest

from astra_ros.backends.bundle import load_bundle
from export.work import graph_flops
from tests.bundle_fixture import untrained_model


def counted(path: Path) -> int:
    """Operations of the products and convolutions of a graph, two per multiplication."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False), data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
    total = 0
    for node in graph.node:
        if node.op_type == "MatMul":
            total += 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
        elif node.op_type == "Gemm":
            transposed = next((a.i for a in node.attribute if a.name == "transA"), 0)
            total += 2 * prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else -1]
        elif node.op_type == "Conv":
            total += 2 * prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        else:
            assert node.op_type not in ("Einsum", "ConvTranspose")
    return total


def test_the_manifest_tells_what_the_exported_graphs_do(untrained_bundle: Path) -> None:
    """Of a network that is no preset: nothing but the checkpoint says how large it is."""
    bundle = load_bundle(untrained_bundle)
    found = bundle.manifest.flops
    assert found is not None
    for graph, expected in (("remember", found.remember), ("append", found.append), ("step_1", found.step)):
        assert counted(bundle.graph(graph)) == pytest.approx(expected, rel=0.005), graph


def test_nobody_knows_the_work_of_the_ablation() -> None:
    assert graph_flops(untrained_model(adapter="cross_attention").config.denoiser) is None
