"""Segments: frames, joints and actions of one moment stay together."""

import numpy as np
import pytest

from astra_ros.data.episode import Episode, fit_action_spec
from astra_ros.data.segments import SegmentConfig, SegmentSampler
from astra_ros.types import NANOSECONDS


def numbered_episode(num_frames: int = 60) -> Episode:
    """At 10 Hz; joint a is the frame's number, its command a half more."""
    stamps = np.arange(num_frames) * NANOSECONDS // 10
    measured = np.stack([np.arange(num_frames), np.arange(num_frames) % 3], axis=1).astype(np.float32)
    return Episode("numbered", stamps, np.zeros((num_frames, 8, 8, 3), np.uint8), measured, measured + 0.5)


def sampler(**shares: float) -> tuple[SegmentSampler, "np.ndarray", "np.ndarray"]:
    episode = numbered_episode()
    spec = fit_action_spec([episode], ("a", "b"), ("rad", "rad"), 0.2)
    latents = np.broadcast_to(np.arange(60, dtype=np.float32)[:, None, None, None], (60, 1, 2, 2))
    config = SegmentConfig(3, 4, **{"short_history": 0.0, "hindsight": 0.0, "imagined": 0.0, **shares})
    return SegmentSampler([episode], [latents], spec, config), np.array(spec.mean), np.array(spec.std)


def position_a(actions: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return actions[..., 0] * std[0] + mean[0]


def test_history_and_chunk_follow_at_the_models_rate() -> None:
    segments, mean, std = sampler()
    batch = segments.draw(16, np.random.default_rng(0))
    history, chunk = batch.history_latents[:, :, 0, 0, 0], batch.latents[:, :, 0, 0, 0]
    assert (np.diff(np.concatenate([history, chunk], axis=1), axis=1) == 2).all()
    assert np.allclose(position_a(batch.history_actions, mean, std), history, atol=1e-3)
    assert np.allclose(position_a(batch.actions, mean, std), chunk + 0.5, atol=1e-3)
    assert batch.history_actions[..., -1].all()
    assert not batch.actions[..., -1].any()


def test_hindsight_actions_are_what_the_joints_did() -> None:
    segments, mean, std = sampler(hindsight=1.0)
    batch = segments.draw(8, np.random.default_rng(0))
    assert np.allclose(position_a(batch.actions, mean, std), batch.latents[:, :, 0, 0, 0], atol=1e-3)


def test_imagined_histories_carry_commands() -> None:
    segments, mean, std = sampler(imagined=1.0)
    batch = segments.draw(8, np.random.default_rng(0))
    assert np.allclose(
        position_a(batch.history_actions, mean, std), batch.history_latents[:, :, 0, 0, 0] + 0.5, atol=1e-3
    )


def test_short_histories_have_empty_slots_in_front_only() -> None:
    segments, _, _ = sampler(short_history=1.0)
    batch = segments.draw(64, np.random.default_rng(0))
    assert (np.diff(batch.history_mask, axis=1) >= 0).all()
    assert batch.history_mask[:, -1].all()
    assert not batch.history_mask[:, 0].any()
    empty = batch.history_mask == 0
    assert not batch.history_latents[empty].any()


def test_episodes_that_are_too_short_are_refused() -> None:
    episode = numbered_episode(10)
    spec = fit_action_spec([episode], ("a", "b"), ("rad", "rad"), 0.2)
    with pytest.raises(ValueError, match=r"expected some longer than 1\.2 s, found none"):
        SegmentSampler([episode], [np.zeros((10, 1, 2, 2), np.float32)], spec, SegmentConfig(3, 4))
