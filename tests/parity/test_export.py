"""The exported network against the trained one, and what an exported bundle looks like."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from astra_ros.backends import golden
from astra_ros.backends.bundle import Manifest, load_bundle
from astra_ros.backends.ort import OrtBackend
from astra_ros.denoiser.checkpoint import load_checkpoint, save_checkpoint
from astra_ros.denoiser.io import graph_specs
from astra_ros.flow.schedule import euler_weights
from export import check_parity, contract, to_onnx
from export.contract import ExportConfig
from export.to_onnx import export_bundle
from tests.bundle_fixture import untrained_model

TOLERANCE = 1e-4


def test_graphs_have_the_names_and_shapes_of_the_io_table(untrained_bundle: Path) -> None:
    manifest = load_bundle(untrained_bundle).manifest
    for name, spec in graph_specs(manifest.dims, manifest.num_steps).items():
        graph = onnx.load(untrained_bundle / manifest.graphs[name], load_external_data=False).graph
        for tensors, expected in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
            shapes = {t.name: tuple(d.dim_value for d in t.type.tensor_type.shape.dim) for t in tensors}
            assert shapes == expected


def test_steps_match_the_network_at_their_noise_level(
    untrained_bundle: Path, untrained_checkpoint: Path
) -> None:
    """ONNX with sigma folded away, beside the module that is trained, which takes sigma as a tensor."""
    bundle, checkpoint = load_bundle(untrained_bundle), load_checkpoint(untrained_checkpoint)
    inputs, _ = golden.load(bundle.file("golden.npz"), bundle.manifest)
    with OrtBackend(bundle) as backend:
        found = golden.run_chunk(backend, inputs)

    spec, denoiser = checkpoint.action, checkpoint.denoiser.eval()
    past = torch.from_numpy(spec.features(inputs.positions, inputs.positions[0], is_past=True))[None]
    target = torch.from_numpy(spec.features(inputs.plan, inputs.positions[-1], is_past=False))[None]
    with torch.inference_mode():
        pixels = torch.from_numpy(inputs.pixels).permute(0, 3, 1, 2) / 127.5 - 1
        history = checkpoint.codec.eval().encode(pixels)
        cache = denoiser.remember(history[None], past, torch.from_numpy(inputs.mask)[None], torch.zeros(1))
        sample = torch.from_numpy(inputs.noise)[None]
        differences = [float((history - torch.from_numpy(found.history)).abs().max())]
        sigmas = checkpoint.config.sigmas
        for k, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
            clean = denoiser.denoise(sample, history[None, -1], target, torch.tensor([sigma]), *cache)
            keep, take = euler_weights(sigma, sigma_next)
            sample = keep * sample + take * clean
            differences.append(float((sample[0] - torch.from_numpy(found.steps[k])).abs().max()))
        decoded = ((checkpoint.codec.decode(sample[0]) + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    print("\nlargest difference to torch:", ", ".join(f"{d:.1e}" for d in differences))
    assert max(differences) <= TOLERANCE
    assert np.abs(decoded - found.frames).max() <= 0.51  # rounding to whole grey levels


def test_weights_are_stored_once(untrained_bundle: Path) -> None:
    """remember and both steps share one network; what depends on sigma became constants."""
    checkpoint = untrained_model()
    numbers = sum(
        p.numel() for module in (checkpoint.codec, checkpoint.denoiser) for p in module.parameters()
    )
    assert (untrained_bundle / "weights.bin").stat().st_size < 4 * 1.2 * numbers
    for name in ("remember", "step_0", "step_1"):
        assert (untrained_bundle / f"{name}.onnx").stat().st_size < 100_000


def test_no_trace_of_the_exporting_machine(untrained_bundle: Path) -> None:
    root = str(Path(__file__).parents[2]).encode()
    for path in untrained_bundle.iterdir():
        raw = path.read_bytes()
        assert root not in raw
        assert b"site-packages" not in raw


def test_provenance(untrained_bundle: Path) -> None:
    provenance = load_bundle(untrained_bundle).manifest.provenance
    assert provenance["training"] == {"data": "none: untrained"}
    assert provenance["seed"] == 0
    assert set(provenance["versions"]) == {"python", "torch", "onnx", "onnxscript", "onnxruntime", "numpy"}


def test_the_parity_program_passes_its_own_bundle(
    untrained_bundle: Path, untrained_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "parity.json"
    assert check_parity.main([str(untrained_bundle), str(untrained_checkpoint), "--json", str(report)]) == 0
    rows = json.loads(report.read_text())
    assert [row["stage"] for row in rows] == ["encode", "step_0", "step_1", "decode", "rollout"]
    assert all(row["max"] <= row["limit"] and row["rounding"] == 0 for row in rows)
    assert capsys.readouterr().out.count(" ok ") == 5


def test_the_parity_program_refuses_another_checkpoint(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = untrained_model()
    with torch.no_grad():
        other.denoiser.head.weight[0, 0] += 1e-3
    save_checkpoint(tmp_path, other)
    assert check_parity.main([str(untrained_bundle), str(tmp_path)]) == 1
    assert "model_id: expected untrained-" in capsys.readouterr().err


def test_the_parity_program_sees_a_difference(
    untrained_bundle: Path,
    untrained_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("export.graphs.HISTORY_SIGMA", 0.5)  # torch's history is now told to be noisy
    assert check_parity.main([str(untrained_bundle), str(untrained_checkpoint)]) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_a_model_too_large_for_float32_is_stored_as_float16(
    untrained_checkpoint: Path, untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "MAX_BUNDLE_BYTES", 100_000)
    bundle = export_bundle(load_checkpoint(untrained_checkpoint), tmp_path / "half", ExportConfig())
    assert (bundle.manifest.weights_dtype, bundle.manifest.precision) == ("float16", "fp32")
    size, full = bundle.file("weights.bin").stat().st_size, (untrained_bundle / "weights.bin").stat().st_size
    assert size < 0.6 * full
    rows = check_parity.compare(bundle, untrained_checkpoint, seed=2)
    assert all(row.is_within for row in rows)
    assert 0 < max(row.rounding for row in rows if row.stage.startswith("step")) < 0.05


def test_an_export_that_disagrees_leaves_nothing_behind(
    untrained_bundle: Path,
    untrained_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write_other_graphs(graphs: object, manifest: Manifest, root: Path) -> None:
        for name in manifest.graphs.values():
            shutil.copy(untrained_bundle / name, root)
        weights = np.fromfile(untrained_bundle / "weights.bin", np.float32)
        (weights * np.float32(1 + 1e-4)).tofile(root / "weights.bin")

    monkeypatch.setattr(to_onnx, "_write_graphs", write_other_graphs)
    assert to_onnx.main([str(untrained_checkpoint), "--out", str(tmp_path / "bundle")]) == 1
    assert "parity: expected ONNX Runtime within 0.0001 of torch, found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_never_replaced(
    untrained_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert to_onnx.main([str(untrained_checkpoint), "--out", str(tmp_path)]) == 1
    assert "expected a bundle to replace or nothing" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_missing_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert to_onnx.main([str(tmp_path / "absent"), "--out", str(tmp_path / "bundle")]) == 1
    assert capsys.readouterr().err.startswith("error: checkpoint ")
