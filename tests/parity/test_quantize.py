"""8-bit integers: fitted to recordings, near the exact answers, and refused where they are not."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="openvino is not installed; pip install openvino")

import openvino as ov

from astra_ros.backends import golden
from astra_ros.backends.bundle import BundleError, describe_file, load_bundle, write_manifest
from astra_ros.backends.factory import open_backend
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.backends.openvino_int8 import products, read_ranges, round_products
from astra_ros.types import FloatArray
from export import check_parity, quantize
from tests.moving_square import write_dataset


@pytest.fixture(scope="module")
def int8_bundle(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fitted to its golden vectors alone."""
    root = Path(shutil.copytree(untrained_bundle, tmp_path_factory.mktemp("int8") / "bundle"))
    recorder = quantize.RangeRecorder(load_bundle(root))
    with recorder:
        limits = recorder.limits()
    quantize.write_ranges(load_bundle(root), limits, ("none",))
    return root


@pytest.fixture
def int8_copy(int8_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))


@pytest.mark.parametrize("batch", [1, 8])
def test_int8_is_within_its_tolerance_and_not_float32(
    int8_bundle: Path, batch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle(int8_bundle)
    inputs, expected = golden.load(bundle.file("golden.npz"), bundle.manifest)
    with OpenVinoBackend(bundle, 1, "int8") as backend:
        assert backend.precision == "int8"
        found = golden.run_rollout(backend, inputs, batch)
    errors = golden.relative_errors(found, expected, inputs)
    with capsys.disabled():
        print(f"\nopenvino int8, batch {batch}: relative error {max(errors.values()):.1e}")
    assert max(errors.values()) <= bundle.manifest.tolerance("int8")
    assert errors["step_0"] > 1e-4


def test_zero_stays_zero(untrained_bundle: Path) -> None:
    """Or paddings and activations that are mostly 0 would add up to an error of their own."""
    model = ov.Core().read_model(load_bundle(untrained_bundle).graph("decode"))
    name, product = next(
        (n, p) for n, p in products(model).items() if "Convolution" in p.node.get_type_name()
    )
    low, high = -0.278, 16.83  # as after a SiLU: 0 is 4.14 of 255 steps above the lowest
    assert round_products([model], {name: (low, high)}) == [1]
    limits = [
        float(product.node.input_value(0).get_node().input_value(i).get_node().get_data()) for i in (1, 2)
    ]
    step = (limits[1] - limits[0]) / 255
    assert step == pytest.approx((high - low) / 255)
    assert -limits[0] / step == pytest.approx(4, abs=1e-4)
    assert limits[1] == pytest.approx(high, abs=step)


def test_parity_is_of_a_whole_rollout_too(int8_bundle: Path) -> None:
    """Of as many chunks as it has, each of which may err once more."""
    parity = check_parity.compare(load_bundle(int8_bundle), None, 3, ["openvino"])
    rows = {row.stage: row for row in parity.rows if row.backend == "openvino int8"}
    assert {"encode", "append, step_1", "decode", "rollout", "batch 8"} <= rows.keys()
    assert rows["rollout"].limit == check_parity.ROLLOUT_CHUNKS * rows["decode"].limit
    assert 0 < rows["rollout"].max <= rows["rollout"].limit


def test_every_graph_has_ranges_those_for_candidates_too(int8_bundle: Path) -> None:
    bundle = load_bundle(int8_bundle)
    graphs = read_ranges(bundle.file("int8.json")).graphs
    assert graphs.keys() == bundle.manifest.graphs.keys()
    assert graphs["step_0_x8"] == graphs["step_0"]


def test_the_recorder_sees_the_extremes(untrained_bundle: Path) -> None:
    """What goes into the first convolution is the picture."""
    with quantize.RangeRecorder(load_bundle(untrained_bundle)) as recorder:
        before = dict(recorder.ranges["encode"])
        pixels = np.zeros(recorder.specs["encode"].inputs["pixels"], np.float32)
        pixels[0, 0, 3, 4], pixels[0, 1, 5, 6] = -7.5, 9.25
        outputs = recorder.run("encode", {"pixels": pixels})
        after = recorder.ranges["encode"]
        grown = {name for name in after if after[name] != before[name]}
        assert (-7.5, 9.25) in [after[name] for name in grown]
        plain = OpenVinoBackend(load_bundle(untrained_bundle), 1)
        with plain:
            expected: FloatArray = plain.fetch(plain.run("encode", {"pixels": pixels})["latents"])
        np.testing.assert_allclose(outputs["latents"].data, expected, atol=1e-4)


def test_precisions_have_int8_only_where_the_bundle_says_how(
    int8_bundle: Path, untrained_bundle: Path
) -> None:
    assert "int8" in OpenVinoBackend.precisions(load_bundle(int8_bundle))
    assert "int8" not in OpenVinoBackend.precisions(load_bundle(untrained_bundle))


def test_too_coarse_an_answer_is_refused_and_auto_takes_another(int8_copy: Path) -> None:
    manifest = load_bundle(int8_copy).manifest
    assert manifest.quantization
    strict = replace(manifest, quantization=replace(manifest.quantization, tolerance=1e-6))
    bundle = write_manifest(int8_copy, strict)
    with pytest.raises(
        BundleError, match=r"expected a relative error of at most 1e-06, found .* in int8 on cpu; choose"
    ):
        OpenVinoBackend(bundle, 1, "int8").load()
    backend = open_backend(bundle, "openvino", 1)
    assert not backend.precision.startswith("int8")
    backend.close()


@pytest.mark.parametrize(
    ("ranges", "expected"),
    [
        ({"encode": {"nobody": [-1, 1]}}, r"expected products with the weights \['nobody'\], found none"),
        (
            {"encode": {"w": [1, 2]}},
            r"int8\.json: .*encode\.w: expected low <= 0 <= high, and a range, found",
        ),
        ({"encode": {"w": [0, 0]}}, r"expected low <= 0 <= high, and a range"),
        ({"encode": {"w": [-1, 0, 1]}}, r"expected low <= 0 <= high"),
        ({"encode": {"w": ["a", 1]}}, r"int8\.json: graphs\.encode\.w\[0\]: expected a number"),
        ([], r"int8\.json: graphs: expected an object"),
    ],
)
def test_wrong_ranges_are_named(int8_copy: Path, ranges: object, expected: str) -> None:
    (int8_copy / "int8.json").write_text(json.dumps({"graphs": ranges}))
    promise_ranges(int8_copy)
    bundle = load_bundle(int8_copy)
    int8 = OpenVinoBackend(bundle, 1, "int8")
    with pytest.raises(BundleError, match=expected):
        int8.load()
    with open_backend(bundle, "openvino", 1) as backend:
        assert not backend.precision.startswith("int8")


def promise_ranges(root: Path) -> None:
    """The manifest promises the file as it is now."""
    document = json.loads((root / "manifest.json").read_text())
    document["files"]["int8.json"] = vars(describe_file(root / "int8.json"))
    (root / "manifest.json").write_text(json.dumps(document))


def test_a_bundle_that_would_be_too_coarse_stays_what_it_was(
    int8_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {file.name: file.read_bytes() for file in int8_copy.iterdir()}
    monkeypatch.setattr(quantize, "INT8_TOLERANCE", 1e-6)
    with pytest.raises(BundleError, match="expected a relative error of at most 1e-06"):
        quantize.write_ranges(load_bundle(int8_copy), read_ranges(int8_copy / "int8.json").graphs, ("other",))
    assert {file.name: file.read_bytes() for file in int8_copy.iterdir()} == before


def test_what_was_added_meanwhile_stays(bundle_copy: Path, int8_bundle: Path) -> None:
    """By another tool, while the recordings were watched."""
    watched = load_bundle(bundle_copy)
    (bundle_copy / "proposals.npz").write_bytes(b"of another tool")
    files = {**watched.manifest.files, "proposals.npz": describe_file(bundle_copy / "proposals.npz")}
    write_manifest(bundle_copy, replace(watched.manifest, files=files))
    quantize.write_ranges(watched, read_ranges(int8_bundle / "int8.json").graphs, ("other",))
    assert {"proposals.npz", "int8.json"} <= set(load_bundle(bundle_copy).manifest.files)


def test_ranges_of_graphs_that_were_exported_anew_meanwhile_are_not_written(
    bundle_copy: Path, int8_bundle: Path
) -> None:
    watched = load_bundle(bundle_copy)
    files = {**watched.manifest.files, "encode.onnx": watched.manifest.files["decode.onnx"]}
    with pytest.raises(BundleError, match="expected the graphs that were watched, found others"):
        quantize.write_ranges(
            replace(watched, manifest=replace(watched.manifest, files=files)),
            read_ranges(int8_bundle / "int8.json").graphs,
            ("other",),
        )
    assert not (bundle_copy / "int8.json").exists()


def test_the_products_that_err_most_are_not_rounded(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(limits: quantize.Limits) -> float:
        with quantize.Trial(loaded, "int8", limits) as trial:
            return max(trial.errors())

    loaded = load_bundle(untrained_bundle)
    with quantize.RangeRecorder(loaded) as recorder:
        every = recorder.limits()
    few = {graph: dict(list(every[graph].items())[:4]) for graph in ("encode", "step_0", "step_1")}
    allowed = 0.9 * error(few)
    monkeypatch.setattr(quantize, "INT8_TOLERANCE", allowed / quantize.SOUND)
    left = quantize.sound_products(loaded, few)
    assert error(left) <= allowed
    names = [set().union(*limits.values()) for limits in (left, few)]
    assert set() < names[0] < names[1]
    monkeypatch.setattr(quantize, "INT8_TOLERANCE", 1.0)
    assert quantize.sound_products(loaded, few) == few


def test_a_precision_that_errs_without_rounding_does_not_cost_the_other_its_products(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 alone may be too coarse for a model; int8 beside float32 is not for that."""

    class Coarse(quantize.Trial):
        def errors(self) -> list[float]:
            return [1.0] if self.precision == "int8_bf16" else [0.0]

    monkeypatch.setattr(quantize, "Trial", Coarse)
    monkeypatch.setattr(OpenVinoBackend, "precisions", lambda _: ("fp32", "bf16", "int8", "int8_bf16"))
    limits = {"encode": {"a": (0.0, 1.0), "b": (0.0, 1.0)}}
    monkeypatch.setattr(Coarse, "_open", lambda _: None)
    assert quantize.sound_products(load_bundle(untrained_bundle), limits) == limits


def test_an_interrupted_fit_leaves_the_bundle_as_it_was(
    bundle_copy: Path, int8_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = {file.name: file.read_bytes() for file in bundle_copy.iterdir()}
    monkeypatch.setattr(OpenVinoBackend, "load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize.write_ranges(load_bundle(bundle_copy), read_ranges(int8_bundle / "int8.json").graphs, ("x",))
    assert {file.name: file.read_bytes() for file in bundle_copy.iterdir()} == before


def test_quantising_a_bundle_says_what_it_costs(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_dataset(tmp_path / "own", [f"train_{i}" for i in range(3)] + ["held_0", "held_1"])
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert quantize.main(words) == 0
    assert "dB in fp32" in capsys.readouterr().out
    spec = load_bundle(bundle_copy).manifest.quantization
    assert spec
    assert spec.fitted_on == ("train_0", "train_1", "train_2")


def test_a_bundle_for_one_chunk_at_a_time_is_quantised(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path
) -> None:
    manifest = load_bundle(bundle_copy).manifest
    write_manifest(bundle_copy, replace(manifest, max_horizon=manifest.chunk_len))
    own = write_dataset(tmp_path / "own", ["train_0", "train_1", "held_0", "held_1"])
    assert quantize.main([str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]) == 0


def test_too_short_episodes_are_named_once_and_passed_over(
    bundle_copy: Path, held_out_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["train_0", "train_1", "held_0", "held_1"]
    own = write_dataset(tmp_path / "own", names, short=("train_1", "held_1"))
    words = [str(bundle_copy), "--data", str(own), "--held-out", str(held_out_file)]
    assert quantize.main(words) == 0
    shown = capsys.readouterr().err
    for name in ("train_1", "held_1"):
        assert shown.count(f"skipped: {name}: expected more than") == 1


def test_without_openvino_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for module in ("export.quantize", "astra_ros.backends.quiet_openvino"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(SystemExit, match=r"error: openvino: .*; pip install openvino"):
        importlib.import_module("export.quantize")
