"""Segments drawn ahead are those drawn in place, whenever a run begins and whoever draws; the processes end with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.segments import SegmentBatch, SegmentConfig, SegmentSampler
from astra_ros.training.ahead import SegmentStream
from astra_ros.training.config import OptimisationConfig
from astra_ros.training.denoiser import DenoiserStep
from astra_ros.training.draw import Draw
from astra_ros.training.machine import drawing_workers, make_fabric
from astra_ros.training.objective import ObjectiveConfig
from astra_ros.training.optimizers import denoiser_optimizers
from astra_ros.training.progress import Progress
from astra_ros.training.trainer import Trainer
from tests.unit.training.toy_denoiser import toy_checkpoint, toy_sampler, toy_specs

BATCH, PARTS, WORKERS = 3, 4, 2


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return make_fabric("32-true")


@pytest.fixture(scope="module")
def specs() -> list[ActionSpec]:
    return toy_specs()


@pytest.fixture(scope="module")
def segments(specs: list[ActionSpec]) -> SegmentSampler:
    return toy_sampler(specs, SegmentConfig(elsewhere=0.5, varied=0.5))


def same(one: SegmentBatch, other: SegmentBatch) -> bool:
    pairs = zip(vars(one).values(), vars(other).values(), strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)


def draws(first: int, parts: Sequence[int]) -> list[Draw]:
    return [Draw((7, 1), step, part) for step in range(first, first + 4) for part in parts]


@pytest.mark.parametrize("first", [0, 5])
@pytest.mark.parametrize("rank", [0, 1])
def test_they_are_those_drawn_in_place(segments: SegmentSampler, first: int, rank: int) -> None:
    own = range(rank, PARTS, 2)
    stream, shared = SegmentStream(segments, WORKERS), torch.get_rng_state()
    with stream.ahead(draws(first, own), BATCH):
        assert len(active_children()) == WORKERS
        found = [stream.draw(BATCH, draw) for draw in draws(first, own)]
    assert not active_children()
    assert torch.equal(torch.get_rng_state(), shared)
    expected = [segments.draw(BATCH, draw.numpy) for draw in draws(first, own)]
    assert all(map(same, found, expected))
    assert not same(*found[:2])


def test_without_processes_they_are_drawn_in_place(segments: SegmentSampler) -> None:
    stream, (draw, again) = SegmentStream(segments, 0), (Draw((7, 1), 2, 0) for _ in range(2))
    with stream.ahead(iter([draw]), BATCH):
        assert not active_children()
        assert same(stream.draw(BATCH, draw), segments.draw(BATCH, again.numpy))


class Broken(SegmentSampler):
    """Cannot draw."""

    def draw(self, batch: int, rng: np.random.Generator) -> SegmentBatch:
        raise OSError(f"cannot read {batch} of {rng}")


def test_what_fails_in_another_process_is_told_and_ends_them_all(segments: SegmentSampler) -> None:
    broken = Broken(segments._sources, list(segments._space), segments._config)
    stream = SegmentStream(broken, WORKERS)
    with pytest.raises(OSError, match="cannot read 3"), stream.ahead(draws(0, range(PARTS)), BATCH):
        stream.draw(BATCH, Draw((7, 1), 0, 0))
    assert not active_children()


def trainer(fabric: Fabric, specs: list[ActionSpec], folder: Path, workers: int) -> Trainer:
    denoiser = toy_checkpoint(specs).denoiser
    return Trainer(
        fabric,
        DenoiserStep(denoiser, toy_sampler(specs), ObjectiveConfig(), workers),
        denoiser_optimizers(denoiser, denoiser.blocks),
        OptimisationConfig(batch=4, micro_batches=2, max_steps=6),
        minutes=1.0,
        seed=(7, 1),
        state_file=folder / "state.safetensors",
        progress=Progress("denoiser", None),
    )


def test_an_interrupted_training_goes_on_to_the_bit(
    fabric: Fabric, specs: list[ActionSpec], tmp_path: Path
) -> None:
    in_place = trainer(fabric, specs, tmp_path / "in place", 0)
    expected = in_place.run().state_dict()

    def interrupt(_: nn.Module, share: float) -> None:
        assert len(active_children()) == WORKERS
        if share > 0.3:
            raise KeyboardInterrupt

    first = trainer(fabric, specs, tmp_path / "ahead", WORKERS)
    with pytest.raises(KeyboardInterrupt):
        first.run(interrupt, every_s=0.0)
    assert not active_children()
    second = trainer(fabric, specs, tmp_path / "ahead", WORKERS)
    assert 0 < second._budget.steps < 6
    found = second.run().state_dict()
    assert not active_children()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [("cpu", 16, 1, 0), ("cuda", 16, 1, 13), ("cuda", 64, 1, 13), ("cuda", 16, 2, 5), ("cuda", 2, 1, 1)],
)
def test_the_device_says_who_draws(
    monkeypatch: pytest.MonkeyPatch, device: str, cores: int, processes: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert drawing_workers(torch.device(device)) == expected
