"""What the denoiser is given in training, and what it is judged by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from astra_ros.data.segments import SegmentBatch, SegmentConfig
from astra_ros.denoiser.dit import Chunk, Denoised, Denoiser, History
from astra_ros.history.layout import BLOCKS
from astra_ros.history.noise import HISTORY_NOISE, HistoryNoiseConfig
from astra_ros.training.draw import Draw
from astra_ros.training.objective import Drawn, Losses, ObjectiveConfig, denoising_loss, draw_for
from tests.unit.training.toy_denoiser import toy_checkpoint, toy_sampler, toy_specs

BATCH = 4
NOISY = HistoryNoiseConfig(light=0.0, heavy=1.0)


class Watched(nn.Module):
    """A denoiser that remembers what it was asked. sketch: what it draws; None: as it does."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self._denoiser = denoiser
        self.sketch: Tensor | None = None

    def remember(self, history: History, sigma: Tensor) -> Any:
        self.history, self.told = history, sigma
        return self._denoiser.remember(history, sigma)

    def denoise(self, chunk: Chunk, sigma: Tensor, cache: Any) -> Denoised:
        self.chunk, self.sigma = chunk, sigma
        answer = self._denoiser.denoise(chunk, sigma, cache)
        self.denoised = answer if self.sketch is None else answer._replace(sketch=self.sketch)
        return self.denoised


@pytest.fixture
def watched() -> Watched:
    return Watched(toy_checkpoint(toy_specs()).denoiser)


@pytest.fixture
def segments() -> SegmentBatch:
    config = SegmentConfig(just_started=0.0, short_history=1.0)
    return toy_sampler(toy_specs(), config).draw(BATCH, np.random.default_rng(0))


def drawn_for(segments: SegmentBatch, config: ObjectiveConfig) -> Drawn:
    return draw_for(segments, config, Draw((0,), 0, 0))


def loss(watched: Watched, segments: SegmentBatch, drawn: Drawn, config: ObjectiveConfig) -> Losses:
    return denoising_loss(watched, segments, drawn, config)  # type: ignore[arg-type]


def columns(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1, 1)


def test_the_memory_is_corrupted_as_drawn_and_its_level_is_told(
    watched: Watched, segments: SegmentBatch
) -> None:
    config = ObjectiveConfig(history_noise=NOISY)
    drawn = drawn_for(segments, config)
    loss(watched, segments, drawn, config)
    level, mask = columns(drawn.history_sigma), segments.history_mask[:, :, None, None, None]
    expected = ((1 - level) * segments.history_latents + level * drawn.history_noise) * mask
    torch.testing.assert_close(watched.history.latents, expected)
    assert (drawn.history_sigma >= 0.6).all()
    assert (mask == 0).any()  # empty slots stay empty
    # What is copied is the memory's own last frame, as noisy as that, and the network is told both times.
    assert watched.chunk.last_sigma is not None
    torch.testing.assert_close(watched.chunk.last, expected[:, -1])
    torch.testing.assert_close(watched.told, drawn.history_sigma)
    torch.testing.assert_close(watched.chunk.last_sigma, drawn.history_sigma)


def test_a_level_that_is_kept_from_the_network_is_told_as_clean(
    watched: Watched, segments: SegmentBatch
) -> None:
    """As the released code does: on the blocks at full resolution alone."""
    config = ObjectiveConfig(history_noise=replace(HISTORY_NOISE["astra_release"], heavy=1.0))
    drawn = drawn_for(segments, config)
    loss(watched, segments, drawn, config)
    assert (drawn.history_sigma > 0).all()
    assert watched.chunk.last_sigma is not None
    assert not watched.told.any()
    assert not watched.chunk.last_sigma.any()
    changed = (watched.history.latents - segments.history_latents).abs().amax(dim=(0, 2, 3, 4)) > 0
    full = [index for block in BLOCKS if block.pooling == 1 for index in range(*block.slots)]
    assert changed.nonzero().flatten().tolist() == full


def test_the_chunk_is_noise_and_truth_as_the_level_says(watched: Watched, segments: SegmentBatch) -> None:
    config = ObjectiveConfig(history_noise=HISTORY_NOISE["clean"])
    drawn = drawn_for(segments, config)
    losses = loss(watched, segments, drawn, config)
    level = columns(drawn.sigma)
    torch.testing.assert_close(watched.chunk.noisy, (1 - level) * segments.latents + level * drawn.noise)
    assert torch.equal(watched.sigma, drawn.sigma)
    assert torch.equal(watched.history.latents, segments.history_latents)
    error = (watched.denoised.latents - segments.latents) / level.clamp(min=0.25)
    torch.testing.assert_close(losses.flow, error.square().mean())


def test_noise_of_the_memory_is_not_that_of_the_chunk(segments: SegmentBatch) -> None:
    """Or it would say what the chunk's is."""
    drawn = drawn_for(segments, ObjectiveConfig())
    memory, chunk = (noise.flatten()[: drawn.noise.numel()] for noise in (drawn.history_noise, drawn.noise))
    newest = drawn.history_noise[:, -drawn.noise.shape[1] :]
    for other in (memory, newest.flatten()):
        assert abs(float(torch.corrcoef(torch.stack([chunk, other]))[0, 1])) < 0.15


def test_an_action_that_is_dropped_is_dropped_from_the_chunk_alone(
    watched: Watched, segments: SegmentBatch
) -> None:
    config = ObjectiveConfig(action_dropout=1.0, history_noise=HISTORY_NOISE["clean"], balance=0.0)
    drawn = drawn_for(segments, config)
    assert not drawn.keep_action.any()
    watched.sketch = torch.ones_like(segments.latents)
    expected = loss(watched, segments, drawn, config)
    other = loss(watched, replace(segments, actions=segments.actions + 1.0), drawn, config)
    torch.testing.assert_close(other.flow, expected.flow)
    assert float(expected.sketch) == 0.0
    assert torch.equal(watched.history.actions, segments.history_actions)
    kept = drawn._replace(keep_action=torch.ones(BATCH))
    assert not torch.allclose(loss(watched, segments, kept, config).flow, expected.flow)


def test_dropout_is_a_share(segments: SegmentBatch) -> None:
    many = replace(
        segments, latents=torch.zeros(2000, 1, 1, 1, 1), history_latents=torch.zeros(2000, 1, 1, 1, 1)
    )
    kept = drawn_for(many, ObjectiveConfig(action_dropout=0.1)).keep_action
    assert float(kept.mean()) == pytest.approx(0.9, abs=0.02)


def test_a_sketch_is_judged_where_the_picture_follows_from_the_action(
    watched: Watched, segments: SegmentBatch
) -> None:
    """Not of a chunk that was told no action, and not before another robot's background."""
    config = ObjectiveConfig(action_dropout=0.0)
    drawn = drawn_for(segments, config)._replace(keep_action=torch.tensor([1.0, 1.0, 0.0, 1.0]))
    segments = replace(segments, at_home=torch.tensor([1.0, 0.0, 1.0, 1.0]))
    watched.sketch = torch.randn(segments.latents.shape, generator=torch.Generator().manual_seed(0))
    losses = loss(watched, segments, drawn, config)
    errors = (watched.sketch - segments.latents).square().mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(losses.sketch, (errors[0] + errors[3]) / BATCH)
    torch.testing.assert_close(
        losses.total, losses.flow + config.balance * losses.balance + config.sketch * losses.sketch
    )
