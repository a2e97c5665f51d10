"""The life-cycle of a backend, and how one is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from astra_ros.backends import factory, golden
from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.factory import open_backend
from astra_ros.backends.golden import ChunkInputs
from astra_ros.backends.ort import OrtBackend
from astra_ros.history.memory import HistorySlots


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(scope="module")
def inputs(bundle: Bundle) -> ChunkInputs:
    return golden.load(bundle.file("golden.npz"), bundle.manifest)[0]


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[Backend]:
    with OrtBackend(bundle) as loaded:
        yield loaded


Call = Callable[[Backend, ChunkInputs], object]
CALLS: dict[str, Call] = {
    "encode": lambda backend, inputs: backend.encode(inputs.pixels[0]),
    "remember": lambda backend, inputs: backend.remember(
        HistorySlots(np.zeros((4, 4, 4, 4), np.float32), inputs.positions, inputs.mask)
    ),
    "denoise": lambda backend, inputs: backend.denoise(0, inputs.noise, inputs.plan),
    "decode": lambda backend, inputs: backend.decode(inputs.noise),
    "warmup": lambda backend, _: backend.warmup(),
}


@pytest.mark.parametrize("call", CALLS)
def test_use_before_load_and_after_close_is_an_error(bundle: Bundle, inputs: ChunkInputs, call: str) -> None:
    backend = OrtBackend(bundle)
    with pytest.raises(
        RuntimeError, match=r"backend 'onnxruntime': expected load\(\) first, found it not loaded or closed"
    ):
        CALLS[call](backend, inputs)
    backend.load()
    backend.close()
    with pytest.raises(RuntimeError, match="call load"):
        CALLS[call](backend, inputs)


def test_denoise_needs_a_history(bundle: Bundle, inputs: ChunkInputs) -> None:
    with OrtBackend(bundle) as backend:
        for _ in range(2):  # loading and warming up leave none behind
            with pytest.raises(RuntimeError, match=r"expected remember\(\) before denoise\(0\)"):
                backend.denoise(0, inputs.noise, inputs.plan)
            backend.warmup()


def test_load_and_close_twice(bundle: Bundle, inputs: ChunkInputs) -> None:
    backend = OrtBackend(bundle)
    backend.close()
    for _ in range(2):
        backend.load()
        backend.load()
        assert backend.encode(inputs.pixels[0]).shape == (4, 4, 4)
        backend.close()
        backend.close()


def test_shapes_and_types(backend: Backend, inputs: ChunkInputs) -> None:
    outputs = golden.run_chunk(backend, inputs)
    assert (outputs.history.shape, outputs.history.dtype) == ((4, 4, 4, 4), np.float32)
    assert (outputs.steps.shape, outputs.steps.dtype) == ((2, 2, 4, 4, 4), np.float32)
    assert (outputs.frames.shape, outputs.frames.dtype) == ((2, 32, 32, 3), np.uint8)


def test_what_a_backend_says_of_itself(backend: Backend) -> None:
    assert (backend.name, backend.device, backend.precision) == ("onnxruntime", "cpu", "fp32")
    assert backend.version == f"onnxruntime {onnxruntime.__version__}"


def test_results_are_the_callers_own(backend: Backend, inputs: ChunkInputs) -> None:
    first = backend.encode(inputs.pixels[0])
    kept = first.copy()
    backend.encode(inputs.pixels[1])
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(backend.encode(inputs.pixels[0]), kept)


def test_two_loads_give_the_same_bytes(bundle: Bundle, backend: Backend, inputs: ChunkInputs) -> None:
    with OrtBackend(bundle) as other:
        for a, b in zip(
            vars(golden.run_chunk(backend, inputs)).values(),
            vars(golden.run_chunk(other, inputs)).values(),
            strict=True,
        ):
            assert a.tobytes() == b.tobytes()


def test_an_empty_slot_is_invisible(backend: Backend, inputs: ChunkInputs) -> None:
    pixels = inputs.pixels.copy()
    pixels[0] = 255 - pixels[0]
    assert inputs.mask[0] == 0
    hidden = golden.run_chunk(backend, inputs)
    changed = golden.run_chunk(backend, ChunkInputs(**{**vars(inputs), "pixels": pixels}))
    assert np.array_equal(hidden.steps, changed.steps)


def test_a_picture_of_another_size_is_refused(backend: Backend) -> None:
    with pytest.raises(
        ValueError, match=r"pixels: expected \(32, 32, 3\), found \(64, 48, 3\); use .*fit\(rgb, 32, 32\)"
    ):
        backend.encode(np.zeros((64, 48, 3), np.uint8))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_getting_another_provider_than_asked_for_is_an_error(bundle: Bundle) -> None:
    backend = OrtBackend(bundle, provider="CUDAExecutionProvider")
    with pytest.raises(
        BackendError, match="provider: expected CUDAExecutionProvider, found CPUExecutionProvider"
    ):
        backend.load()


def test_auto_takes_the_first_installed_and_says_why(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), open_backend(bundle) as backend:
        assert backend.name == "onnxruntime"
    assert "backend onnxruntime (auto: first installed of ['onnxruntime'], onnxruntime" in caplog.text


def test_a_name_is_that_backend(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), open_backend(bundle, "onnxruntime", num_threads=1) as backend:
        assert backend.name == "onnxruntime"
    assert "asked for by name" in caplog.text
    assert "1 threads" in caplog.text


@pytest.mark.parametrize("name", ["openvino", "tensorrt", "torch", "ORT", ""])
def test_other_names_are_refused_and_never_replaced(bundle: Bundle, name: str) -> None:
    with pytest.raises(
        BackendError, match=rf"backend '{name}': expected one of \['auto', 'onnxruntime'\].*pip install"
    ):
        open_backend(bundle, name)


@pytest.mark.parametrize("name", ["auto", "onnxruntime"])
def test_a_missing_runtime_is_named(bundle: Bundle, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "find_spec", lambda _: None)
    with pytest.raises(BackendError, match="pip install onnxruntime"):
        open_backend(bundle, name)
