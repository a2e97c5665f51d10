"""What every backend is: the life-cycle, and answers that depend on nothing but the question."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends import golden
from astra_ros.backends.base import Backend, Past
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.golden import RolloutInputs
from astra_ros.backends.openvino import OpenVinoBackend
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


BackendClass = type[OrtBackend] | type[OpenVinoBackend]


@pytest.fixture(scope="module", params=[OrtBackend, OpenVinoBackend], ids=lambda kind: kind.name)
def backend_class(request: pytest.FixtureRequest) -> BackendClass:
    found: BackendClass = request.param
    return found


@pytest.fixture(scope="module")
def backend(bundle: Bundle, backend_class: BackendClass) -> Iterator[Backend]:
    """Its golden vectors have been checked."""
    with backend_class(bundle, 1) as loaded:
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
def test_use_before_load_is_an_error(
    bundle: Bundle, backend_class: BackendClass, inputs: RolloutInputs, call: str
) -> None:
    with pytest.raises(
        RuntimeError,
        match=rf"backend '{backend_class.name}': expected load\(\) first, found it not loaded or closed",
    ):
        CALLS[call](backend_class(bundle), inputs)


def test_use_after_close_is_an_error(
    bundle: Bundle, backend_class: BackendClass, inputs: RolloutInputs
) -> None:
    with backend_class(bundle) as backend:
        pass
    for call in CALLS.values():
        with pytest.raises(RuntimeError, match="call load"):
            call(backend, inputs)


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
    with pytest.raises(
        ValueError, match=r"batch: expected one of \(1, 4, 8\) .*found 3; export .*--candidates"
    ):
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


def test_load_and_close_twice(bundle: Bundle, backend_class: BackendClass, inputs: RolloutInputs) -> None:
    backend = backend_class(bundle)
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


def test_results_are_the_callers_own(backend: Backend, inputs: RolloutInputs) -> None:
    first = backend.encode(inputs.pixels[0])
    kept = first.copy()
    backend.encode(inputs.pixels[1])
    assert np.array_equal(first, kept)
    first[:] = 0
    assert np.array_equal(backend.encode(inputs.pixels[0]), kept)


def test_results_go_where_they_are_asked_to(backend: Backend, inputs: RolloutInputs) -> None:
    latents, frames = np.empty(LATENT, np.float32), np.empty((CHUNK, HEIGHT, WIDTH, 3), np.uint8)
    assert backend.encode(inputs.pixels[0], out=latents) is latents
    assert np.array_equal(latents, backend.encode(inputs.pixels[0]))
    assert backend.decode(inputs.noise[0], out=frames) is frames
    assert np.array_equal(frames, backend.decode(inputs.noise[0]))


def test_a_past_outlives_the_next_one(backend: Backend, inputs: RolloutInputs) -> None:
    """And what another rollout made of it."""
    one = slots(inputs)
    other = replace(one, latents=-one.latents)
    past, rollout, elsewhere = backend.remember(one), backend.rollout(), backend.rollout()
    rollout.begin(past)
    expected = predict(rollout, inputs).copy()
    rollout.append(expected, inputs.plan[:1])
    after = predict(rollout, inputs).copy()
    elsewhere.begin(backend.remember(other))
    rollout.begin(past)
    assert np.array_equal(predict(rollout, inputs), expected)
    rollout.append(expected, inputs.plan[:1])
    elsewhere.append(-expected, inputs.plan[:1])
    assert np.array_equal(predict(rollout, inputs), after)
    assert not np.array_equal(predict(elsewhere, inputs), after)


PICTURE_BYTES = HEIGHT * WIDTH * 3


@pytest.mark.parametrize("batch", [1, 8])
def test_no_picture_is_allocated_while_the_robot_moves(
    backend: Backend, inputs: RolloutInputs, batch: int
) -> None:
    """Python's allocations of a tick, all together, against one picture as the camera sends it.

    Noise and plans lie as planners have them: one noise for all candidates.
    """
    rollout, past_slots = backend.rollout(batch), slots(inputs)
    latents, frames = np.empty(LATENT, np.float32), np.empty((CHUNK, HEIGHT, WIDTH, 3), np.uint8)
    noise = np.broadcast_to(inputs.noise[:, None], (2, batch, *inputs.noise.shape[1:]))
    plan = np.broadcast_to(inputs.plan[:, None], (2, batch, *inputs.plan.shape[1:]))

    def tick() -> None:
        backend.encode(inputs.pixels[0], out=latents)
        rollout.begin(backend.remember(past_slots))
        first = rollout.sample(noise[0], plan[0])
        backend.decode(first[0], out=frames)
        rollout.append(first, plan[0])
        backend.decode(rollout.sample(noise[1], plan[1])[-1], out=frames)

    def allocated(act: Callable[[], object]) -> int:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        act()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        for _ in range(2):
            tick()
        found = allocated(tick)
        assert allocated(lambda: np.empty(PICTURE_BYTES, np.uint8)) >= PICTURE_BYTES  # it would be seen
    finally:
        tracemalloc.stop()
    print(f"\n{backend.name}, {batch} candidates: {found} bytes in a tick; a picture has {PICTURE_BYTES}")
    assert found < PICTURE_BYTES


def test_two_loads_give_the_same_bytes(
    bundle: Bundle, backend_class: BackendClass, backend: Backend, inputs: RolloutInputs
) -> None:
    with backend_class(bundle, 1) as other:
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
