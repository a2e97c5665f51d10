"""Loading a bundle: altered, truncated, missing and linked files."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from astra_ros.backends import golden
from astra_ros.backends.arrays import read_arrays
from astra_ros.backends.bundle import (
    Bundle,
    BundleError,
    load_bundle,
    replace_file,
    restored_on_error,
    weight_files,
    write_manifest,
)
from astra_ros.backends.ort import OrtBackend
from astra_ros.benchmarking.scene import Scene


def flip_a_bit(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_link(path: Path) -> None:
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def accept(folder: Path, name: str) -> None:
    """Make the manifest agree with a changed file: what is tested then is everything but the hash."""
    document = json.loads((folder / "manifest.json").read_text())
    raw = (folder / name).read_bytes()
    document["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (folder / "manifest.json").write_text(json.dumps(document))


def refer_elsewhere(folder: Path, name: str, other: str) -> None:
    """A graph of a bundle takes its weights from a file that nobody verifies."""
    (folder / other).write_bytes((folder / "weights.bin").read_bytes())
    model = onnx.load(folder / name, load_external_data=False)
    for entry in (entry for tensor in model.graph.initializer for entry in tensor.external_data):
        entry.value = other if entry.key == "location" else entry.value
    (folder / name).write_bytes(model.SerializeToString())
    accept(folder, name)


def test_loading_verifies_and_identifies(untrained_bundle: Path) -> None:
    bundle = load_bundle(str(untrained_bundle))
    assert bundle.sha256 == hashlib.sha256((untrained_bundle / "manifest.json").read_bytes()).hexdigest()
    assert bundle.graph("step_1") == untrained_bundle / "step_1.onnx"
    assert set(bundle.manifest.files) | {"manifest.json"} == {
        path.name for path in untrained_bundle.iterdir()
    }


def test_a_folder_may_be_named_from_home(untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `bundle:=~/mine`, in which no shell expands it."""
    monkeypatch.setenv("HOME", str(untrained_bundle.parent))
    assert load_bundle(f"~/{untrained_bundle.name}").graph("step_1") == untrained_bundle / "step_1.onnx"


@pytest.mark.parametrize("name", ["weights.bin", "golden.npz", "encode.onnx", "step_1.onnx"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, "expected sha256 [0-9a-f]{12}…, found [0-9a-f]{12}…"),
        (truncate, r"expected \d+ bytes, found \d+"),
        (extend, r"expected \d+ bytes, found \d+"),
        (Path.unlink, r"expected \d+ bytes, found no such file"),
        (replace_by_link, "expected a plain file, found a link"),
        (replace_by_folder, "expected a plain file, found a link, folder"),
    ],
)
def test_every_file_is_verified(
    bundle_copy: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    damage(bundle_copy / name)
    with pytest.raises(BundleError, match=f"{name}: {message}") as refusal:
        load_bundle(bundle_copy)
    assert "python -m export.to_onnx CHECKPOINT --space SPACE --out" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_no_bundle_folder(tmp_path: Path) -> None:
    for path, found in [
        (tmp_path / "absent", "no such folder"),
        (tmp_path, "a folder without it"),
        (Path(__file__), "a file"),
    ]:
        with pytest.raises(BundleError, match=f"expected a bundle folder with manifest.json, found {found}"):
            load_bundle(path)


def test_an_oversized_manifest_is_not_read(bundle_copy: Path) -> None:
    os.truncate(bundle_copy / "manifest.json", 1 << 30)
    with pytest.raises(BundleError, match=r"manifest.json: expected at most"):
        load_bundle(bundle_copy)


def test_a_folder_linked_file_by_file_is_its_original(untrained_bundle: Path, tmp_path: Path) -> None:
    """As `colcon build --symlink-install` installs it."""
    for path in untrained_bundle.iterdir():
        (tmp_path / path.name).symlink_to(path)
    bundle = load_bundle(tmp_path)
    assert bundle.root == untrained_bundle
    with OrtBackend(bundle):
        pass


class Payload:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("executed",)


def test_a_pickle_in_the_golden_vectors_is_refused_unread(
    bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for payload in (np.array([Payload()], dtype=object), pickle.dumps(Payload())):
        path = bundle_copy / "golden.npz"
        if isinstance(payload, bytes):
            path.write_bytes(payload)
        else:
            np.savez(path, pixels=payload)
        accept(bundle_copy, "golden.npz")
        with pytest.raises(BundleError, match=r"golden.npz: expected an npz of arrays"):
            OrtBackend(load_bundle(bundle_copy)).load()
    assert not (tmp_path / "executed").exists()


def test_golden_arrays_of_another_shape_are_refused(bundle_copy: Path) -> None:
    path = bundle_copy / "golden.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    for wrong in ({**arrays, "noise": arrays["noise"][:1]}, {**arrays, "more": arrays["noise"]}, {}):
        np.savez(path, **wrong)
        accept(bundle_copy, "golden.npz")
        with pytest.raises(BundleError, match=r"golden.npz: expected {'pixels'"):
            OrtBackend(load_bundle(bundle_copy)).load()


def test_a_damaged_archive_is_refused(bundle_copy: Path) -> None:
    """By backends and by whatever else reads it."""
    path = bundle_copy / "golden.npz"
    with zipfile.ZipFile(path) as archive:
        name = archive.infolist()[0]
    raw = bytearray(path.read_bytes())
    raw[name.header_offset + 60 : name.header_offset + 90] = bytes(30)
    path.write_bytes(raw)
    accept(bundle_copy, "golden.npz")
    bundle = load_bundle(bundle_copy)
    for read in (OrtBackend(bundle).load, lambda: Scene(bundle)):
        with pytest.raises(BundleError, match=r"golden.npz: expected an npz of arrays"):
            read()


def damaged_archives(raw: bytes, rng: np.random.Generator) -> Iterator[bytes]:
    """Compressions and sizes that nobody can serve, then bits flipped and pieces lost anywhere."""
    central = raw.index(b"PK\x01\x02")
    for position, value in (
        (8, 1),
        (10, 9),
        (10, 97),
        (10, 14),
        (24, 255),
    ):  # encrypted; unknown methods; a size
        yield raw[: central + position] + bytes([value]) + raw[central + position + 1 :]
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as huge:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000000), }\n"
        huge.writestr("mean.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    yield archive.getvalue()
    for _ in range(300):
        damaged = bytearray(raw)
        for position in rng.integers(len(raw), size=4):
            damaged[position] = rng.integers(256)
        for _ in range(2):  # where the headers are
            damaged[central + rng.integers(len(raw) - central)] = rng.integers(256)
            damaged[rng.integers(200)] = rng.integers(256)
        yield bytes(damaged[: rng.integers(len(raw))] if rng.random() < 0.2 else damaged)


def test_arrays_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "large.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as member,
    ):
        header = {"descr": "|u1", "fortran_order": False, "shape": (65 << 24,)}
        np.lib.format.write_array_header_1_0(member, header)
        for _ in range(65):
            member.write(bytes(1 << 24))
    with pytest.raises(
        BundleError, match=r"large.npz: expected arrays, found '1090519[0-9]* bytes when unpacked"
    ):
        read_arrays(tmp_path / "large.npz", "arrays", "make them again")


def spoil(bundle: Bundle) -> None:
    with restored_on_error(bundle, "golden.npz"):
        replace_file(bundle.file("golden.npz"), b"half of it")
        load_bundle(bundle.root)


def test_a_change_that_fails_leaves_the_bundle_as_it_was(bundle_copy: Path) -> None:
    before, golden = load_bundle(bundle_copy), (bundle_copy / "golden.npz").read_bytes()
    with pytest.raises(BundleError, match=r"golden.npz"):
        spoil(before)
    assert load_bundle(bundle_copy) == before
    assert (bundle_copy / "golden.npz").read_bytes() == golden


def test_a_manifest_of_another_version_comes_back_as_it_was_written(bundle_copy: Path) -> None:
    """Its digest is the bundle's name to a robot."""
    file = bundle_copy / "manifest.json"
    fields = json.loads(file.read_text())
    assert fields.pop("flops")
    file.write_text(json.dumps(fields))
    before = load_bundle(bundle_copy)
    with pytest.raises(BundleError, match=r"golden.npz"):
        spoil(before)
    assert load_bundle(bundle_copy).sha256 == before.sha256


def test_any_damage_to_arrays_is_one_line(bundle_copy: Path, tmp_path: Path) -> None:
    rng, refusals = np.random.default_rng(0), list[str]()
    with np.load(bundle_copy / "golden.npz") as archive:
        arrays = dict(archive)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "sound.npz", **arrays)
        for raw in damaged_archives((tmp_path / "sound.npz").read_bytes(), rng):
            (tmp_path / "damaged.npz").write_bytes(raw)
            try:
                read_arrays(tmp_path / "damaged.npz", "arrays", "make them again")
            except BundleError as error:
                refusals.append(str(error))
    assert len(refusals) > 300
    for refusal in refusals:
        assert refusal.startswith("damaged.npz: expected arrays, found ")
        assert refusal.endswith("; make them again")
        assert "\n" not in refusal


@pytest.mark.parametrize("array", ["encoded", "steps", "frames"])
def test_other_answers_than_the_golden_ones_are_refused(bundle_copy: Path, array: str) -> None:
    path = bundle_copy / "golden.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays[array].flat[-1] += 3
    np.savez(path, **arrays)
    accept(bundle_copy, "golden.npz")
    with pytest.raises(
        BundleError,
        match=r"golden vectors, batch \d: expected at most 0.001 in latents and 2 grey levels, found",
    ):
        OrtBackend(load_bundle(bundle_copy)).load()


def test_other_weights_than_the_exported_ones_do_not_pass_the_golden_check(bundle_copy: Path) -> None:
    raw = np.fromfile(bundle_copy / "weights.bin", np.float32)
    (raw * np.float32(1.01)).tofile(bundle_copy / "weights.bin")
    accept(bundle_copy, "weights.bin")
    with pytest.raises(BundleError, match=r"golden vectors, batch \d: expected at most"):
        OrtBackend(load_bundle(bundle_copy)).load()


@pytest.mark.parametrize("name", ["other.bin", "../outside.bin", "x" * 200])
def test_weights_in_a_file_that_the_manifest_does_not_list_are_refused(bundle_copy: Path, name: str) -> None:
    """ONNX Runtime would read the first, and it may be right: nobody has verified it."""
    refer_elsewhere(bundle_copy, "step_0.onnx", name)
    with pytest.raises(
        BundleError, match=r"step_0.onnx: expected weights in files that the manifest lists, found '"
    ):
        load_bundle(bundle_copy)


def test_weights_that_the_manifest_forgot_are_refused(bundle_copy: Path) -> None:
    document = json.loads((bundle_copy / "manifest.json").read_text())
    del document["files"]["weights.bin"]
    (bundle_copy / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(
        BundleError, match=r"expected weights in files .*, found 'weights.bin'; .*export"
    ) as refusal:
        load_bundle(bundle_copy)
    assert "\n" not in str(refusal.value)


def test_the_files_of_a_graphs_weights_are_found_without_a_parser(untrained_bundle: Path) -> None:
    for graph in set(load_bundle(untrained_bundle).manifest.graphs.values()):
        model = onnx.load(untrained_bundle / graph, load_external_data=False)
        entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
        assert weight_files(untrained_bundle / graph) == {e.value for e in entries if e.key == "location"}


def test_a_graph_with_another_signature_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "step_0.onnx").write_bytes((bundle_copy / "decode.onnx").read_bytes())
    accept(bundle_copy, "step_0.onnx")
    with pytest.raises(BundleError, match=r"step_0 inputs: expected float32 {'noisy_latents'"):
        OrtBackend(load_bundle(bundle_copy)).load()


def test_golden_inputs_exercise_every_input(untrained_bundle: Path) -> None:
    """Each input of each chunk, changed, must change the answer: else the golden check could not see it."""
    bundle = load_bundle(untrained_bundle)
    inputs, expected = golden.load(bundle.file("golden.npz"), bundle.manifest)
    with OrtBackend(bundle) as backend:
        for name, index in (
            ("pixels", -1), ("actions", 0), ("actions", -1), ("mask", -1), ("noise", 0), ("noise", 1), ("plan", 0),
            ("plan", 1),
        ):  # fmt: skip
            array = getattr(inputs, name).copy()
            array[index] = 255 - array[index] if array.dtype == np.uint8 else array[index] - 0.5
            found = golden.run_rollout(backend, golden.RolloutInputs(**{**vars(inputs), name: array}))
            tolerance = bundle.manifest.golden.latents_tolerance
            assert max(golden.deviation(found, expected).latents) > tolerance, (name, index)


def test_a_step_that_is_nan_is_infinitely_wrong() -> None:
    """Wherever it is: max() passes over NaN behind a number."""
    expected, noise = np.ones((2, 2, 3), np.float32), np.zeros((2, 3), np.float32)
    found = expected.copy()
    found[0, 1, 2] = np.nan
    assert golden.step_errors(found, expected, noise) == [0.0, np.inf, 0.0, 0.0]


@pytest.mark.parametrize("graph", ["encode", "remember", "append", "step_0", "step_1"])
def test_another_answer_of_any_graph_is_refused(
    untrained_bundle: Path, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the backend loads."""
    compute_differently(graph, monkeypatch)
    with pytest.raises(
        BundleError, match=r"golden vectors, batch 1: expected at most .*found encode .*; append, step_1 "
    ):
        OrtBackend(load_bundle(untrained_bundle)).load()


@pytest.mark.parametrize("graph", ["append_x8", "step_1_x8"])
def test_another_answer_for_candidates_is_refused(
    untrained_bundle: Path, graph: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When somebody asks for candidates, and every time."""
    compute_differently(graph, monkeypatch)
    with OrtBackend(load_bundle(untrained_bundle)) as backend:
        for _ in range(2):
            with pytest.raises(BundleError, match="golden vectors, batch 8: expected at most"):
                backend.rollout(8)
        assert backend.rollout().batch == 1


def test_a_check_that_was_cut_short_is_made_again(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OrtBackend(load_bundle(untrained_bundle)) as backend:
        with monkeypatch.context() as patch:
            patch.setattr(OrtBackend, "run", interrupted)
            with pytest.raises(KeyboardInterrupt):
                backend.rollout(8)
        compute_differently("step_1_x8", monkeypatch)
        with pytest.raises(BundleError, match="golden vectors, batch 8: expected at most"):
            backend.rollout(8)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interruption_while_loading_leaves_nothing_open(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = OrtBackend(load_bundle(untrained_bundle))
    monkeypatch.setattr(OrtBackend, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backend.load()
    assert not backend._sessions


def test_a_file_is_replaced_whole_or_not_at_all(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nobody who opened it before sees it change."""
    bundle = load_bundle(bundle_copy)
    path, names = bundle_copy / "manifest.json", set(bundle_copy.iterdir())
    before = path.read_bytes()
    write_bytes = Path.write_bytes

    def torn(target: Path, raw: bytes) -> int:
        write_bytes(target, raw[: len(raw) // 2])
        raise OSError("no space left on device")

    changed = replace(bundle.manifest, provenance={})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", torn)
        patch.setattr(Path, "write_text", lambda target, text: torn(target, text.encode()))
        with pytest.raises(OSError, match="no space left"):
            write_manifest(bundle_copy, changed)
    assert path.read_bytes() == before
    with path.open("rb") as reader:
        write_manifest(bundle_copy, changed)
        assert reader.read() == before
    assert path.read_bytes() != before
    assert set(bundle_copy.iterdir()) == names


def test_graphs_of_candidates_wait_until_they_are_needed(untrained_bundle: Path, opened: list[str]) -> None:
    with OrtBackend(load_bundle(untrained_bundle)) as backend:
        backend.warmup()
        assert sorted(opened) == ["append", "decode", "encode", "remember", "step_0", "step_1"]
        backend.rollout(8)
        backend.rollout(8)
    assert sorted(opened[6:]) == ["append_x8", "step_0_x8", "step_1_x8"]


def compute_differently(graph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that computes one graph a little differently, and all others as exported."""
    run = OrtBackend.run

    def run_differently(backend: OrtBackend, name: str, inputs: Any) -> Any:
        outputs = run(backend, name, inputs)
        for value in outputs.values():
            value.numpy()[...] *= 1.05 if name == graph else 1.0
        return outputs

    monkeypatch.setattr(OrtBackend, "run", run_differently)
