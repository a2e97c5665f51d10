"""Rollouts of any length in torch: which action acts, what is remembered, and what guidance shares."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from astra_ros.actions.spec import ActionSpec
from astra_ros.denoiser.checkpoint import Checkpoint, new_checkpoint
from astra_ros.denoiser.dit import Chunk, Denoiser, History
from astra_ros.denoiser.features import history_features
from astra_ros.denoiser.rollout import Memory, RolloutSettings, roll_out, stream_rollout
from astra_ros.history.layout import NUM_SLOTS, blocks_after
from astra_ros.types import FloatArray
from tests.bundle_fixture import CHUNK, untrained_model
from tests.unit.denoiser.scene import actions, memory

ONE_STEP = RolloutSettings(num_steps=1)


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return untrained_model()


def rolled_out(
    checkpoint: Checkpoint, past: Memory, plan: FloatArray, settings: RolloutSettings = ONE_STEP
) -> Tensor:
    return roll_out(checkpoint, "panda", past, plan, settings, torch.Generator().manual_seed(0))


# Latent frames at the start of a chunk in the released code, whose actions lag behind from 25 on.
@pytest.mark.parametrize("length", [1, 9, 17, 25, 41, 97])
def test_the_action_that_acts_is_the_current_one(checkpoint: Checkpoint, length: int) -> None:
    past = memory(checkpoint, "panda", filled=2)
    for frame in (length - 1, length + 1):  # the first of a chunk, and one inside of it
        plan = actions(checkpoint.actions["panda"], 1, frame + 3)
        other = plan.copy()
        other[:, frame] += 1.0
        before, after = rolled_out(checkpoint, past, plan), rolled_out(checkpoint, past, other)
        assert torch.equal(before[:, :frame], after[:, :frame])
        assert (before[:, frame] - after[:, frame]).abs().max() > 1e-3


def test_a_held_action_keeps_acting_in_every_later_chunk(checkpoint: Checkpoint) -> None:
    past, plan = memory(checkpoint, "panda"), actions(checkpoint.actions["panda"], 1, 32)
    other = plan.copy()
    other[:, 3:] += 1.0
    difference = (rolled_out(checkpoint, past, plan) - rolled_out(checkpoint, past, other)).abs()
    assert (difference.flatten(2).amax(dim=-1)[0, 3:] > 1e-3).all()


def history_of(checkpoint: Checkpoint, past: Memory, first: int = 0) -> History:
    spec = checkpoint.actions["panda"]
    features = torch.from_numpy(np.stack([history_features(spec, rows) for rows in past.actions]))
    space = torch.full((len(past.latents),), checkpoint.space_index("panda"))
    return History(past.latents[:, first:], features[:, first:], past.mask[:, first:], space)


@pytest.mark.parametrize("chunk_len", [4, 8, 16])
@pytest.mark.parametrize("filled", [2, 6, 13, NUM_SLOTS])
def test_appending_is_remembering_the_moved_window(chunk_len: int, filled: int) -> None:
    """Over many chunks, from a robot that just started as well as from a long history."""
    checkpoint = untrained_model()
    config = replace(checkpoint.config.denoiser, chunk_len=chunk_len)
    denoiser = Denoiser(config).eval()
    denoiser.load_state_dict(checkpoint.denoiser.state_dict())
    first, told = blocks_after(chunk_len)[0].slots[0], torch.zeros(1)
    past = memory(checkpoint, "panda", filled=filled)
    with torch.inference_mode():
        cache, _ = denoiser.remember(history_of(checkpoint, past), told)
        for index in range(80 // chunk_len):
            latents = torch.randn(1, chunk_len, *past.latents.shape[2:])
            past = past.moved_on(latents, actions(checkpoint.actions["panda"], 1, chunk_len, seed=index))
            cache = denoiser.append(cache, history_of(checkpoint, past, first), told)
            again, _ = denoiser.remember(history_of(checkpoint, past), told)
            assert torch.equal(cache.bias, again.bias)
            seen = again.bias[0] == 0
            assert (cache.keys - again.keys)[:, :, seen].abs().max() <= 1e-5
            assert (cache.values - again.values)[:, :, seen].abs().max() <= 1e-5
    assert seen.all()


def test_the_anchor_is_the_first_frame_for_ever(checkpoint: Checkpoint) -> None:
    """After 100 predicted frames it still is, and still matters; nothing else of the beginning is left."""
    start = memory(checkpoint, "panda")
    plan = actions(checkpoint.actions["panda"], 1, 4)
    newest = torch.randn(1, 100, *start.latents.shape[2:], generator=torch.Generator().manual_seed(0))
    commanded = actions(checkpoint.actions["panda"], 1, 100)
    futures = []
    for slot in (None, 0, 1, NUM_SLOTS - 1):
        past = start
        if slot is not None:
            latents = start.latents.clone()
            latents[:, slot] += 1.0
            past = replace(start, latents=latents)
        for chunk in range(0, 100, 4):
            moved = past.moved_on(newest[:, chunk : chunk + 4], commanded[:, chunk : chunk + 4])
            assert torch.equal(moved.latents[:, 0], past.latents[:, 0])
            past = moved
        futures.append(rolled_out(checkpoint, past, plan))
    untouched, anchor, *others = futures
    assert not torch.allclose(untouched, anchor, atol=1e-5)
    assert all(torch.equal(untouched, other) for other in others)


def test_any_horizon_is_the_beginning_of_a_longer_one(checkpoint: Checkpoint) -> None:
    past, plan = memory(checkpoint, "panda", batch=2), actions(checkpoint.actions["panda"], 2, 11)
    longest = rolled_out(checkpoint, past, plan)
    assert longest.shape[:2] == (2, 11)
    for horizon in (1, 4, 6):
        assert torch.equal(rolled_out(checkpoint, past, plan[:, :horizon]), longest[:, :horizon])
    chunks = list(stream_rollout(checkpoint, "panda", past, plan, ONE_STEP, torch.Generator().manual_seed(0)))
    assert [chunk.shape[1] for chunk in chunks] == [CHUNK, CHUNK, CHUNK]
    assert torch.equal(torch.cat(chunks, dim=1)[:, :11], longest)


def test_guidance_moves_away_from_what_would_happen_anyway(checkpoint: Checkpoint) -> None:
    past, plan = memory(checkpoint, "panda"), actions(checkpoint.actions["panda"], 1, 4)
    null, plain, strong = (
        rolled_out(checkpoint, past, plan, RolloutSettings(num_steps=1, guidance=scale))
        for scale in (0.0, 1.0, 3.0)
    )
    assert torch.allclose(strong, null + 3.0 * (plain - null), atol=1e-5)
    assert not torch.allclose(plain, null, atol=1e-3)


def test_action_free_means_without_the_targets_actions_only(checkpoint: Checkpoint) -> None:
    null = RolloutSettings(num_steps=1, guidance=0.0)
    past, plan = memory(checkpoint, "panda"), actions(checkpoint.actions["panda"], 1, 4)
    expected = rolled_out(checkpoint, past, plan, null)
    assert torch.equal(expected, rolled_out(checkpoint, past, plan + 1.0, null))
    moved = replace(past, actions=past.actions + np.linspace(0, 1, NUM_SLOTS, dtype=np.float32)[:, None])
    assert not torch.allclose(expected, rolled_out(checkpoint, moved, plan, null), atol=1e-5)


def test_both_answers_of_guidance_and_all_steps_share_the_memory(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[list[int]] = []
    denoise = Denoiser.denoise

    def watch(self: Denoiser, chunk: object, sigma: Tensor, cache: tuple[Tensor, ...]) -> object:
        caches.append([tensor.data_ptr() for tensor in cache])
        return denoise(self, chunk, sigma, cache)  # type: ignore[arg-type]

    monkeypatch.setattr(Denoiser, "denoise", watch)
    past, plan = memory(checkpoint, "panda"), actions(checkpoint.actions["panda"], 1, 4)
    rolled_out(checkpoint, past, plan, RolloutSettings(num_steps=3, guidance=2.0))
    assert len(caches) == 2 * 3
    assert all(first == second for first, second in pairwise(caches))


def test_noise_of_the_memory_is_drawn_and_told(checkpoint: Checkpoint) -> None:
    past, plan = memory(checkpoint, "panda"), actions(checkpoint.actions["panda"], 1, 4)
    clean = rolled_out(checkpoint, past, plan)
    noisy = rolled_out(checkpoint, past, plan, RolloutSettings(num_steps=1, history_sigma=0.1))
    assert not torch.allclose(clean, noisy, atol=1e-4)


@pytest.mark.parametrize("num_chunks", [1, 2])
def test_a_chunk_follows_the_noisy_last_frame_of_the_memory_as_in_training(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, num_chunks: int
) -> None:
    """And is told how noisy: the network corrects what it copies."""
    seen: list[tuple[Tensor, Chunk]] = []
    remembered: list[Tensor] = []
    told: list[Tensor] = []
    attend, denoise = Denoiser._attend, Denoiser.denoise

    def watch_memory(self: Denoiser, history: History, blocks: Any, sigma: Tensor, past: Any) -> Any:
        remembered.append(history.latents[:, -1])
        told.append(sigma)
        return attend(self, history, blocks, sigma, past)

    def watch_chunk(self: Denoiser, chunk: Chunk, *rest: Any) -> Any:
        seen.append((remembered[-1], chunk))
        return denoise(self, chunk, *rest)

    monkeypatch.setattr(Denoiser, "_attend", watch_memory)
    monkeypatch.setattr(Denoiser, "denoise", watch_chunk)
    past, plan = memory(checkpoint, "panda"), actions(checkpoint.actions["panda"], 1, num_chunks * CHUNK)
    rolled_out(checkpoint, past, plan, RolloutSettings(num_steps=1, history_sigma=0.1))
    assert len(seen) == num_chunks
    for last, chunk in seen:
        assert torch.equal(chunk.last, last)
        assert chunk.last_sigma is not None
        assert chunk.last_sigma.tolist() == [pytest.approx(0.1)]
    assert not torch.equal(seen[0][1].last, past.latents[:, -1])


def features_of(modality: str, representation: str, dim: int) -> ActionSpec:
    names = tuple(f"{modality}_{index}" for index in range(dim))
    values = {"mean": 0.0, "std": 1.0, "delta_std": 1.0, "lower": -1.0, "upper": 1.0}
    return ActionSpec(
        "new robot",
        modality,
        representation,
        names,
        ("1",) * dim,
        0.2,
        **{k: (v,) * dim for k, v in values.items()},
    )


@pytest.mark.parametrize(
    ("modality", "representation", "dim"),
    [
        ("arm", "joint_position", 7),
        ("drive", "rate", 2),
        ("camera", "relative_pose", 12),
        ("command", "rate", 10),
    ],
)
def test_a_new_action_space_touches_no_network_code(modality: str, representation: str, dim: int) -> None:
    """Declared in one place, it is trained beside the others and rolled out."""
    config = untrained_model().config
    spec = features_of(modality, representation, dim)
    checkpoint = new_checkpoint(config, [*untrained_model().actions.values(), spec])
    past = memory(checkpoint, spec.space)
    plan = actions(spec, 1, 6)
    found = roll_out(checkpoint, spec.space, past, plan, ONE_STEP, torch.Generator())
    assert found.shape == (1, 6, 4, 6, 8)
