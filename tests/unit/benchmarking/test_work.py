"""The formulas of exported graphs against the graphs; a network's sizes from a bundle."""

from __future__ import annotations

import dataclasses
from math import prod
from pathlib import Path
from typing import Any

import onnx
import pytest

from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.manifest import Manifest
from astra_ros.benchmarking.work import bundle_config, graph_flops
from astra_ros.denoiser.checkpoint import new_checkpoint
from astra_ros.denoiser.presets import PRESETS
from export.contract import ExportConfig, draft_manifest
from export.served import as_served
from tests.bundle_fixture import action_specs, untrained_model


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


def test_formulas_are_what_the_exported_graphs_do(untrained_bundle: Path) -> None:
    config = as_served(untrained_model(), "panda").config.denoiser
    found = graph_flops(config)
    bundle = load_bundle(untrained_bundle)
    for graph, expected in (("remember", found.remember), ("append", found.append), ("step_1", found.step)):
        assert counted(bundle.graph(graph)) == pytest.approx(expected, rel=0.005), graph


def test_the_adapter_of_the_ablation_is_refused() -> None:
    config = untrained_model(adapter="cross_attention").config.denoiser
    with pytest.raises(ValueError, match="adapter: expected act"):
        graph_flops(config)


def drafted(training: Any, **changes: Any) -> tuple[Manifest, Any]:
    """A manifest of the tiny preset, and the config it was made of."""
    checkpoint = new_checkpoint(PRESETS["tiny"](), action_specs())
    checkpoint.provenance = training
    served = as_served(checkpoint, "panda")
    manifest = draft_manifest(checkpoint, served, ExportConfig("panda"))
    return dataclasses.replace(manifest, **changes), served.config.denoiser


@pytest.mark.parametrize("training", [{"train_config": {"denoiser": {}}}, {"train_config": "lost"}, "none"])
def test_a_bundle_of_a_preset_tells_the_sizes_of_its_network(training: Any) -> None:
    manifest, config = drafted(training)
    assert bundle_config(manifest) == config


def test_what_a_training_run_changed_is_in_the_provenance() -> None:
    manifest, config = drafted({"train_config": {"denoiser": {"mlp_hidden": 512, "actions": {"octaves": 2}}}})
    found = bundle_config(manifest)
    assert (found.mlp_hidden, found.actions.octaves) == (512, 2)
    assert found.refiner == config.refiner


@pytest.mark.parametrize(
    ("training", "changes", "problem"),
    [
        ({}, {"preset": "mine"}, "preset: expected one of tiny, .*, found 'mine'"),
        ({"train_config": {"denoiser": {"depth": 3}}}, {}, "sizes of the network: expected .*'depth': 6"),
        ({"train_config": {"denoiser": {"colour": 3}}}, {}, "colour"),
    ],
)
def test_a_bundle_that_does_not_tell_is_refused(training: Any, changes: dict[str, Any], problem: str) -> None:
    manifest, _ = drafted(training, **changes)
    with pytest.raises(ValueError, match=problem):
        bundle_config(manifest)
