"""Reading a manifest: what is refused, and that refusing is all that ever happens."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_ros.backends.bundle import BundleError, Manifest, load_bundle
from astra_ros.backends.ort import OrtBackend

Document = dict[str, Any]


@pytest.fixture(scope="module")
def text(untrained_bundle: Path) -> str:
    return (untrained_bundle / "manifest.json").read_text()


def changed(text: str, change: Callable[[Document], object]) -> str:
    document = json.loads(text)
    change(document)
    return json.dumps(document)


def test_round_trip(text: str) -> None:
    manifest = Manifest.from_json(text)
    assert manifest.to_json() == text
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_bundle_that_does_not_tell_its_work_is_as_good(text: str) -> None:
    assert Manifest.from_json(changed(text, lambda m: m.pop("flops"))).flops is None


def test_dims_agree_with_the_fields(text: str) -> None:
    manifest = Manifest.from_json(text)
    dims = manifest.dims
    assert (dims.image_height, dims.image_width, dims.head_dim) == (48, 64, 32)
    assert dims.history_tokens == 2 * 12 + 4 + 4 * 1  # anchor and last; 2x; four blocks at 4x
    assert dims.num_features == manifest.action.num_features == 25
    assert manifest.action.space == "panda"
    assert manifest.num_steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("camera"), r"missing \['camera'\]"),
        (lambda m: m.update(colour=1), "unknown key colour; expected one of action, "),
        (lambda m: m["camera"].pop("height"), r"camera: .*missing \['height'\]"),
        (lambda m: m["latents"].update(depth=1), "latents: unknown key depth; "),
        (
            lambda m: m.update(schema_version=1),
            r"schema_version: expected 4 \(the one of this version .*, found 1",
        ),
        (lambda m: m.update(schema_version=5), "schema_version: expected 4 .*, found 5"),
        (lambda m: m.pop("schema_version"), "schema_version: expected 4 .*, found None"),
        (
            lambda m: m["history"].update(num_slots=4),
            "history: num_slots, anchor_age: expected 20, 24 .*found 4, 24",
        ),
        (lambda m: m["history"].update(anchor_age=9), "history: num_slots, anchor_age: .*found 20, 9"),
        (lambda m: m["history"].update(num_tokens=0), "history: num_tokens: expected 1"),
        (lambda m: m["action"].pop("space"), r"action: .*missing \['space'\]"),
        (lambda m: m.update(chunk_len=6), "chunk_len: expected a multiple of 4 up to 16, found 6"),
        (lambda m: m["camera"].update(height="128"), "camera.height: expected an integer, found '128'"),
        (lambda m: m["camera"].update(height=True), "camera.height: expected an integer, found 'True'"),
        (lambda m: m["camera"].update(height=0), r"camera: height: expected 1\.\.\d+, found 0"),
        (lambda m: m["camera"].update(encoding="bgr8"), "expected 'rgb8' with 'center_crop', found 'bgr8'"),
        (lambda m: m["action"]["units"].pop(), r"action: action.units: expected 8 entries"),
        (lambda m: m["action"].update(names=["a", 1]), r"action.names\[1\]: expected a text, found '1'"),
        (lambda m: m.update(sigmas=[1.0, 0.5]), "sigmas: expected numbers falling from at most 1 to 0"),
        (lambda m: m.update(sigmas=[0.5, 0.5, 0.0]), "sigmas: expected numbers falling"),
        (lambda m: m.update(sigmas=[]), "sigmas: expected numbers falling"),
        (lambda m: m.update(sigmas=[1.0, 0.0]), r"graphs: .*unknown \['step_1', 'step_1_x4', 'step_1_x8'\]"),
        (
            lambda m: m.update(batches=[1, 4]),
            r"graphs: .*unknown \['append_x8', 'step_0_x8', 'step_1_x8'\]",
        ),
        (
            lambda m: m.update(batches=[8]),
            "batches: expected numbers rising from 1 to at most 1024, found \\[8\\]",
        ),
        (lambda m: m.update(batches=[1, 8, 8]), "batches: expected numbers rising"),
        (lambda m: m.update(batches=[1, 10**6]), "batches: expected numbers rising"),
        (lambda m: m.update(batches=[]), "batches: expected numbers rising"),
        (lambda m: m["graphs"].pop("append"), r"graphs: .*missing \['append'\]"),
        (
            lambda m: m["graphs"].update(encode="other.onnx"),
            "graphs.encode: expected one of the bundle's files",
        ),
        (lambda m: m["golden"].update(file="other.npz"), "golden.file: expected one of the bundle's files"),
        (
            lambda m: m["golden"].update(latents_tolerance=10**400),
            "golden.latents_tolerance: expected a number",
        ),
        (
            lambda m: m["golden"].update(latents_tolerance=1e9),
            "golden: latents_tolerance: expected 0 < tolerance",
        ),
        (lambda m: m["golden"].update(pixels_tolerance=255), "golden: pixels_tolerance: expected 0..16"),
        (lambda m: m["golden"].update(reduced_tolerance=0), "golden: reduced_tolerance: expected 0 < toler"),
        (lambda m: m["golden"].pop("reduced_tolerance"), r"golden: .*missing \['reduced_tolerance'\]"),
        (lambda m: m["files"]["weights.bin"].update(sha256="0"), "files.weights.bin: sha256: expected 64"),
        (
            lambda m: m["files"]["weights.bin"].update(bytes=-1),
            "files.weights.bin: bytes: expected 0 or more",
        ),
        (lambda m: m["flops"].update(step=0), r"flops: step: expected 1\.\.\d+, found 0"),
        (lambda m: m["flops"].update(step=10**400), r"flops: step: expected 1\.\.\d+, found 1000"),
        (lambda m: m["flops"].pop("append"), r"flops: .*missing \['append'\]"),
        (lambda m: m.update(provenance=[]), "provenance: expected an object"),
    ],
)
def test_what_is_refused(text: str, change: Callable[[Document], object], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(changed(text, change))


def test_a_bundle_of_the_first_schema_is_refused_with_the_line_that_fixes_it(
    bundle_copy: Path, text: str
) -> None:
    (bundle_copy / "manifest.json").write_text(changed(text, lambda m: m.update(schema_version=1)))
    with pytest.raises(
        BundleError,
        match=r"schema_version: .*found 1; .*python -m export.to_onnx CHECKPOINT --space SPACE --out ",
    ) as refusal:
        load_bundle(bundle_copy)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "name",
    ["../weights.bin", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "a\0b", "manifest.json", "x" * 300, "ä"],
)
def test_file_names_never_leave_the_bundle(text: str, name: str) -> None:
    with pytest.raises(BundleError, match="files: expected plain names of files inside the bundle"):
        Manifest.from_json(changed(text, lambda m: m["files"].update({name: m["files"]["weights.bin"]})))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("", "Expecting value"),
        ("[]", "document: expected an object"),
        ("null", "document: expected an object"),
        ('{"a": NaN}', "found NaN"),
        ('{"a": -Infinity}', "found -Infinity"),
        ('{"a": 1, "a": 2}', "the same field twice"),
        ("[" * 200_000, "nested too deep"),
        ('{"schema_version": ' + "9" * 5000 + "}", "integer string conversion"),
    ],
)
def test_what_is_not_a_json_object(broken: str, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(broken)


WILD: list[Any] = [
    None,
    True,
    -1,
    0,
    1 << 70,
    1e308,
    "",
    "../../x",
    "\n\ud800",
    [],
    {},
    [[]],
    {"a": {}},
    "0" * 64,
    3,
    0.5,
]


def mutate(document: Document, rng: np.random.Generator) -> None:
    """Walk to a random place and delete, duplicate, replace or swap something."""
    node: Any = document
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            return
        key = keys[rng.integers(len(keys))]
        if not isinstance(node[key], dict | list) or rng.random() < 0.3:
            break
        node = node[key]
    match rng.integers(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[f"{key}_"] = node[key]
        case 2:
            node[key] = node[keys[rng.integers(len(keys))]]
        case _:
            node[key] = WILD[rng.integers(len(WILD))]


class Watch:
    """Python's own report of anything that would run code from outside."""

    EVENTS = (
        "pickle.find_class",
        "os.system",
        "subprocess.Popen",
        "os.exec",
        "os.posix_spawn",
        "ctypes.dlopen",
    )

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.is_on = False
        sys.addaudithook(self)

    def __call__(self, event: str, _: object) -> None:
        if self.is_on and event in self.EVENTS:
            self.seen.append(event)


def test_mutated_manifests_are_refused_or_harmless(bundle_copy: Path, text: str) -> None:
    rng, watch = np.random.default_rng(0), Watch()
    refusals: list[str] = []
    opened = 0
    watch.is_on = True
    for _ in range(400):
        document = json.loads(text)
        for _ in range(rng.integers(1, 4)):
            mutate(document, rng)
        (bundle_copy / "manifest.json").write_text(json.dumps(document))
        try:
            with np.errstate(all="ignore"), OrtBackend(load_bundle(bundle_copy), num_threads=1):
                opened += 1
        except BundleError as error:
            refusals.append(str(error))
    watch.is_on = False
    assert watch.seen == []
    assert len(refusals) > 300
    assert not any("\n" in refusal for refusal in refusals)
    assert opened > 0  # what changed was the provenance, an identifier, a bound: the network still answers


def test_damaged_bytes_are_refused_or_harmless(bundle_copy: Path, text: str) -> None:
    rng, raw = np.random.default_rng(1), text.encode()
    for _ in range(400):
        damaged = bytearray(raw)
        for position in rng.integers(len(raw), size=3):
            damaged[position] = rng.integers(256)
        (bundle_copy / "manifest.json").write_bytes(
            damaged[: rng.integers(len(raw))] if rng.random() < 0.3 else damaged
        )
        with contextlib.suppress(BundleError):
            load_bundle(bundle_copy)
