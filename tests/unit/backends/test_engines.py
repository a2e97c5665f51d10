"""engines.json and engine headers: what is refused, and how. TensorRT is not needed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import Bundle, describe_file, load_bundle, write_manifest
from astra_ros.backends.engines import (
    EngineSet,
    EngineSpec,
    TensorSpec,
    WeightSpec,
    check_header,
    checked_engines,
    find_engines,
    read_engine_file,
    read_sidecar,
    rebuild_command,
    require_fit,
)
from astra_ros.backends.manifest import BundleError, FileSpec
from tests.unit.backends.test_bundle import (
    extend,
    flip_a_bit,
    replace_by_folder,
    replace_by_link,
    truncate,
)

VERSION = "1.7.1.116"


@pytest.fixture
def bundle(bundle_copy: Path) -> Bundle:
    return load_bundle(bundle_copy)


def engine_bytes(content: bytes = b"engine", version: bytes = bytes([1, 7, 1, 116])) -> bytes:
    """A file with the header of one that TensorRT-RTX built."""
    size = 28 + len(content)
    return b"vtrt" + bytes(12) + size.to_bytes(8, "little") + version + content


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(shape, "float32") for name, shape in shapes.items()}


def write(bundle: Bundle, **changes: Any) -> Path:
    """A folder beside the bundle's files, as export.build_trt leaves it. changes: other fields of its EngineSet."""
    files, engines = {}, {}
    for graph, spec in bundle.manifest.graph_specs.items():
        inputs, outputs = tensors(spec.inputs), tensors(spec.outputs)
        names = (bundle.manifest.graphs[graph], "weights.bin")
        sources = {name: bundle.manifest.files[name].sha256 for name in names}
        engines[graph] = EngineSpec(
            f"{graph}.engine",
            int(graph.partition("_x")[2] or 1),
            sources,
            {"float16": 1},
            inputs,
            outputs,
            weights={},
        )
        raw = engine_bytes(graph.encode())
        files[f"{graph}.engine"] = (FileSpec(hashlib.sha256(raw).hexdigest(), len(raw)), raw)
    fields = {
        "schema_version": 1,
        "bundle_sha256": bundle.sha256,
        "model_id": bundle.manifest.model_id,
        "runtime": "tensorrt_rtx",
        "version": VERSION,
        "targets": (),
        "precision": "fp16",
        "weights": "",
        "engines": engines,
        "files": {name: spec for name, (spec, _) in files.items()},
    }
    engine_set = EngineSet(**{**fields, **changes})
    folder = bundle.root / "engines" / engine_set.folder_name
    folder.mkdir(parents=True)
    for name, (_, raw) in files.items():
        (folder / name).write_bytes(raw)
    (folder / "engines.json").write_text(engine_set.to_json())
    return folder


def test_it_comes_back_as_it_was_written(bundle: Bundle) -> None:
    folder = write(bundle)
    engines = read_sidecar(folder)
    assert read_sidecar(folder) == EngineSet.from_json(engines.to_json())
    require_fit(engines, bundle)
    for name in engines.files:
        assert read_engine_file(folder, engines, name) == (folder / name).read_bytes()
    assert load_bundle(bundle.root) == bundle


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "tensorrt_rtx-1.7.1.116-fp16-any"),
        ({"targets": (86, 120), "precision": "bf16"}, "tensorrt_rtx-1.7.1.116-bf16-sm86-sm120"),
        ({"runtime": "tensorrt", "version": "11.4.1.3", "targets": (90,)}, "tensorrt-11.4.1.3-fp16-sm90"),
        ({"runtime": "tensorrt", "version": "10.13.3.9.post1"}, "tensorrt-10.13.3.9.post1-fp16-any"),
        ({"version": "1.8.0.5a1.dev2"}, "tensorrt_rtx-1.8.0.5a1.dev2-fp16-any"),
    ],
)
def test_folders_tell_engines_apart(bundle: Bundle, changes: dict[str, Any], name: str) -> None:
    assert write(bundle, **changes).name == name


@pytest.mark.parametrize(
    ("targets", "runs", "does_not"),
    [((), (80, 86, 89, 120, 121), (75, 87, 90, 100)), ((86, 120), (86, 120), (80, 89, 121))],
)
def test_where_engines_run(
    bundle: Bundle, targets: tuple[int, ...], runs: tuple[int, ...], does_not: tuple[int, ...]
) -> None:
    engines = read_sidecar(write(bundle, targets=targets))
    assert [engines.runs_on(sm) for sm in runs] == [True] * len(runs)
    assert [engines.runs_on(sm) for sm in does_not] == [False] * len(does_not)


def alter(folder: Path, *keys: str, value: Any) -> None:
    """Set a field of engines.json."""
    document = json.loads((folder / "engines.json").read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (folder / "engines.json").write_text(json.dumps(document))


WEIGHT = {"shape": [2, 3], "dtype": "float16", "offset": 0, "bytes": 12}
ENCODE = ("engines", "encode")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("schema_version",), 2, "schema_version: expected 1 .* found 2"),
        (("runtime",), "tensorflow", "runtime: expected one of tensorrt, tensorrt_rtx, found 'tensorflow'"),
        (("version",), "../../etc", "version: expected one such as 10.13.3.9"),
        (("version",), "1." * 4000 + "1", "version: expected one such as 10.13.3.9"),
        (("version",), "1.7.post1/..", "version: expected one such as 10.13.3.9"),
        (("precision",), "int8", "precision: expected one of fp32, fp16, bf16"),
        (("targets",), [86, -1], "targets: expected SMs such as 86"),
        (("targets",), "86", "targets: expected a list"),
        (("unknown",), 1, r"unknown key unknown; expected one of bundle_sha256, "),
        (("files", "encode.engine", "sha256"), "0", "expected 64 lower-case hex digits"),
        (("files", "../manifest.json"), {"sha256": "0" * 64, "bytes": 1}, "expected plain names of files"),
        (("files", "engines.json"), {"sha256": "0" * 64, "bytes": 1}, "expected plain names of files"),
        ((*ENCODE, "file"), "/etc/passwd", "engines.encode.file: expected one of the folder's files"),
        ((*ENCODE, "batch"), 0, "batch: expected 1 or more, found 0"),
        ((*ENCODE, "batch"), True, "batch: expected an integer"),
        ((*ENCODE, "inputs", "pixels", "shape"), [1, -3], "shape: expected up to 8 sizes of 1 or more"),
        ((*ENCODE, "inputs", "pixels", "shape"), [10**400], "shape: expected up to 8 sizes"),
        ((*ENCODE, "inputs", "pixels", "shape"), [1] * 9, "shape: expected up to 8 sizes"),
        ((*ENCODE, "inputs", "pixels", "dtype"), "int8", "dtype: expected one of float32, float16, bfloat16"),
        ((*ENCODE, "weights", "w"), WEIGHT, "weights.w: expected one of the folder's files, found ''"),
        ((*ENCODE, "weights", "w"), {**WEIGHT, "bytes": 13}, "bytes: expected 12 for"),
        ((*ENCODE, "weights", "w"), {**WEIGHT, "offset": -1}, "offset: expected 0 or more"),
        ((*ENCODE, "weights", "w"), {**WEIGHT, "offset": 10**300}, "offset: expected 0 or more"),
    ],
)
def test_a_bad_field_is_named(bundle: Bundle, keys: tuple[str, ...], value: Any, message: str) -> None:
    folder = write(bundle)
    alter(folder, *keys, value=value)
    with pytest.raises(BundleError, match=message) as refusal:
        read_sidecar(folder)
    again = f"python -m export.build_trt {bundle.root} --runtime tensorrt_rtx"
    assert str(refusal.value).endswith(f"build the engines again: {again}")
    assert len(str(refusal.value)) < 1000


def test_a_weight_beyond_the_end_of_its_file_is_refused(bundle: Bundle) -> None:
    folder = write(bundle)
    size = read_sidecar(folder).files["decode.engine"].bytes
    alter(folder, "weights", value="decode.engine")
    alter(folder, *ENCODE, "weights", value={"w": {**WEIGHT, "offset": size - 12}})
    assert read_sidecar(folder).engines["encode"].weights == {
        "w": WeightSpec((2, 3), "float16", size - 12, 12)
    }
    alter(folder, *ENCODE, "weights", value={"w": {**WEIGHT, "offset": size - 11}})
    with pytest.raises(
        BundleError, match=rf"weights.w: expected to end within {size} bytes of decode.engine"
    ):
        read_sidecar(folder)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("make", [Path.unlink, replace_by_link, replace_by_folder, halve])
def test_a_sidecar_that_is_no_file_is_refused(bundle: Bundle, make: Callable[[Path], None]) -> None:
    folder = write(bundle)
    make(folder / "engines.json")
    with pytest.raises(BundleError, match=r"engines.json: .*build the engines again"):
        read_sidecar(folder)


def test_an_oversized_sidecar_is_not_read(bundle: Bundle) -> None:
    folder = write(bundle)
    os.truncate(folder / "engines.json", 1 << 34)
    with pytest.raises(BundleError, match=r"expected at most \d+ bytes"):
        read_sidecar(folder)


def test_any_damage_to_a_sidecar_is_one_line(bundle: Bundle) -> None:
    """Bytes changed, cut out and doubled at random, and values replaced by absurd ones."""
    folder, rng = write(bundle), random.Random(0)
    raw = (folder / "engines.json").read_bytes()
    absurd = [
        b"1e999",
        b"-1",
        b"9" * 5000,
        b"[" * 100_000,
        b"null",
        b'"\\ud800"',
        b"NaN",
        b"\xff",
        b'{"a":1,"a":2}',
    ]
    refusals = []
    for _ in range(300):
        start = rng.randrange(len(raw))
        end = start + rng.choice([0, 1, 4, 400])
        patch = rng.choice([b"", rng.randbytes(3), raw[start:end] * 2, rng.choice(absurd)])
        (folder / "engines.json").write_bytes(raw[:start] + patch + raw[end:])
        try:
            read_sidecar(folder)
        except BundleError as error:
            refusals.append(str(error))
    assert len(refusals) > 200
    assert not [message for message in refusals if "\n" in message or len(message) > 2000]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"begins with b'vtrt', found b''"),
        (b"vtrt", r"begins with b'vtrt'"),
        (b"ftrt" + engine_bytes()[4:], r"begins with b'vtrt', found b'ftrt'"),
        (engine_bytes()[:-1], "expected 34 bytes .its header says., found 33"),
        (engine_bytes() + b"x", "expected 34 bytes .its header says., found 35"),
        (b"vtrt" + b"\xff" * 40, "expected 18446744073709551615 bytes"),
        (
            engine_bytes(version=bytes([1, 6, 0, 3])),
            "expected an engine of TensorRT-RTX 1.7.1.116, found one of 1.6.0.3",
        ),
    ],
)
def test_a_header_of_something_else_is_refused(raw: bytes, message: str) -> None:
    check_header(engine_bytes(), VERSION)
    with pytest.raises(ValueError, match=message):
        check_header(raw, VERSION)


def test_a_header_says_the_release_only() -> None:
    check_header(engine_bytes(), f"{VERSION}.post1")


def test_random_headers_are_refused() -> None:
    rng = random.Random(0)
    for _ in range(300):
        raw = bytearray(engine_bytes())
        raw[rng.choice([*range(4), *range(16, 28)])] ^= rng.randrange(1, 256)
        for damaged in (bytes(raw), rng.randbytes(rng.randrange(100))):
            with pytest.raises(ValueError, match="expected"):
                check_header(damaged, VERSION)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "expected sha256 [0-9a-f]{12}…, found"),
        (truncate, r"expected \d+ bytes, found \d+"),
        (extend, r"expected at most \d+ bytes, found \d+"),
        (Path.unlink, "No such file"),
        (replace_by_link, "expected a plain file, found a link"),
        (replace_by_folder, "expected a plain file, found a link, folder"),
    ],
)
def test_an_altered_engine_is_refused(bundle: Bundle, damage: Callable[[Path], None], message: str) -> None:
    folder = write(bundle, targets=(86,))
    engines = read_sidecar(folder)
    damage(folder / "step_1.engine")
    with pytest.raises(BundleError, match=message) as refusal:
        read_engine_file(folder, engines, "step_1.engine")
    assert "step_1.engine" in str(refusal.value)
    again = f"python -m export.build_trt {bundle.root} --runtime tensorrt_rtx --precision fp16 --sm 86 --candidates 8"
    assert str(refusal.value).endswith(f"build the engines again: {again}")


def test_the_advice_is_a_line_for_a_shell(bundle: Bundle) -> None:
    engines = read_sidecar(write(bundle))
    root = Path("my bundle").resolve()
    command = rebuild_command(root / "engines" / "x", engines)
    assert shlex.split(command)[:4] == ["python", "-m", "export.build_trt", str(root)]


def test_an_engine_that_does_not_say_which_weights_it_holds_is_refused(bundle: Bundle) -> None:
    folder = write(bundle)
    sources = read_sidecar(folder).engines["append"].sources
    alter(
        folder, "engines", "append", "sources", value={k: v for k, v in sources.items() if k != "weights.bin"}
    )
    with pytest.raises(ValueError, match=r"append sources: expected \w+ for weights.bin .* found 'none'"):
        require_fit(read_sidecar(folder), bundle)


def test_engines_of_another_version_under_a_true_hash_are_refused(bundle: Bundle) -> None:
    folder = write(bundle)
    raw = engine_bytes(version=bytes([1, 6, 0, 3]))
    (folder / "encode.engine").write_bytes(raw)
    entry = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    alter(folder, "files", "encode.engine", value=entry)
    with pytest.raises(BundleError, match=r"found one of 1\.6\.0\.3"):
        read_engine_file(folder, read_sidecar(folder), "encode.engine")


def test_what_fits_is_found_the_fastest_first(bundle: Bundle) -> None:
    for precision in ("fp32", "bf16"):
        write(bundle, precision=precision)
    write(bundle, precision="fp16", targets=(120,))
    for sm, asked, expected in [
        (86, "", ["bf16", "fp32"]),
        (120, "", ["fp16", "bf16", "fp32"]),
        (120, "fp32", ["fp32"]),
    ]:
        found = find_engines(bundle, "tensorrt_rtx", VERSION, sm, asked)
        assert [engines.precision for _, engines in found] == expected


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": "1.6.0.3"}, r"version: expected 1.7.1.116, which is installed, found 1.6.0.3"),
        ({"runtime": "tensorrt"}, "runtime: expected tensorrt_rtx, found tensorrt"),
        ({"targets": (89, 120)}, r"targets: expected SM 86, which is present, found \(89, 120\)"),
        ({"precision": "fp32"}, "precision: expected fp16, found fp32"),
        ({"engines": {}, "files": {}}, "engines: expected .*missing"),
    ],
)
def test_engines_that_do_not_fit_are_refused_with_the_command_that_makes_some(
    bundle: Bundle, changes: dict[str, Any], found: str
) -> None:
    folder = write(bundle, **changes)
    with pytest.raises(BackendError, match=found) as refusal:
        find_engines(bundle, "tensorrt_rtx", VERSION, 86, "fp16")
    message = str(refusal.value)
    assert folder.name in message
    assert "\n" not in message
    assert message.endswith(f"export.build_trt {bundle.root} --runtime tensorrt_rtx --precision fp16 --sm 86")


def test_engines_fit_a_bundle_that_was_calibrated_since(bundle: Bundle) -> None:
    """What is added changes the manifest, and none of the files that engines are made of."""
    write(bundle)
    added = bundle.root / "trust.npz"
    added.write_bytes(b"arrays")
    files = bundle.manifest.files | {added.name: describe_file(added)}
    later = write_manifest(bundle.root, dataclasses.replace(bundle.manifest, files=files))
    assert later.sha256 != bundle.sha256
    assert len(find_engines(later, "tensorrt_rtx", VERSION, 86)) == 1


@pytest.mark.parametrize(
    ("sources", "found"),
    [
        ({}, r"encode sources: expected [0-9a-f]{12} for encode\.onnx \(this bundle's\), found 'none'"),
        ({"encode.onnx": "0" * 64}, r"encode sources: expected .* for encode\.onnx .*, found '000000000000'"),
        ({"weights.bin": "0" * 64}, r"encode sources: expected .* for weights\.bin .*, found '000000000000'"),
        ({"other.bin": "0" * 64}, r"encode sources: expected none for other\.bin"),
    ],
)
def test_engines_of_other_files_do_not_fit(bundle: Bundle, sources: dict[str, str], found: str) -> None:
    engines = read_sidecar(write(bundle))
    encode = engines.engines["encode"]
    changed = dataclasses.replace(encode, sources={**encode.sources, **sources} if sources else {})
    other = dataclasses.replace(engines, engines={**engines.engines, "encode": changed})
    with pytest.raises(ValueError, match=found):
        require_fit(other, bundle)


def test_no_engines_at_all(bundle: Bundle) -> None:
    with pytest.raises(
        BackendError, match=r"engines of tensorrt_rtx 1.7.1.116 for SM 86, found none; python -m"
    ):
        find_engines(bundle, "tensorrt_rtx", VERSION, 86)


def test_for_a_gpu_that_the_library_does_not_name_no_target_is_asked_for(bundle: Bundle) -> None:
    """build_trt would refuse it; engines without a target run there."""
    for sm, remedy in ((130, "--runtime tensorrt_rtx"), (75, "--runtime tensorrt_rtx --sm 75")):
        with pytest.raises(BackendError, match=f"{bundle.root} {remedy}$"):
            find_engines(bundle, "tensorrt_rtx", VERSION, sm)


def test_damaged_engines_do_not_hide_sound_ones(bundle: Bundle) -> None:
    (write(bundle, precision="fp16") / "engines.json").write_text("{")
    write(bundle, precision="fp32")
    ((_, engines),) = find_engines(bundle, "tensorrt_rtx", VERSION, 86)
    assert engines.precision == "fp32"


def test_an_engine_with_other_inputs_than_its_graph_does_not_fit(bundle: Bundle) -> None:
    engines = read_sidecar(write(bundle))
    for spec in (TensorSpec((1, 3, 48, 65), "float32"), TensorSpec((1, 3, 48, 64), "float16")):
        encode = dataclasses.replace(engines.engines["encode"], inputs={"pixels": spec})
        other = dataclasses.replace(engines, engines={**engines.engines, "encode": encode})
        with pytest.raises(ValueError, match="encode inputs: expected float32"):
            require_fit(other, bundle)


def test_engines_for_any_machine_are_checked_as_far_as_files_go(bundle: Bundle) -> None:
    assert checked_engines(bundle) == {}
    folders = [write(bundle), write(bundle, version="1.6.0.3", targets=(121,), engines={}, files={})]
    found = checked_engines(bundle)
    assert found[folders[0].name] == ""
    assert re.search(r"engines: expected .*missing.*python -m export.build_trt", found[folders[1].name])
    flip_a_bit(folders[0] / "decode.engine")
    assert "decode.engine: expected sha256" in checked_engines(bundle)[folders[0].name]


def test_engines_of_candidates_may_be_missing_of_a_batch_all_or_none(bundle: Bundle) -> None:
    every = read_sidecar(write(bundle))
    alone = {graph: engine for graph, engine in every.engines.items() if engine.batch == 1}
    fewer = dataclasses.replace(every, engines=alone)
    require_fit(fewer, bundle)
    assert (every.batches, fewer.batches) == ((1, 4, 8), (1,))
    for engines, problem in (
        ({**alone, "step_0_x8": every.engines["step_0_x8"]}, r"missing \['append_x8', 'step_1_x8'\]"),
        ({**alone, "step_0_x8": dataclasses.replace(alone["step_0"], batch=2)}, r"batches among \(1, 4, 8\)"),
    ):
        with pytest.raises(ValueError, match=problem):
            require_fit(dataclasses.replace(every, engines=engines), bundle)
