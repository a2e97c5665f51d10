"""Many plans from one past: the same futures as one plan at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends.base import Past
from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.ort import OrtBackend
from astra_ros.denoiser.checkpoint import load_checkpoint
from astra_ros.denoiser.io import CACHE_AXES
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.history.memory import HistorySlots
from astra_ros.rollout.candidates import Candidates, Futures
from astra_ros.rollout.chunks import roll_out
from astra_ros.types import FloatArray
from export.contract import ExportConfig
from export.to_onnx import export_bundle
from tests.bundle_fixture import CHUNK, LATENT

HORIZON = 2 * CHUNK + 1


@pytest.fixture(scope="module")
def backend(untrained_bundle: Path) -> Iterator[OrtBackend]:
    with OrtBackend(load_bundle(untrained_bundle)) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def past(backend: OrtBackend) -> Past:
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((NUM_SLOTS, *LATENT), np.float32)
    return backend.remember(
        HistorySlots(latents, np.zeros((NUM_SLOTS, 8), np.float32), np.ones(NUM_SLOTS, np.float32))
    )


def plans(count: int) -> np.ndarray:
    return 0.3 * np.random.default_rng(1).standard_normal((count, HORIZON, 8)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 3, 8, 9, 20])
def test_every_plan_gets_the_future_it_has_alone(backend: OrtBackend, past: Past, count: int) -> None:
    found = [one for one in Candidates(backend).roll_out(past, plans(count), seed=4) if one]
    assert [index for one in found for index in one.plans] == list(range(count))
    for index, future in zip(range(count), np.concatenate([one.latents for one in found]), strict=True):
        alone = [
            chunk[0].copy()
            for chunk in roll_out(backend.rollout(), past, plans(count)[[index]], backend.manifest, seed=4)
        ]
        assert future.shape == (HORIZON, *LATENT)
        assert np.abs(future - np.concatenate(alone)[:HORIZON]).max() <= 1e-5


def test_a_past_is_repeated_once_for_all_batches(
    backend: OrtBackend, past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 plans begin at it three times; whoever changed what they share would change the answer of the next."""
    fresh = backend.remember(past.slots)
    candidates, counts = Candidates(backend), list[int]()
    list(candidates.prepare())
    repeat = OrtBackend.repeat

    def counted(asked: OrtBackend, value: object, count: int, axis: int) -> object:
        counts.append(count)
        return repeat(asked, value, count, axis)

    monkeypatch.setattr(OrtBackend, "repeat", counted)
    first, second = (
        np.concatenate([one.latents for one in candidates.roll_out(fresh, plans(20), seed=4) if one])
        for _ in range(2)
    )
    assert counts == [8] * len(CACHE_AXES)
    assert np.array_equal(first, second)


def test_equal_plans_have_equal_futures_whatever_runs_beside_them(backend: OrtBackend, past: Past) -> None:
    """Common noise: two places of a batch, and two batches, differ by their plans only."""
    twins = plans(10)
    twins[[3, 9]] = twins[0]
    found = np.concatenate([one.latents for one in Candidates(backend).roll_out(past, twins, seed=0) if one])
    assert np.abs(found[3] - found[0]).max() <= 1e-6
    assert np.abs(found[9] - found[0]).max() <= 1e-5
    assert np.abs(found[1] - found[0]).max() > 1e-2


def test_whoever_asks_first_may_stop_after_every_graph_that_is_opened(
    untrained_bundle: Path, past: Past, opened: list[str]
) -> None:
    with OrtBackend(load_bundle(untrained_bundle)) as backend:
        opened.clear()
        candidates = Candidates(backend)
        past = backend.remember(past.slots)
        counts = [len(opened) for _ in candidates.roll_out(past, plans(8), seed=0)]
        assert counts[:4] == [1, 2, 3, 3]
        assert opened == ["append_x8", "step_0_x8", "step_1_x8"]
        assert not list(candidates.prepare())
        assert not list(Candidates(backend).prepare())


def test_whoever_asks_may_stop_after_every_chunk(backend: OrtBackend, past: Past) -> None:
    candidates = Candidates(backend)
    for _ in candidates.prepare():
        pass
    kinds = [type(one) for one in candidates.roll_out(past, plans(9), seed=0)]
    assert kinds == [type(None), type(None), Futures] * 2
    next(candidates.roll_out(past, plans(9), seed=0))  # left half-way
    again = [one for one in candidates.roll_out(past, plans(9), seed=0) if one]
    first = [one for one in Candidates(backend).roll_out(past, plans(9), seed=0) if one]
    assert all(np.array_equal(a.latents, b.latents) for a, b in zip(again, first, strict=True))


def test_fewer_steps_go_straight_on_to_where_there_is_no_noise(backend: OrtBackend, past: Past) -> None:
    """x_0 = x_1 - v, and the first step ends at x_s = x_1 - (1 - s) v."""
    rollout, (plan,) = backend.rollout(), plans(1)[:, :CHUNK]
    rollout.begin(past)
    noise = np.random.default_rng(2).standard_normal((1, CHUNK, *LATENT), np.float32)
    level = backend.manifest.sigmas[1]
    velocity = (noise - rollout.denoise(0, noise, plan[None])) / (1 - level)
    found = rollout.sample(noise, plan[None], num_steps=1)
    assert np.abs(found - (noise - velocity)).max() <= 1e-4
    for count in (0, backend.manifest.num_steps, 99):
        whole = rollout.sample(noise, plan[None], count).copy()
        assert not np.allclose(whole, found)
        last = noise
        for k in range(backend.manifest.num_steps):
            last = rollout.denoise(k, last, plan[None]).copy()
        np.testing.assert_array_equal(whole, last)


class ReusingBackend(OrtBackend):
    """Fetches every value of a shape into the same memory, as `fetch` may."""

    def fetch(self, value: object) -> FloatArray:
        found = super().fetch(value)
        landing = self.__dict__.setdefault("_landing", {}).setdefault(found.shape, np.empty_like(found))
        landing[:] = found
        return landing


def test_futures_are_their_own_whatever_the_backend_answers_in_between(untrained_bundle: Path) -> None:
    """A node predicts for the camera after each chunk of a question: graphs of the same size, so the same memory."""
    latents = np.random.default_rng(0).standard_normal((2, NUM_SLOTS, *LATENT), np.float32)
    blank = np.zeros((NUM_SLOTS, 8), np.float32), np.ones(NUM_SLOTS, np.float32)
    with ReusingBackend(load_bundle(untrained_bundle)) as backend:
        past, other = (backend.remember(HistorySlots(one, *blank)) for one in latents)
        candidates = Candidates(backend)
        for count in (1, 8):
            (expected,) = (one for one in candidates.roll_out(past, plans(count), seed=4) if one)
            found = []
            for one in candidates.roll_out(past, plans(count), seed=4):
                list(roll_out(backend.rollout(count), other, -plans(count), backend.manifest, seed=5))
                found += [one] if one else []
            np.testing.assert_array_equal(found[0].latents, expected.latents)


def test_the_last_of_fewer_steps_needs_the_one_before_it(untrained_checkpoint: Path, tmp_path: Path) -> None:
    """Two of three: from the sample after the first to the one after the second, and on along that line."""
    export_bundle(
        load_checkpoint(untrained_checkpoint),
        tmp_path / "three",
        ExportConfig("panda", steps=3, candidates=1),
    )
    rng, (plan,) = np.random.default_rng(3), plans(1)[:, :CHUNK]
    with ReusingBackend(load_bundle(tmp_path / "three")) as backend:
        rollout = backend.rollout()
        latents = rng.standard_normal((NUM_SLOTS, *LATENT), np.float32)
        slots = HistorySlots(latents, np.zeros((NUM_SLOTS, 8), np.float32), np.ones(NUM_SLOTS, np.float32))
        rollout.begin(backend.remember(slots))
        noise = rng.standard_normal((1, CHUNK, *LATENT), np.float32)
        first = rollout.denoise(0, noise, plan[None]).copy()
        second = rollout.denoise(1, first, plan[None]).copy()
        _, high, low, _ = backend.manifest.sigmas
        found = rollout.sample(noise, plan[None], num_steps=2)
    assert np.abs(found - (first + (second - first) * high / (high - low))).max() <= 1e-4
    assert np.abs(found - second).max() > 1e-2
