"""A memory that ends in what the model itself predicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astra_ros.data.segments import SEGMENT_TENSORS, SegmentBatch, SegmentConfig
from astra_ros.denoiser.dit import Denoiser
from astra_ros.training.config import OptimisationConfig
from astra_ros.training.denoiser import DenoiserStep
from astra_ros.training.draw import Draw
from astra_ros.training.integration import integrate
from astra_ros.training.objective import Drawn, ObjectiveConfig, denoising_loss
from astra_ros.training.own_memory import require_whole_share, with_own_chunk
from tests.unit.training.toy_denoiser import toy_checkpoint, toy_sampler, toy_specs

SIGMAS = (1.0, 0.75, 0.0)
BATCH, OWN = 6, 3


@pytest.fixture
def denoiser() -> Denoiser:
    return toy_checkpoint(toy_specs()).denoiser


def drawn() -> tuple[SegmentBatch, SegmentBatch, torch.Tensor]:
    """Segments, those a chunk earlier of the first ones, and noise for them."""
    sampler = toy_sampler(toy_specs(), SegmentConfig(own=OWN / BATCH))
    segments, earlier = sampler.draw(BATCH, np.random.default_rng(0)).split(BATCH)
    noise = torch.randn(earlier.latents.shape, generator=torch.Generator().manual_seed(0))
    return segments, earlier, noise


def test_the_newest_chunk_is_what_the_model_makes_of_the_memory_before_it(denoiser: Denoiser) -> None:
    segments, earlier, noise = drawn()
    found = with_own_chunk(denoiser, segments, earlier, noise, SIGMAS)
    with torch.no_grad():
        expected = integrate(denoiser, earlier, noise, SIGMAS)
    assert not torch.allclose(expected, segments.history_latents[:OWN, -8:], atol=0.1)
    torch.testing.assert_close(found.history_latents[:OWN, -8:], expected)
    torch.testing.assert_close(found.history_latents[:OWN, :-8], segments.history_latents[:OWN, :-8])
    torch.testing.assert_close(found.history_latents[OWN:], segments.history_latents[OWN:])
    for name in ("history_actions", "history_mask", "latents", "actions", "space"):
        assert torch.equal(getattr(found, name), getattr(segments, name))


def test_what_has_no_chunk_before_it_stays_as_recorded(denoiser: Denoiser) -> None:
    segments, earlier, noise = drawn()
    earlier.history_mask[1] = 0.0
    found = with_own_chunk(denoiser, segments, earlier, noise, SIGMAS)
    assert torch.equal(found.history_latents[1], segments.history_latents[1])
    assert not torch.equal(found.history_latents[0], segments.history_latents[0])


@pytest.mark.parametrize(
    ("own", "batch", "micro_batches", "processes", "expected"),
    [
        (
            0.5,
            1,
            1,
            1,
            "1 segments, found 0.5 of them = 0.5; set segments.own=1, or training.batch to a multiple of 2",
        ),
        (0.5, 16, 16, 1, "1 segments, .*; set segments.own=1, or training.batch to a multiple of 32"),
        (0.3, 16, 2, 4, "4 segments, .* = 1.2; set segments.own=0.25, or training.batch to a multiple of 40"),
        (
            0.01,
            16,
            1,
            1,
            "16 segments, .* = 0.16; set segments.own=0.0625, or training.batch to a multiple of 100",
        ),
    ],
)
def test_a_share_that_no_micro_batch_has_is_refused(
    own: float, batch: int, micro_batches: int, processes: int, expected: str
) -> None:
    training = OptimisationConfig(batch=batch, micro_batches=micro_batches)
    with pytest.raises(
        ValueError, match=rf"segments.own: expected a whole number of a micro-batch's {expected}$"
    ):
        require_whole_share(own, training, processes)


@pytest.mark.parametrize(
    ("own", "batch", "processes"), [(0.0, 1, 1), (1.0, 1, 1), (0.5, 128, 2), (0.3333, 6, 1), (0.7, 10, 1)]
)
def test_a_share_that_every_micro_batch_has_is_taken(own: float, batch: int, processes: int) -> None:
    require_whole_share(own, OptimisationConfig(batch=batch), processes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_weight_still_learns(denoiser: Denoiser, dtype: torch.dtype) -> None:
    """Under autocast, too, whose cache might keep weights that were cast where no gradient was wanted."""
    sampler = toy_sampler(toy_specs(), SegmentConfig(own=OWN / BATCH))
    step = DenoiserStep(denoiser, sampler, ObjectiveConfig())
    inputs = step.inputs(Draw((0,), 0, 0), BATCH)
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        step(*inputs)["loss"].backward()
    learns = {name for name, p in denoiser.named_parameters() if p.grad is not None and p.grad.any()}
    plain = toy_checkpoint(toy_specs()).denoiser
    recorded = DenoiserStep(plain, toy_sampler(toy_specs()), ObjectiveConfig())
    recorded(*recorded.inputs(Draw((0,), 0, 0), BATCH))["loss"].backward()
    assert learns >= {name for name, p in plain.named_parameters() if p.grad is not None and p.grad.any()}


def test_the_loss_is_that_of_the_chunk_after_such_a_memory(denoiser: Denoiser) -> None:
    config = ObjectiveConfig()
    step = DenoiserStep(denoiser, toy_sampler(toy_specs(), SegmentConfig(own=OWN / BATCH)), config)
    inputs = step.inputs(Draw((0,), 0, 0), BATCH)
    count = SEGMENT_TENSORS
    segments, earlier = SegmentBatch(*inputs[:count]), SegmentBatch(*inputs[count : 2 * count])
    *rest, noise = inputs[2 * count :]
    remembered = with_own_chunk(denoiser, segments, earlier, noise, SIGMAS)
    expected = denoising_loss(denoiser, remembered, Drawn(*rest), config).flow
    torch.testing.assert_close(step(*inputs)["flow"], expected)
    assert not torch.allclose(denoising_loss(denoiser, segments, Drawn(*rest), config).flow, expected)
