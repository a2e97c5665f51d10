"""Candidates in several smaller batches at once: the same answers, a thread for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openvino import properties

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle, load_bundle
from astra_ros.backends.openvino import OpenVinoBackend
from astra_ros.backends.openvino_runnable import Lane
from astra_ros.backends.ort import OrtBackend
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.history.memory import HistorySlots
from astra_ros.rollout.candidates import Candidates
from astra_ros.types import FloatArray
from tests.bundle_fixture import CHUNK, LATENT

THREADS = 2


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return load_bundle(untrained_bundle)


@pytest.fixture(scope="module")
def backend(bundle: Bundle) -> Iterator[OpenVinoBackend]:
    with OpenVinoBackend(bundle, THREADS) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> Iterator[Backend]:
    with OrtBackend(bundle, 1) as loaded:
        yield loaded


def futures(backend: Backend, count: int, seed: int = 1) -> FloatArray:
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((NUM_SLOTS, *LATENT), np.float32)
    slots = HistorySlots(latents, np.zeros((NUM_SLOTS, 8), np.float32), np.ones(NUM_SLOTS, np.float32))
    plans = 0.3 * rng.standard_normal((count, CHUNK + 1, 8)).astype(np.float32)
    found = Candidates(backend).roll_out(backend.remember(slots), plans, seed=4)
    return np.concatenate([one.latents for one in found if one])


@pytest.mark.parametrize(("threads", "part"), [(1, 8), (2, 4), (5, 4)])
def test_a_part_of_the_candidates_for_a_thread(bundle: Bundle, threads: int, part: int) -> None:
    backend = OpenVinoBackend(bundle, threads)
    assert [backend.graphs_batch(batch) for batch in bundle.manifest.batches] == [1, 4, part]


@pytest.mark.parametrize("count", [1, 4, 5, 8, 20])
def test_every_candidate_gets_its_own_future(
    backend: OpenVinoBackend, reference: Backend, count: int
) -> None:
    found, expected = (futures(each, count) for each in (backend, reference))
    assert np.abs(found - expected).max() <= 1e-4
    assert len({future.tobytes() for future in found}) == count


def test_graphs_for_all_of_them_together_are_not_opened(bundle: Bundle) -> None:
    with OpenVinoBackend(bundle, THREADS) as backend:
        list(backend.prepare(8))
        opened = dict(backend._runnables)
    assert {"append_x4", "step_0_x4", "step_1_x4"} <= opened.keys()
    assert not any(graph.endswith("_x8") for graph in opened)
    for graph, at_once in (("step_0", 1), ("step_0_x4", THREADS)):
        compiled = opened[graph].request.get_compiled_model()
        assert compiled.get_property(properties.num_streams()) == at_once
        assert compiled.get_property(properties.inference_num_threads()) == THREADS


def test_one_thread_runs_them_together(bundle: Bundle) -> None:
    with OpenVinoBackend(bundle, 1) as backend:
        list(backend.prepare(8))
        assert "step_0_x8" in backend._runnables


def test_when_one_part_fails_the_error_is_told_and_the_next_question_answered(
    backend: OpenVinoBackend, reference: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = futures(reference, 8)
    futures(backend, 8)

    def fail(self: Lane, graph: str, inputs: dict[str, Any]) -> None:
        raise MemoryError(graph)

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "run", fail)
        with pytest.raises(MemoryError, match="step_0_x4"):
            futures(backend, 8)
    assert np.abs(futures(backend, 8) - expected).max() <= 1e-4


def test_a_chunk_may_be_appended_at_any_time(backend: OpenVinoBackend, reference: Backend) -> None:
    """Though the parts do it together with what comes next."""
    rng = np.random.default_rng(2)
    latents = rng.standard_normal((NUM_SLOTS, *LATENT), np.float32)
    slots = HistorySlots(latents, np.zeros((NUM_SLOTS, 8), np.float32), np.ones(NUM_SLOTS, np.float32))
    noise, seen, other = rng.standard_normal((3, 8, CHUNK, *LATENT), np.float32)
    reused = np.empty_like(seen)
    plan = 0.3 * rng.standard_normal((8, CHUNK, 8)).astype(np.float32)
    found = []
    for each in (backend, reference):
        rollout = each.rollout(8)
        rollout.begin(each.remember(slots))
        rollout.append(other, plan)
        rollout.begin(each.remember(slots))  # what was to be appended belonged to the past before
        for chunk in (seen, other):
            reused[:] = chunk
            rollout.append(reused, plan)
        reused[:] = 0  # the caller's memory is free again
        found.append((rollout.denoise(0, noise, plan).copy(), rollout.sample(noise, plan).copy()))
    for own, expected in zip(*found, strict=True):
        assert np.abs(own - expected).max() <= 1e-4


def test_parts_that_have_not_begun_have_nothing_to_append_to(bundle: Bundle) -> None:
    with OpenVinoBackend(bundle, THREADS) as backend:
        rollout = backend._new_rollout(8)
        with pytest.raises(RuntimeError, match=r"expected begin\(past\) before append\(\), found no history"):
            rollout.append(np.zeros((8, CHUNK, *LATENT), np.float32), np.zeros((8, CHUNK, 8), np.float32))


def test_a_chunk_of_another_size_leaves_what_is_to_be_appended(backend: OpenVinoBackend) -> None:
    rng = np.random.default_rng(3)
    latents = rng.standard_normal((NUM_SLOTS, *LATENT), np.float32)
    slots = HistorySlots(latents, np.zeros((NUM_SLOTS, 8), np.float32), np.ones(NUM_SLOTS, np.float32))
    noise, seen = rng.standard_normal((2, 8, CHUNK, *LATENT), np.float32)
    plan, rollout, found = np.zeros((8, CHUNK, 8), np.float32), backend.rollout(8), []
    for wrong in (False, True):
        rollout.begin(backend.remember(slots))
        rollout.append(seen, plan)
        if wrong:
            with pytest.raises(ValueError, match="equal division"):
                rollout.sample(noise[:7], plan)
        found.append(rollout.sample(noise, plan))
    np.testing.assert_array_equal(found[0], found[1])


def test_closed_it_leaves_no_thread_behind(bundle: Bundle) -> None:
    backend = OpenVinoBackend(bundle, THREADS)
    with backend:
        futures(backend, 8)
        pool = backend._pool
        assert pool is not None
    assert not backend._compiler._weights._known
    with pytest.raises(RuntimeError, match="shutdown"):
        pool.submit(print)
    with backend:  # may be opened again
        futures(backend, 8)
