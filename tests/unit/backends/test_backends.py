"""The life-cycle of a backend, and how one is chosen."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from astra_ros.backends import factory, golden
from astra_ros.backends.base import Backend, BackendError, Past
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.factory import open_backend
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.ort import OrtBackend
from astra_ros.backends.rollout import Rollout
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.history.memory import HistorySlots
from tests.bundle_fixture import CHUNK, HEIGHT, LATENT, WIDTH


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(scope="module")
def inputs(bundle: Bundle) -> RolloutInputs:
    return golden.load(bundle.file("golden.npz"), bundle.manifest)[0]


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[Backend]:
    with OrtBackend(bundle) as loaded:
        yield loaded


def slots(inputs: RolloutInputs) -> HistorySlots:
    """Latents of noise."""
    latents = np.random.default_rng(0).standard_normal((NUM_SLOTS, *LATENT), np.float32)
    return HistorySlots(latents, inputs.actions, inputs.mask)


Call = Callable[[Backend, RolloutInputs], object]
CALLS: dict[str, Call] = {
    "encode": lambda backend, inputs: backend.encode(inputs.pixels[0]),
    "remember": lambda backend, inputs: backend.remember(slots(inputs)),
    "rollout": lambda backend, _: backend.rollout(),
    "decode": lambda backend, inputs: backend.decode(inputs.noise[0]),
    "warmup": lambda backend, _: backend.warmup(),
}


@pytest.mark.parametrize("call", CALLS)
def test_use_before_load_and_after_close_is_an_error(
    bundle: Bundle, inputs: RolloutInputs, call: str
) -> None:
    backend = OrtBackend(bundle)
    with pytest.raises(
        RuntimeError, match=r"backend 'onnxruntime': expected load\(\) first, found it not loaded or closed"
    ):
        CALLS[call](backend, inputs)
    backend.load()
    backend.close()
    with pytest.raises(RuntimeError, match="call load"):
        CALLS[call](backend, inputs)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda rollout, noise, plan: rollout.denoise(0, noise, plan), r"denoise\(0\)"),
        (lambda rollout, noise, plan: rollout.sample(noise, plan), r"sample\(\)"),
        (lambda rollout, noise, plan: rollout.append(noise, plan), r"append\(\)"),
    ],
)
def test_a_rollout_needs_a_past(
    backend: Backend, inputs: RolloutInputs, call: Callable[..., object], name: str
) -> None:
    with pytest.raises(RuntimeError, match=rf"expected begin\(past\) before {name}, found no history"):
        call(backend.rollout(), inputs.noise[:1], inputs.plan[:1])


def test_a_batch_that_was_not_exported_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match=r"batch: expected one of \(1, 8\) .*found 3; export .*--candidates"):
        backend.rollout(3)


def test_candidates_side_by_side_are_what_each_is_alone(backend: Backend, inputs: RolloutInputs) -> None:
    """Eight plans over three chunks from one past, and each in a rollout of its own."""
    rng, past = np.random.default_rng(2), backend.remember(slots(inputs))
    noise = rng.standard_normal((3, 8, CHUNK, *LATENT), np.float32)
    steps = 0.1 * rng.standard_normal((3, 8, CHUNK, len(inputs.plan[0, 0])), np.float32)
    plans = past.slots.actions[-1] + np.cumsum(steps, axis=2)
    together = roll(backend.rollout(8), past, noise, plans)
    alone = [roll(backend.rollout(), past, noise[:, [b]], plans[:, [b]]) for b in range(8)]
    difference = np.abs(together - np.concatenate(alone, axis=1)).max()
    print(f"\nlargest difference between a batch and runs of one: {difference:.1e}")
    assert difference <= 1e-5
    assert np.abs(together[-1, 0] - together[-1, 1]).max() > 1e-2


def test_a_rollout_begins_again_as_if_it_were_new(backend: Backend, inputs: RolloutInputs) -> None:
    past, used = backend.remember(slots(inputs)), backend.rollout()
    noise, plans = inputs.noise[:, None], inputs.plan[:, None]
    first = roll(used, past, noise, plans)
    assert np.array_equal(roll(used, past, noise, plans), first)
    assert np.array_equal(roll(backend.rollout(), past, noise, plans), first)


def roll(rollout: Rollout, past: Past, noise: np.ndarray, plans: np.ndarray) -> np.ndarray:
    """(chunks, b, t, c, h, w)."""
    rollout.begin(past)
    chunks = []
    for one, plan in zip(noise, plans, strict=True):
        chunks.append(rollout.sample(one, plan).copy())
        rollout.append(chunks[-1], plan)
    return np.stack(chunks)


def test_load_and_close_twice(bundle: Bundle, inputs: RolloutInputs) -> None:
    backend = OrtBackend(bundle)
    backend.close()
    for _ in range(2):
        backend.load()
        backend.load()
        assert backend.encode(inputs.pixels[0]).shape == LATENT
        backend.close()
        backend.close()


def test_shapes_and_types(backend: Backend, inputs: RolloutInputs) -> None:
    outputs = golden.run_rollout(backend, inputs)
    assert (outputs.encoded.shape, outputs.encoded.dtype) == ((4, *LATENT), np.float32)
    assert (outputs.steps.shape, outputs.steps.dtype) == ((2, 2, *LATENT), np.float32)
    assert (outputs.frames.shape, outputs.frames.dtype) == ((CHUNK, HEIGHT, WIDTH, 3), np.uint8)


def test_what_a_backend_says_of_itself(backend: Backend) -> None:
    assert (backend.name, backend.device, backend.precision) == ("onnxruntime", "cpu", "fp32")
    assert backend.version == f"onnxruntime {onnxruntime.__version__}"


def test_results_are_the_callers_own(backend: Backend, inputs: RolloutInputs) -> None:
    first = backend.encode(inputs.pixels[0])
    kept = first.copy()
    backend.encode(inputs.pixels[1])
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(backend.encode(inputs.pixels[0]), kept)


def test_two_loads_give_the_same_bytes(bundle: Bundle, backend: Backend, inputs: RolloutInputs) -> None:
    with OrtBackend(bundle) as other:
        for a, b in zip(
            vars(golden.run_rollout(backend, inputs)).values(),
            vars(golden.run_rollout(other, inputs)).values(),
            strict=True,
        ):
            assert a.tobytes() == b.tobytes()


def predict(rollout: Rollout, inputs: RolloutInputs) -> np.ndarray:
    """The next chunk."""
    return rollout.sample(inputs.noise[:1], inputs.plan[:1])


def test_empty_slots_are_invisible(backend: Backend, inputs: RolloutInputs) -> None:
    full = slots(inputs)
    assert not inputs.mask[1:10].any()
    garbage = replace(full, latents=full.latents.copy(), actions=full.actions.copy())
    garbage.latents[1:10], garbage.actions[1:10] = 9.0, -9.0
    found, rollout = [], backend.rollout()
    for past in (full, garbage):
        rollout.begin(backend.remember(past))
        found.append(predict(rollout, inputs))
    assert np.array_equal(found[0], found[1])


def test_appending_is_remembering_the_moved_window_over_many_chunks(
    backend: Backend, inputs: RolloutInputs
) -> None:
    past, rng = slots(inputs), np.random.default_rng(1)
    appended, afresh = backend.rollout(), backend.rollout()
    appended.begin(backend.remember(past))
    for _ in range(8):
        steps = 0.1 * rng.standard_normal(inputs.plan[0].shape, np.float32)
        latents, actions = rng.standard_normal((CHUNK, *LATENT), np.float32), past.actions[-1] + steps
        past = past.append(latents, actions)
        appended.append(latents[None], actions[None])
        afresh.begin(backend.remember(past))
        assert np.abs(predict(appended, inputs) - predict(afresh, inputs)).max() <= 1e-5


def test_a_picture_of_another_size_is_refused(backend: Backend) -> None:
    with pytest.raises(
        ValueError, match=r"pixels: expected \(48, 64, 3\), found \(64, 48, 3\); use .*fit\(rgb, 48, 64\)"
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
