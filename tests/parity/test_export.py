"""The exported network against the trained one, and what an exported bundle looks like."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from astra_ros.actions.config import RouterKind
from astra_ros.backends import golden
from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import (
    Bundle,
    BundleError,
    Manifest,
    describe_file,
    load_bundle,
    write_manifest,
)
from astra_ros.backends.factory import open_backend
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.ort import OrtBackend
from astra_ros.codec.autoencoder import CodecConfig
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from astra_ros.denoiser.dit import Chunk, History
from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.denoiser.io import graph_specs
from astra_ros.denoiser.presets import tiny
from astra_ros.denoiser.rollout import Memory, RolloutSettings, roll_out
from astra_ros.flow.schedule import euler_weights
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.training.distillation import DistillationConfig
from export import check_parity, contract, to_onnx
from export.contract import ExportConfig, draft_manifest
from export.served import as_served
from export.to_onnx import export_bundle
from tests.bundle_fixture import untrained, untrained_model
from tests.unit.backends.test_bundle import flip_a_bit
from tests.unit.backends.test_engines import write
from tests.unit.denoiser import scene

TOLERANCE = 1e-4


def test_graphs_have_the_names_and_shapes_of_the_io_table(untrained_bundle: Path) -> None:
    manifest = load_bundle(untrained_bundle).manifest
    for name, spec in graph_specs(manifest.dims, manifest.num_steps).items():
        graph = onnx.load(untrained_bundle / manifest.graphs[name], load_external_data=False).graph
        for tensors, expected in ((graph.input, spec.inputs), (graph.output, spec.outputs)):
            shapes = {t.name: tuple(d.dim_value for d in t.type.tensor_type.shape.dim) for t in tensors}
            assert shapes == expected


def test_graphs_match_the_network_of_all_action_spaces(
    untrained_bundle: Path, untrained_checkpoint: Path
) -> None:
    """ONNX, with one space and sigma folded away, beside the module that is trained, which takes both as tensors."""
    bundle, checkpoint = load_bundle(untrained_bundle), load_checkpoint(untrained_checkpoint)
    inputs, _ = golden.load(bundle.file("golden.npz"), bundle.manifest)
    with OrtBackend(bundle) as backend:
        found = golden.run_rollout(backend, inputs)
    with torch.inference_mode():
        pixels = torch.from_numpy(inputs.pixels).permute(0, 3, 1, 2) / 127.5 - 1
        encoded = checkpoint.codec.eval().encode(pixels)
        chunks = list(torch_samples(checkpoint, inputs, encoded))
        decoded = (
            ((checkpoint.codec.decode(chunks[-1][0]) + 1) * 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
        )
    expected = np.stack([sample[0, -1].numpy() for sample in chunks]).reshape(found.steps.shape)
    differences = [np.abs(found.encoded - encoded.numpy()).max(), np.abs(found.steps - expected).max()]
    print("\nlargest difference to torch:", ", ".join(f"{d:.1e}" for d in differences))
    assert max(differences) <= TOLERANCE
    assert np.abs(decoded - found.frames).max() <= 0.51  # rounding to whole grey levels


def torch_samples(
    checkpoint: Checkpoint, inputs: RolloutInputs, encoded: torch.Tensor
) -> Iterator[torch.Tensor]:
    """The sample (1, t, c, h, w) after each step of each chunk; every window is remembered afresh."""
    spec, space = checkpoint.actions["panda"], torch.tensor([checkpoint.space_index("panda")])
    denoiser = checkpoint.denoiser.eval()
    memory = Memory(
        encoded[torch.arange(NUM_SLOTS) % len(encoded)][None],
        inputs.actions[None],
        torch.from_numpy(inputs.mask)[None],
    )
    for noise, plan in zip(inputs.noise, inputs.plan, strict=True):
        past = torch.from_numpy(history_features(spec, memory.actions[0]))[None]
        target = torch.from_numpy(chunk_features(spec, plan, memory.actions[0, -1]))[None]
        history = History(memory.latents, past, memory.mask, space)
        cache, _ = denoiser.remember(history, torch.zeros(1))
        sample = torch.from_numpy(noise)[None]
        for sigma, sigma_next in pairwise(checkpoint.config.sigmas):
            chunk = Chunk(sample, memory.latents[:, -1], target, space)
            clean = denoiser.denoise(chunk, torch.tensor([sigma]), cache).latents
            keep, take = euler_weights(sigma, sigma_next)
            sample = keep * sample + take * clean
            yield sample
        memory = memory.moved_on(sample, plan[None])


def initializers(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    return {tensor.name.removesuffix(".float16"): tuple(tensor.dims) for tensor in graph.initializer}


def test_one_action_space_is_all_that_a_bundle_holds(untrained_bundle: Path) -> None:
    """Nothing is looked up in weights, and no tensor of the wider space, nor one for both, is stored."""
    actions = untrained_model().config.denoiser.actions
    wide, own = (features * (1 + 2 * actions.octaves) for features in actions.num_features)
    manifest = load_bundle(untrained_bundle).manifest
    for name in ("remember", "append", "step_0", "step_1"):
        graph = onnx.load(untrained_bundle / manifest.graphs[name], load_external_data=False).graph
        constants = initializers(graph)
        looked_up = [node.input[0] for node in graph.node if node.op_type in ("Gather", "GatherND")]
        assert not set(looked_up) & set(constants), name
        shapes = [dims for dims in constants.values() if actions.unified in dims and len(dims) > 1]
        assert any(own in dims for dims in shapes)
        assert not any(wide in dims or dims[0] == 2 for dims in shapes), shapes


# Two layers, two denoising steps. A change of PyTorch or of the exporter that stops folding constants shows here.
NODES = {"remember": 260, "append": 230, "step_0": 230, "step_1": 230}


def test_graphs_stay_small(untrained_bundle: Path) -> None:
    counts = {}
    for name, limit in NODES.items():
        graph = onnx.load(untrained_bundle / f"{name}.onnx", load_external_data=False).graph
        counts[name] = len(graph.node)
        assert counts[name] <= limit, counts
        kinds = Counter(node.op_type for node in graph.node)
        # Of the features only: where tokens stand is a constant.
        assert (kinds["Sin"], kinds["Cos"]) == (1, 1)
    print(f"\nnodes: {counts}")


@pytest.mark.parametrize("router", ["learned", "hard", "single"])
@pytest.mark.parametrize("adapter", ["act", "cross_attention"])
@pytest.mark.parametrize("space", ["keys", "panda"])
def test_what_is_served_answers_as_what_was_trained(router: RouterKind, adapter: str, space: str) -> None:
    """In torch: the narrowed and folded network beside the whole one, over three chunks."""
    actions = replace(untrained_model().config.denoiser.actions, router=router)
    checkpoint = untrained_model(adapter=adapter, actions=actions)
    generator = torch.Generator().manual_seed(1)
    for parameter in checkpoint.denoiser.blocks.parameters():  # the adapter's identity is no special case
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    served = as_served(checkpoint, space)
    assert list(served.actions) == [space]
    plan = scene.actions(checkpoint.actions[space], 1, 12)
    found, expected = (
        roll_out(
            each, space, scene.memory(each, space), plan, RolloutSettings(), torch.Generator().manual_seed(0)
        )
        for each in (served, checkpoint)
    )
    assert (found - expected).abs().max() <= 1e-5
    if router == "hard":
        assert served.denoiser.action_encoder.expert_in.shape[0] == 1


def test_weights_are_stored_once(untrained_bundle: Path) -> None:
    """remember and both steps share one network; what depends on sigma became constants."""
    checkpoint = untrained_model()
    numbers = sum(
        p.numel() for module in (checkpoint.codec, checkpoint.denoiser) for p in module.parameters()
    )
    assert (untrained_bundle / "weights.bin").stat().st_size < 4 * 1.2 * numbers
    for name in ("remember", "append", "step_0", "step_1"):
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
    parity = json.loads(report.read_text())
    rows, text = parity["rows"], capsys.readouterr().out
    for backend in ("onnxruntime fp32", "torch fp32"):
        stages = {row["stage"]: row for row in rows if row["backend"] == backend}
        assert list(stages) == [
            "encode", "step_0", "step_1", "append, step_0", "append, step_1", "remember, step_0", "decode",
            "append - remember", "rollout", "batch 8",
        ]  # fmt: skip
        assert all(row["max"] <= row["limit"] == 1e-4 for stage, row in stages.items() if stage != "decode")
    assert all(row["rounding"] <= 1e-5 for row in rows)
    assert text.count(" ok ") == len(rows)
    assert "tensorrt" in parity["skipped"]
    assert "skipped tensorrt: " in text


def test_a_backend_that_is_named_must_run(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who names a GPU's in a test must not be told that all is well because nothing ran."""
    named = ["onnxruntime", "openvnio", "onnxruntime:CUDAExecutionProvider"]
    report = tmp_path / "parity.json"
    assert check_parity.main([str(untrained_bundle), "--json", str(report), "--backends", *named]) == 1
    assert "openvnio" in json.loads(report.read_text())["skipped"]  # what ran is not lost
    printed = capsys.readouterr()
    assert "onnxruntime fp32" in printed.out
    assert printed.err == (
        "error: --backends: expected every one to run here, found that openvnio, onnxruntime:CUDAExecutionProvider did not\n"
    )
    assert check_parity.main([str(untrained_bundle), "--backends", "onnxruntime"]) == 0


def test_without_the_checkpoint_torch_runs_the_graphs(untrained_bundle: Path) -> None:
    parity = check_parity.compare(load_bundle(untrained_bundle), None, 3, ["onnxruntime"])
    assert len(parity.rows) == 10
    assert all(row.is_within and row.rounding == 0 for row in parity.rows)


def test_torch_runs_the_graphs_of_the_preset_tiny(tmp_path: Path) -> None:
    """Its coarse tokens, for which the oldest memory is averaged, and its head, with less width and depth."""
    preset, small_codec = tiny(), CodecConfig(widths=(16, 40), num_blocks=1)
    sizes = replace(preset.denoiser, width=64, depth=1, num_heads=2, chunk_len=4)
    checkpoint = untrained(replace(preset, codec=small_codec, denoiser=sizes))
    export_bundle(checkpoint, tmp_path / "bundle", ExportConfig("panda", candidates=1))
    bundle = load_bundle(tmp_path / "bundle")
    operators = {
        node.op_type for graph in bundle.manifest.graphs for node in onnx.load(bundle.graph(graph)).graph.node
    }
    assert {"AveragePool", "GridSample", "Sin", "Cos"} <= operators
    parity = check_parity.compare(bundle, None, 3, ["onnxruntime", "torch"])
    assert {row.backend for row in parity.rows} == {"onnxruntime fp32", "torch fp32"}
    assert parity.is_within, check_parity.report(parity)


def test_every_precision_of_a_backend_is_compared_whatever_becomes_of_the_others(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_bf16(bundle: Bundle, name: str, precision: str) -> Backend:
        if precision == "bf16":
            raise BackendError("precision: expected bf16, found fp32")
        return open_backend(bundle, name, precision="fp32")

    monkeypatch.setattr(check_parity, "precisions", lambda _bundle, _name: ("bf16", "fp32"))
    monkeypatch.setattr(check_parity, "open_backend", without_bf16)
    parity = check_parity.compare(load_bundle(untrained_bundle), None, 3, ["onnxruntime"])
    assert {row.backend for row in parity.rows} == {"onnxruntime fp32"}
    assert parity.skipped == {"onnxruntime bf16": "precision: expected bf16, found fp32"}


def test_damaged_engines_do_not_lose_what_was_compared(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle(bundle_copy)
    sound, damaged = (write(bundle, precision=precision) for precision in ("fp16", "fp32"))
    flip_a_bit(damaged / "decode.engine")
    assert check_parity.main([str(bundle_copy), "--backends", "onnxruntime"]) == 1
    text = capsys.readouterr().out
    assert text.count(" ok ") == 10
    assert f"engines {sound.name}: files, sources and tensors in order\n" in text
    assert f"REFUSED engines {damaged.name}: " in text
    assert "decode.engine: expected sha256" in text


def test_every_way_to_a_gpu_is_tried_and_named(
    untrained_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {"torch:cuda", "onnxruntime:CUDAExecutionProvider"} <= set(check_parity.DEFAULT_NAMES)
    names = ["onnxruntime:CPUExecutionProvider", "onnxruntime:NoExecutionProvider"]
    assert check_parity.main([str(untrained_bundle), "--backends", *names]) == 1
    text = capsys.readouterr().out
    assert text.count("\nonnxruntime:CPUExecutionProvider fp32 ") == 10
    assert (
        "skipped onnxruntime:NoExecutionProvider fp32: provider: expected NoExecutionProvider, found" in text
    )


def test_the_parity_program_refuses_another_checkpoint(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = untrained_model()
    with torch.no_grad():
        other.denoiser.patch_embedder.weight[0, 0] += 1e-3
    save_checkpoint(tmp_path, other)
    assert check_parity.main([str(untrained_bundle), str(tmp_path)]) == 1
    assert "model_id: expected untrained-" in capsys.readouterr().err


def test_the_parity_program_refuses_a_report_that_it_could_not_write(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_parity.main([str(untrained_bundle), "--json", str(tmp_path / "no" / "parity.json")]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: --json: expected a file in an existing folder, found ")
    assert error.count("\n") == 1


def test_the_parity_program_sees_a_difference(
    untrained_bundle: Path,
    untrained_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("export.graphs.HISTORY_SIGMA", 0.5)  # torch's history is now told to be noisy
    arguments = [str(untrained_bundle), str(untrained_checkpoint), "--backends", "onnxruntime"]
    assert check_parity.main(arguments) == 1
    assert "DIFFERS" in capsys.readouterr().out


def test_the_parity_program_goes_on_where_golden_vectors_refuse(
    untrained_bundle: Path, untrained_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))
    with np.load(bundle / "golden.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(bundle / "golden.npz", **arrays | {"steps": arrays["steps"] + np.float32(0.01)})
    sign(bundle, "golden.npz", load_bundle(untrained_bundle).manifest)
    assert (
        check_parity.main(
            [*map(str, (bundle, untrained_checkpoint)), "--backends", "onnxruntime", "tensorrt"]
        )
        == 1
    )
    text = capsys.readouterr().out
    assert "REFUSED onnxruntime fp32: " in text
    assert "golden vectors, batch 1: expected at most 0.001 in latents" in text
    assert "skipped tensorrt: " in text


def test_the_parity_program_refuses_a_wrong_graph_of_candidates(
    untrained_checkpoint: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every step of the batch goes as far as the first one; those of a single candidate are right."""
    manifest = load_bundle(bundle_copy).manifest
    shutil.copy(bundle_copy / "step_0_x8.onnx", bundle_copy / "step_1_x8.onnx")
    sign(bundle_copy, "step_1_x8.onnx", manifest)
    arguments = [*map(str, (bundle_copy, untrained_checkpoint)), "--backends", "onnxruntime"]
    assert check_parity.main(arguments) == 1
    assert "REFUSED onnxruntime fp32: " in (text := capsys.readouterr().out)
    assert "golden vectors, batch 8: expected at most 0.001 in latents" in text


def test_the_parity_program_sees_that_candidates_are_confused(
    untrained_checkpoint: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All get the last one's answer: golden vectors, whose candidates are equal, do not tell."""
    file, manifest = bundle_copy / "step_1_x8.onnx", load_bundle(bundle_copy).manifest
    model = onnx.load(file, load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["each" if name == "latents" else name for name in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.full(8, 7), "last"))
    model.graph.node.append(helper.make_node("Gather", ["each", "last"], ["latents"], axis=0))
    file.write_bytes(model.SerializeToString())
    sign(bundle_copy, file.name, manifest)
    arguments = [*map(str, (bundle_copy, untrained_checkpoint)), "--backends", "onnxruntime"]
    assert check_parity.main(arguments) == 1
    text = capsys.readouterr().out
    (line,) = (line for line in text.splitlines() if "DIFFERS" in line)
    assert "batch 8" in line
    assert "REFUSED" not in text


def sign(bundle: Path, name: str, manifest: Manifest) -> None:
    """A bundle of that manifest takes a file as it is now."""
    write_manifest(bundle, replace(manifest, files=manifest.files | {name: describe_file(bundle / name)}))


def test_a_model_too_large_for_float32_is_stored_as_float16(
    untrained_checkpoint: Path, untrained_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contract, "MAX_BUNDLE_BYTES", 100_000)
    bundle = export_bundle(
        load_checkpoint(untrained_checkpoint), tmp_path / "half", ExportConfig("panda", steps=1)
    )
    assert (bundle.manifest.weights_dtype, bundle.manifest.precision) == ("float16", "fp32")
    assert bundle.manifest.sigmas == (1.0, 0.0)
    size, full = bundle.file("weights.bin").stat().st_size, (untrained_bundle / "weights.bin").stat().st_size
    assert size < 0.6 * full
    rows = check_parity.compare(bundle, untrained_checkpoint, 2, ["onnxruntime"]).rows
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
        (weights * np.float32(1 + 5e-4)).tofile(root / "weights.bin")

    monkeypatch.setattr(to_onnx, "_write_graphs", write_other_graphs)
    arguments = [str(untrained_checkpoint), "--space", "panda", "--out", str(tmp_path / "bundle")]
    assert to_onnx.main(arguments) == 1
    assert "parity: expected ONNX Runtime within 0.0001 of torch, found" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("most", [2, 3])
def test_a_manifest_names_training_episodes_while_they_are_few(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(contract, "MAX_NAMES", most)
    arm, car = ({"held_out": ["z"], "training": names} for names in (["a", "b"], ["c"]))
    told = contract.brief({"seed": 1, "data": {"arm": arm, "car": car}})
    assert told["seed"] == 1
    assert [one["held_out"] for one in told["data"].values()] == [["z"], ["z"]]
    assert ["training" in one for one in told["data"].values()] == [most == 3] * 2


def test_a_folder_that_is_no_bundle_is_never_replaced(
    untrained_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert to_onnx.main([str(untrained_checkpoint), "--space", "panda", "--out", str(tmp_path)]) == 1
    assert "expected a bundle to replace or nothing" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("manifest", ['{"name": "web shop", "icons": []}', "[1]", "no JSON"])
def test_a_manifest_of_something_else_is_no_bundle(
    untrained_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], manifest: str
) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "app.js").write_text("precious")
    assert to_onnx.main([str(untrained_checkpoint), "--space", "panda", "--out", str(tmp_path)]) == 1
    assert "expected a bundle to replace or nothing" in capsys.readouterr().err
    assert (tmp_path / "app.js").read_text() == "precious"


def test_a_bundle_behind_a_link_is_replaced_and_what_goes_is_told(
    untrained_checkpoint: Path,
    bundle_copy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under a home whose ~ no shell expands, as in --out=~/bundle."""
    (bundle_copy / "engines").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "linked").symlink_to(bundle_copy)
    before = load_bundle(bundle_copy).sha256
    arguments = [str(untrained_checkpoint), "--space", "panda", "--seed", "9", "--out", "~/linked"]
    assert to_onnx.main(arguments) == 0
    assert "engines: of the bundle that is replaced, removed" in capsys.readouterr().out
    assert (tmp_path / "linked").is_symlink()
    assert load_bundle(bundle_copy).sha256 != before
    assert not (bundle_copy / "engines").exists()


def test_a_missing_checkpoint_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert to_onnx.main([str(tmp_path / "absent"), "--out", str(tmp_path / "bundle")]) == 1
    assert capsys.readouterr().err.startswith("error: checkpoint ")


def test_a_checkpoint_of_several_action_spaces_wants_to_know_which(
    untrained_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for chosen in ([], ["--space", "rover"]):
        arguments = [str(untrained_checkpoint), *chosen, "--out", str(tmp_path / "bundle")]
        assert to_onnx.main(arguments) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"error: space: expected one of keys, panda, found {(chosen or [''])[-1]!r}"
    assert list(tmp_path.iterdir()) == []


def test_the_command_is_in_the_provenance(
    untrained_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[ExportConfig] = []
    monkeypatch.setattr(to_onnx, "export_bundle", lambda _checkpoint, _out, config: seen.append(config))
    to_onnx.main(
        [str(untrained_checkpoint), "--space", "panda", "--steps", "4", "--out", str(tmp_path / "tiny")]
    )
    assert seen == [ExportConfig("panda", 4, 2, 8, command=seen[0].command)]
    assert (
        seen[0].command
        == "python -m export.to_onnx CHECKPOINT --out tiny --space panda --steps 4 --chunks 2 --candidates 8"
    )


@pytest.mark.parametrize(("candidates", "batches"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (8, (1, 4, 8))])
def test_candidates_are_exported_in_half_too_where_there_is_one(
    untrained_checkpoint: Path, candidates: int, batches: tuple[int, ...]
) -> None:
    checkpoint = load_checkpoint(untrained_checkpoint)
    draft = draft_manifest(
        checkpoint, as_served(checkpoint, "panda"), ExportConfig("panda", candidates=candidates)
    )
    assert draft.batches == batches


def test_an_export_says_whether_it_is_of_a_student(
    untrained_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First of all, and in the manifest: guidance that was not distilled is lost."""
    written: list[Manifest] = []

    def stop(_graphs: object, manifest: Manifest, _root: Path) -> None:
        written.append(manifest)
        raise BundleError("far enough")

    monkeypatch.setattr(to_onnx, "_write_graphs", stop)
    checkpoint = load_checkpoint(untrained_checkpoint)
    config = DistillationConfig("teacher", num_steps=2, guidance=1.5, teacher_steps=8)
    for provenance, kind in (
        ({}, "no student: it runs without guidance (astra distill makes a student with it)"),
        ({"distillation": asdict(config)}, "student of a teacher with guidance 1.5, 2 steps for 8"),
    ):
        checkpoint.provenance = provenance
        with pytest.raises(BundleError, match="far enough"):
            export_bundle(checkpoint, untrained_checkpoint.parent / "out", ExportConfig("panda"))
        manifest = written.pop()
        assert manifest.provenance["checkpoint"] == kind
        assert capsys.readouterr().out.splitlines() == [f"{manifest.model_id}: {kind}"]


def test_the_comparison_graphs_answer_as_the_steps_do(untrained_checkpoint: Path, tmp_path: Path) -> None:
    """All steps in one graph, and a step that is told its noise levels, beside the graphs a robot uses."""
    bundle = export_bundle(
        load_checkpoint(untrained_checkpoint),
        tmp_path / "bundle",
        ExportConfig("panda", candidates=1, comparisons=True),
    )
    with OrtBackend(bundle) as backend:
        rng = np.random.default_rng(0)
        given = {
            name: rng.standard_normal(shape, np.float32)
            for name, shape in backend.specs["fused"].inputs.items()
        }
        expected, levels = given["noisy_latents"], pairwise(bundle.manifest.sigmas)
        for k, (sigma, sigma_next) in enumerate(levels):
            step = {**given, "noisy_latents": expected}
            told = {"sigma": np.array([sigma], np.float32), "sigma_next": np.array([sigma_next], np.float32)}
            expected = backend.fetch(backend.run(f"step_{k}", step)["latents"])
            found = backend.fetch(backend.run("step_t", {**step, **told})["latents"])
            assert np.abs(found - expected).max() <= TOLERANCE
        found = backend.fetch(backend.run("fused", given)["latents"])
    assert np.abs(found - expected).max() <= TOLERANCE
    sizes = {
        name: len(onnx.load(bundle.graph(name), load_external_data=False).graph.node)
        for name in ("step_0", "step_t")
    }
    assert sizes["step_0"] < sizes["step_t"]
    assert all(row.is_within for row in check_parity.compare(bundle, None, 1, ["onnxruntime", "torch"]).rows)
