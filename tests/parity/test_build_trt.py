"""Real engines, built by TensorRT-RTX without a GPU, and what their engines.json says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.engines import (
    EngineSet,
    Precision,
    check_header,
    read_engine_file,
    read_sidecar,
    require_fit,
)
from export import build_trt, engine_weights
from export.build_trt import build_engines
from export.engine_builder import BuildConfig
from export.precision import load_graph
from tests.unit.backends.test_bundle import accept, flip_a_bit

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed; run: make test")

Built = tuple[Path, EngineSet]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(scope="module")
def build(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Callable[[BuildConfig], Built]:
    """Engines of a configuration, built once for all tests, which must leave them as they are."""
    return cache(lambda config: build_engines(bundle, config, tmp_path_factory.mktemp("engines")))


@pytest.fixture(scope="module", params=PRECISIONS)
def built(build: Callable[[BuildConfig], Built], request: pytest.FixtureRequest) -> Built:
    return build(BuildConfig(precision=request.param))


def test_every_graph_has_an_engine_with_its_inputs_and_outputs(built: Built, bundle: Bundle) -> None:
    folder, engines = built
    assert read_sidecar(folder) == engines
    require_fit(engines, bundle)
    assert {path.name for path in folder.iterdir()} == {*engines.files, "engines.json"}
    assert "step_1_x8" in engines.engines
    for graph, engine in engines.engines.items():
        assert (engine.file, engine.batch) == (f"{graph}.engine", int(graph.partition("_x")[2] or 1))
        assert engine.outputs["latents" if "step" in graph else next(iter(engine.outputs))].dtype == "float32"


def test_an_engine_is_a_complete_file_of_this_version_that_says_which_graph_it_is(
    built: Built, bundle: Bundle
) -> None:
    folder, engines = built
    assert engines.version == trt.__version__
    for graph, engine in engines.engines.items():
        raw = read_engine_file(folder, engines, engine.file)
        check_header(raw, trt.__version__)
        sha256 = bundle.manifest.files[bundle.manifest.graphs[graph]].sha256
        assert json.dumps({"graph": graph, "onnx_sha256": sha256}).encode() in raw


def test_the_sidecar_names_the_sources_and_the_arithmetic_of_the_network(
    built: Built, bundle: Bundle
) -> None:
    _, engines = built
    files = bundle.manifest.files
    low = DTYPES[engines.precision]
    for graph, engine in engines.engines.items():
        assert bundle.manifest.graphs[graph] in engine.sources
        assert engine.sources == {name: files[name].sha256 for name in engine.sources}
        assert engine.products[low] >= 0.7 * sum(engine.products.values())
        assert set(engine.products) <= {low, "float32"}
    assert "weights.bin" in engines.engines["step_0"].sources


def test_low_precision_makes_small_engines(build: Callable[[BuildConfig], Built]) -> None:
    sizes = {
        precision: sum(spec.bytes for spec in build(BuildConfig(precision=precision))[1].files.values())
        for precision in PRECISIONS
    }
    assert max(sizes["fp16"], sizes["bf16"]) < sizes["fp32"]


def test_two_builds_are_equal_to_the_byte(
    build: Callable[[BuildConfig], Built], bundle: Bundle, tmp_path: Path
) -> None:
    """But for the order in which TensorRT-RTX lists several outputs, which is another one in each build."""
    config = BuildConfig(precision="fp16")
    folder, engines = build(config)
    again, _ = build_engines(bundle, config, tmp_path)
    for engine in engines.engines.values():
        first, second = ((place / engine.file).read_bytes() for place in (folder, again))
        if len(engine.outputs) == 1:
            assert first == second, engine.file
        else:
            assert Counter(first) == Counter(second), engine.file


def test_the_bundle_stays_as_it_is_and_long_builds_are_not_silent(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_trt, "_HEARTBEAT_S", 0.02)
    before = load_bundle(bundle_copy)
    report = bundle_copy / "report.json"
    arguments = [str(bundle_copy), "--sm", "89", "--sm", "86", "--sm", "86", "--json", str(report)]
    assert build_trt.main(arguments) == 0
    assert load_bundle(bundle_copy).sha256 == before.sha256
    folder = bundle_copy / "engines" / f"tensorrt_rtx-{trt.__version__}-fp16-sm86-sm89"
    engines = read_sidecar(folder)
    assert engines.targets == (86, 89)
    document = json.loads(report.read_text())
    assert document.pop("folder") == str(folder)
    assert document.pop("seconds") > 0
    assert document == json.loads(engines.to_json())
    lines = capsys.readouterr().out.splitlines()
    graphs = list(before.manifest.with_batches((1, 8)).graph_specs)
    assert "[4/9] step_0: building for 0 s" in lines
    assert [line.split(":")[0] for line in lines if "building for" not in line] == [
        *(f"[{number}/{len(graphs)}] {graph}" for number, graph in enumerate(graphs, start=1)),
        str(folder),
    ]
    # Again, over what is there.
    (folder / "stale").write_text("")
    assert build_trt.main(arguments) == 0
    assert not (folder / "stale").exists()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_report_that_could_not_be_written_is_refused_before_the_work(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        build_trt.main([str(bundle.root), "--out", str(out), "--json", str(tmp_path / "no" / "x.json")]) == 1
    )
    error = capsys.readouterr().err
    assert error.startswith("error: --json: expected a file in an existing folder, found ")
    assert error.count("\n") == 1
    assert not out.exists()


def test_something_else_in_the_place_of_engines_is_kept(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / f"tensorrt_rtx-{trt.__version__}-fp16-any"
    place.mkdir()
    (place / "thesis.txt").write_text("two years of work")
    assert build_trt.main([str(bundle.root), "--out", str(tmp_path)]) == 1
    out, error = capsys.readouterr()
    assert "expected engines to replace or nothing, found something else" in error
    assert out == ""
    assert (place / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("options", "reason", "remedy"),
    [
        (
            ["--sm", "90"],
            r"--sm 90: tensorrt_rtx [\d.]+ builds for SM 75, 80, 86, 89, 120, 121 only",
            "--runtime tensorrt --precision fp16",
        ),
        (["--sm", "86", "--sm", "61"], "--sm 61: tensorrt_rtx", "--runtime tensorrt --precision fp16"),
        (["--sm", "-1"], "--sm -1: tensorrt_rtx", "--runtime tensorrt --precision fp16"),
        (
            ["--sm", "75", "--precision", "bf16"],
            "--precision bf16: expected SM 80 or newer, found 75",
            "--precision fp16 --sm 75",
        ),
        (
            ["--sm", "75", "--sm", "89", "--precision", "fp32"],
            "--precision fp32: expected SM 80 or newer, found 75",
            "--precision fp16 --sm 75",
        ),
    ],
)
def test_an_impossible_target_is_refused_with_the_command_that_works(
    bundle: Bundle,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    reason: str,
    remedy: str,
) -> None:
    assert build_trt.main([str(bundle.root), "--out", str(tmp_path / "out"), *options]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.count("\n") == 1
    assert re.match(f"error: {reason}", error)
    assert error.rstrip().endswith(remedy)
    assert f"python -m export.build_trt {bundle.root}" in error
    assert not (tmp_path / "out").exists()


def test_turing_gets_float16_alone(bundle: Bundle, tmp_path: Path) -> None:
    """TensorRT-RTX has no other products for it: not even the ones that stay in float32 elsewhere."""
    _, engines = build_engines(bundle, BuildConfig(targets=(75, 89)), tmp_path)
    assert {dtype for engine in engines.engines.values() for dtype in engine.products} == {"float16"}


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="tensorrt is installed")
def test_a_missing_library_is_named(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert build_trt.main([str(bundle.root), "--runtime", "tensorrt"]) == 1
    assert capsys.readouterr().err.rstrip().endswith("pip install tensorrt")


def test_weights_as_inputs_are_stored_once_for_all_engines(
    build: Callable[[BuildConfig], Built], bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_weights, "MIN_SHARED_BYTES", 8192)  # the weights of this network are small
    folder, engines = build_engines(bundle, BuildConfig(weights_as_inputs=True), tmp_path)
    _, plain = build(BuildConfig())
    assert folder.name == f"{plain.folder_name}-shared"
    weights = read_engine_file(folder, engines, engines.weights)
    moved = saved = 0
    for graph, engine in engines.engines.items():
        model = load_graph(bundle.graph(graph), "fp16")
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for name, spec in engine.weights.items():
            assert (stored[name].shape, stored[name].dtype.name) == (spec.shape, spec.dtype)
            assert weights[spec.offset : spec.offset + spec.bytes] == stored[name].tobytes()
            assert spec.bytes >= 8192
        moved += sum(spec.bytes for spec in engine.weights.values())
        saved += plain.files[engine.file].bytes - engines.files[engine.file].bytes
    assert engines.engines["step_0"].weights == engines.engines["step_1"].weights != {}
    assert not engines.engines["decode"].weights
    print(f"\n{moved} bytes of weights, {saved} of engines saved for one file of {len(weights)}")
    assert saved >= 0.5 * moved
    assert len(weights) <= 0.5 * moved


def test_a_graph_with_a_dynamic_shape_is_refused(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(bundle_copy / "encode.onnx", load_external_data=False)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(model, bundle_copy / "encode.onnx")
    accept(bundle_copy, "encode.onnx")
    assert build_trt.main([str(bundle_copy)]) == 1
    error = capsys.readouterr().err
    assert "encode: pixels: expected a static shape, found (1, 3, -1, 64); export the bundle again" in error
    assert not any((bundle_copy / "engines").iterdir())


def test_engines_of_some_batches_alone(bundle: Bundle, tmp_path: Path) -> None:
    every = list(bundle.manifest.graph_specs)
    alone = [graph for graph in every if "_x" not in graph]
    largest = [graph for graph in every if not graph.endswith("_x4")]
    for candidates, expected in ((0, alone), (8, largest), (None, largest)):
        folder, engines = build_engines(bundle, BuildConfig(candidates=candidates), tmp_path)
        assert list(engines.engines) == expected
        assert read_sidecar(folder) == engines


@pytest.mark.parametrize("candidates", ["3", "-1"])
def test_candidates_that_the_bundle_has_no_graphs_for_are_refused(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], candidates: str
) -> None:
    out = tmp_path / "out"
    assert build_trt.main([str(bundle.root), "--out", str(out), "--candidates", candidates]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        f"--candidates: expected 0 or one of the bundle's batches 1, 4, 8, found {candidates}; export" in line
    )
    assert not out.exists()


@pytest.mark.parametrize("raw", [b"", b"not a graph", bytes(range(256)) * 40])
def test_what_is_no_graph_is_refused_in_one_line(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str], raw: bytes
) -> None:
    (bundle_copy / "encode.onnx").write_bytes(raw)
    accept(bundle_copy, "encode.onnx")
    assert build_trt.main([str(bundle_copy)]) == 1
    error = capsys.readouterr().err
    assert "encode" in error
    assert "export the bundle again" in error
    assert error.count("\n") == 1


def test_an_altered_bundle_is_refused(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip_a_bit(bundle_copy / "weights.bin")
    assert build_trt.main([str(bundle_copy)]) == 1
    assert "weights.bin: expected sha256" in capsys.readouterr().err


@pytest.mark.parametrize("how", [["export/build_trt.py"], ["-m", "export.build_trt"]])
def test_it_runs_as_a_script_and_as_a_module(how: list[str]) -> None:
    root = Path(build_trt.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, *how, "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert "example: python -m export.build_trt astra_ros/bundles/tiny" in done.stdout
