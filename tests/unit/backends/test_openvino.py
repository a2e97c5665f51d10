"""OpenVINO beside ONNX Runtime: the same answers, in the precision and with the threads that it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from openvino import properties
from openvino.properties import hint

from astra_ros.backends import golden
from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle, BundleError, describe_file, load_bundle, write_manifest
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.backends.openvino_compiler import Compiler
from astra_ros.backends.openvino_runnable import to_array, to_tensor
from astra_ros.backends.ort import OrtBackend
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.history.memory import HistorySlots
from tests.bundle_fixture import LATENT
from tests.unit.backends.processor import has_bf16

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(scope="module")
def inputs(bundle: Bundle) -> RolloutInputs:
    return golden.load(bundle.file("golden.npz"), bundle.manifest)[0]


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Iterator[Backend]:
    with OrtBackend(bundle, 1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[OpenVinoBackend]:
    with OpenVinoBackend(bundle, 1) as loaded:
        yield loaded


@pytest.mark.parametrize("batch", [1, 8])
def test_it_answers_as_onnxruntime(
    backend: Backend,
    reference: Backend,
    inputs: RolloutInputs,
    batch: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = golden.run_rollout(reference, inputs, batch)
    difference = golden.deviation(golden.run_rollout(backend, inputs, batch), expected)
    with capsys.disabled():
        print(f"\nopenvino fp32 - onnxruntime, batch {batch}: latents {max(difference.latents):.1e}")
    assert max(difference.latents) <= TOLERANCE
    assert difference.pixels <= 1


@has_bf16
@pytest.mark.parametrize("batch", [1, 8])
def test_bfloat16_is_within_its_own_tolerance_and_not_float32(
    bundle: Bundle, reference: Backend, inputs: RolloutInputs, batch: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = golden.run_rollout(reference, inputs, batch)
    with OpenVinoBackend(bundle, 1, "bf16") as backend:
        found = golden.run_rollout(backend, inputs, batch)
    errors = golden.relative_errors(found, expected, inputs)
    with capsys.disabled():
        print(f"\nopenvino bf16 - onnxruntime, batch {batch}: relative error {max(errors.values()):.1e}")
    assert max(errors.values()) <= bundle.manifest.golden.reduced_tolerance
    assert errors["step_0"] > 1e-5


@has_bf16
def test_bfloat16_beyond_its_tolerance_is_refused(bundle_copy: Path) -> None:
    manifest = load_bundle(bundle_copy).manifest
    strict = replace(manifest, golden=replace(manifest.golden, reduced_tolerance=1e-6))
    with pytest.raises(
        BundleError,
        match=r"golden vectors, batch 1: expected a relative error of at most 1e-06, found encode .*; decode .* with"
        r" openvino \S+ in bf16 on cpu; choose another backend or precision",
    ):
        OpenVinoBackend(write_manifest(bundle_copy, strict), 1, "bf16").load()


def test_precisions_are_those_of_the_processor(bundle: Bundle) -> None:
    native = ov.Core().get_property("CPU", properties.device.capabilities())
    assert OpenVinoBackend.precisions(bundle) == (("fp32", "bf16") if "BF16" in native else ("fp32",))


def test_running_in_another_precision_than_asked_for_is_an_error(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hint is not obeyed by every processor."""
    options = Compiler.options
    monkeypatch.setattr(
        Compiler, "options", lambda self: {**options(self), hint.inference_precision(): ov.Type.f32}
    )
    with pytest.raises(
        BackendError, match=r"precision: expected bf16 in encode, found {'f32': \d+} with openvino .*; choose"
    ):
        OpenVinoBackend(bundle, 1, "bf16").load()


def test_threads_are_those_asked_for_and_tied_to_no_core(backend: OpenVinoBackend) -> None:
    for runnable in backend._runnables.values():
        compiled = runnable.request.get_compiled_model()
        assert compiled.get_property(properties.inference_num_threads()) == 1
        assert compiled.get_property(properties.num_streams()) == 1
        assert not compiled.get_property(hint.enable_cpu_pinning())


def test_values_stay_in_the_runtimes_memory(backend: OpenVinoBackend, inputs: RolloutInputs) -> None:
    """What one graph returns is what the next one reads, not a copy."""
    noise = np.zeros(backend.specs["step_0"].inputs["noisy_latents"], np.float32)
    given: dict[str, Any] = {
        name: np.zeros(shape, np.float32) for name, shape in backend.specs["step_0"].inputs.items()
    }

    def bound(graph: str) -> int:
        request = backend._runnables[graph].request
        return int(request.get_input_tensor(0).data.ctypes.data)

    first = backend.run("step_0", {**given, "noisy_latents": noise})["latents"]
    assert bound("step_0") == noise.ctypes.data
    backend.run("step_1", {**given, "noisy_latents": first})
    assert bound("step_1") == first.data.ctypes.data


@has_bf16
def test_keys_and_values_cross_in_bfloat16(bundle: Bundle, inputs: RolloutInputs) -> None:
    """As they are computed; numbers that come from elsewhere are rounded on their way in."""
    with OpenVinoBackend(bundle, 1, "bf16") as backend:
        rng = np.random.default_rng(0)
        past = backend.remember(
            HistorySlots(rng.standard_normal((NUM_SLOTS, *LATENT), np.float32), inputs.actions, inputs.mask)
        )
        assert {name: value.element_type for name, value in past.cache.items()} == {
            "history_keys": ov.Type.bf16,
            "history_values": ov.Type.bf16,
            "history_bias": ov.Type.f32,
        }
        assert backend.repeat(past.cache["history_keys"], 3, 1).element_type == ov.Type.bf16
        shapes = backend.specs["step_0"].inputs
        given = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        fetched = {name: backend.fetch(value) for name, value in past.cache.items()}
        found, expected = (
            backend.fetch(backend.run("step_0", {**given, **cache})["latents"]).copy()
            for cache in (past.cache, fetched)
        )
        np.testing.assert_array_equal(found, expected)


def test_bfloat16_is_the_nearest_to_float32() -> None:
    numbers = np.array([0, 1, -2.5, 1 + 2**-9, 1 + 2**-8, 1 + 3 * 2**-8, 1e38, -1e-38], np.float32)
    found = to_array(to_tensor(numbers, ov.Type.bf16))
    # Of two as near the one whose last bit is 0.
    np.testing.assert_array_equal(found[:6], np.array([0, 1, -2.5, 1, 1, 1 + 2**-6], np.float32))
    np.testing.assert_allclose(found, numbers, rtol=2**-8)
    np.testing.assert_array_equal(found, torch.from_numpy(numbers).bfloat16().float().numpy())


def swap_steps(root: Path) -> None:
    shutil.copy(root / "decode.onnx", root / "step_0.onnx")


def truncate(root: Path) -> None:
    (root / "step_0.onnx").write_bytes((root / "step_0.onnx").read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (swap_steps, r"step_0 inputs: expected float32 {'noisy_latents'.*found {.*; export the bundle again"),
        (truncate, r"step_0.onnx: openvino \S+ cannot open it \(.*"),
    ],
)
def test_a_graph_that_is_another_or_none_is_refused(
    bundle_copy: Path, damage: Callable[[Path], None], message: str
) -> None:
    """Though the manifest's digests are right."""
    manifest = load_bundle(bundle_copy).manifest
    damage(bundle_copy)
    files = {name: describe_file(bundle_copy / name) for name in manifest.files}
    backend = OpenVinoBackend(write_manifest(bundle_copy, replace(manifest, files=files)), 1)
    with pytest.raises(BundleError, match=message) as refusal:
        backend.load()
    assert "\n" not in str(refusal.value)


IMPORT = """
import os, sys
forks = []
os.register_at_fork(before=lambda: forks.append(1))
import astra_ros.backends.openvino
import openvino
assert openvino.Core().available_devices
assert not forks, "its import made a process"
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""


def test_openvino_sends_no_usage_data_from_a_robot(tmp_path: Path) -> None:
    """Nor asks at its first start, in the home folder, whether it may."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert not [*tmp_path.iterdir()]
