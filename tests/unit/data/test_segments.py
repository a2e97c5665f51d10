"""Segments: frames and actions of one moment stay together, at the model's rate, in the packed history's slots."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.schema import ActionSchema, camera_schema
from astra_ros.data.segments import (
    SegmentBatch,
    SegmentConfig,
    SegmentSampler,
    SegmentSource,
    cut_window,
    step_actions,
)
from astra_ros.history.layout import NUM_SLOTS, slot_frames
from astra_ros.types import NANOSECONDS

ARM = ActionSchema("two joints", "arm", "joint_position", ("a", "b"), ("rad", "rad"))
NO_CHANCE = {"just_started": 0.0, "short_history": 0.0, "hindsight": 0.0, "imagined": 0.0}


def numbered_episode(num_frames: int = 120) -> Episode:
    """At 10 Hz, two frames a step; joint a is the frame's number, its command a half more."""
    stamps = np.arange(num_frames) * NANOSECONDS // 10
    measured = np.stack([np.arange(num_frames), np.arange(num_frames) % 3], axis=1).astype(np.float32)
    return Episode("numbered", stamps, np.zeros((num_frames, 8, 8, 3), np.uint8), measured, measured + 0.5)


def numbered_latents(num_frames: int = 120) -> np.ndarray:
    return np.broadcast_to(
        np.arange(num_frames, dtype=np.float32)[:, None, None, None], (num_frames, 1, 2, 2)
    )


def source(num_frames: int = 120) -> SegmentSource:
    episode = numbered_episode(num_frames)
    return SegmentSource(episode, numbered_latents(num_frames), fit_action_spec([episode], ARM, 0.2))


def draw(batch: int = 32, **shares: float) -> tuple[SegmentBatch, ActionSpec]:
    one = source()
    sampler = SegmentSampler([one], [one.spec.space], SegmentConfig(chunk_len=4, **{**NO_CHANCE, **shares}))
    return sampler.draw(batch, np.random.default_rng(0)), one.spec


def numbers(latents: torch.Tensor) -> torch.Tensor:
    return latents[..., 0, 0, 0]


def joint_a(actions: torch.Tensor, spec: ActionSpec) -> torch.Tensor:
    return actions[..., 0] * spec.std[0] + spec.mean[0]


def test_slots_are_the_anchor_and_the_last_nineteen_steps() -> None:
    frames, mask = slot_frames(now=100, stride=2)
    assert frames.tolist() == [0, *range(64, 101, 2)]
    assert mask.all()
    assert len(frames) == NUM_SLOTS


def test_slots_before_the_start_are_empty_and_hold_the_first_frame() -> None:
    frames, mask = slot_frames(now=20, stride=2, started=15)
    assert frames[:17].tolist() == [15] * 17
    assert frames[17:].tolist() == [16, 18, 20]
    assert mask.tolist() == [1.0, *[0.0] * 16, 1.0, 1.0, 1.0]


def test_history_and_chunk_follow_at_the_models_rate() -> None:
    batch, spec = draw()
    filled = batch.history_mask[:, 1:] == 1
    sequence = torch.cat([numbers(batch.history_latents)[:, 1:], numbers(batch.latents)], dim=1)
    steps = sequence.diff(dim=1)
    assert (steps[:, -4:] == 2).all()
    assert (steps[:, : NUM_SLOTS - 2][filled[:, :-1]] == 2).all()
    assert torch.allclose(joint_a(batch.actions, spec), numbers(batch.latents) + 0.5, atol=1e-3)
    assert batch.history_actions[..., -1].all()
    assert not batch.actions[..., -1].any()


def test_history_actions_are_those_that_led_to_its_frames() -> None:
    batch, spec = draw()
    filled = batch.history_mask == 1
    assert torch.allclose(
        joint_a(batch.history_actions, spec)[filled], numbers(batch.history_latents)[filled], atol=1e-3
    )


def test_anchor_is_the_first_frame_of_the_episode() -> None:
    batch, _ = draw()
    assert (numbers(batch.history_latents)[:, 0] == 0).all()
    assert batch.history_mask[:, 0].all()


def test_hindsight_actions_are_what_the_joints_did() -> None:
    batch, spec = draw(hindsight=1.0)
    assert torch.allclose(joint_a(batch.actions, spec), numbers(batch.latents), atol=1e-3)


def test_imagined_histories_end_in_chunks_of_commands_and_begin_as_measured() -> None:
    batch, spec = draw(imagined=1.0, batch=64)
    ahead = joint_a(batch.history_actions, spec) - numbers(batch.history_latents)  # commands lead by a half
    filled, is_command = batch.history_mask == 1, ahead > 0.25
    assert not is_command[:, 0].any()  # the anchor
    lengths = set()
    for row, known in zip(is_command, filled, strict=True):
        told = [bool(one) for one, is_filled in zip(row, known, strict=True) if is_filled]
        assert told == sorted(told)
        if known.all():
            lengths.add(sum(told))
    assert lengths <= {4, 8, 12, 16, 19}
    assert len(lengths) > 2


def test_a_robot_that_just_started_remembers_one_frame_twice() -> None:
    batch, _ = draw(just_started=1.0)
    assert (batch.history_mask.sum(dim=1) == 2).all()
    assert torch.equal(batch.history_latents[:, 0], batch.history_latents[:, -1])


def test_short_histories_began_some_time_ago() -> None:
    batch, _ = draw(short_history=1.0, batch=64)
    window = batch.history_mask[:, 1:]
    assert (window.diff(dim=1) >= 0).all()
    assert len(window.sum(dim=1).unique()) > 8
    assert not batch.history_latents[batch.history_mask == 0].any()


def test_spaces_of_other_widths_share_a_batch() -> None:
    camera = numbered_camera()
    sampler = SegmentSampler([source(), camera], ["two joints", "camera"], SegmentConfig(chunk_len=4))
    batch = sampler.draw(32, np.random.default_rng(0))
    narrow = batch.space == 0
    assert set(batch.space.tolist()) == {0, 1}
    assert batch.actions.shape[-1] == camera.spec.num_features == 25
    assert not batch.actions[narrow][..., source().spec.num_features :].any()


def test_a_heavier_episode_is_drawn_more_often() -> None:
    light, heavy = source(), source()
    heavy = SegmentSource(heavy.episode, heavy.latents + 1000, heavy.spec, weight=9.0)
    sampler = SegmentSampler([light, heavy], ["two joints"], SegmentConfig(chunk_len=4))
    drawn = sampler.draw(400, np.random.default_rng(0)).latents[:, 0, 0, 0, 0] > 500
    assert 0.85 < drawn.float().mean() < 0.95


def test_a_window_for_evaluation_is_what_was_measured() -> None:
    one = source()
    window = cut_window(one.episode, one.latents, one.spec, now=50)
    assert window.actions[-1, 0] == 50
    assert window.latents[-1, 0, 0, 0] == 50
    assert step_actions(one.episode, one.spec, np.array([52, 54]))[:, 0].tolist() == [52.5, 54.5]


def test_episodes_that_are_too_short_are_refused() -> None:
    short = source(9)
    with pytest.raises(ValueError, match="expected some longer than 8 model steps, found none"):
        SegmentSampler([short], ["two joints"], SegmentConfig(chunk_len=8))


def test_normalisation_is_of_steps_and_of_what_they_add_up_to() -> None:
    spec = source().spec
    assert spec.space == "two joints"
    assert spec.upper[0] > 119
    assert spec.lower[0] < 2.5
    # a rises by 2 a step and commands lead by a half: over 1 … 4 steps 2.5, 4.5, 6.5, 8.5
    assert spec.delta_std[0] == pytest.approx(np.sqrt(np.mean(np.square([2.5, 4.5, 6.5, 8.5]))), rel=1e-3)


def numbered_camera(num_frames: int = 60) -> SegmentSource:
    """A camera that moves ahead by a centimetre a frame."""
    poses: Any = np.tile(np.eye(4)[:3], (num_frames, 1, 1))
    poses[:, 2, 3] = 0.01 * np.arange(num_frames)
    rows = poses.reshape(num_frames, 12).astype(np.float32)
    stamps = np.arange(num_frames) * NANOSECONDS // 10
    episode = Episode("camera", stamps, np.zeros((num_frames, 8, 8, 3), np.uint8), rows, rows)
    return SegmentSource(
        episode, numbered_latents(num_frames), fit_action_spec([episode], camera_schema("camera"), 0.2)
    )


def test_behind_a_share_of_the_segments_come_those_of_a_chunk_earlier() -> None:
    """Of the same robot, which remembers since the same moment: what is in both is the same."""
    segments, spec = draw(batch=32, own=0.25, short_history=0.5)
    batch, earlier = segments.split(32)
    assert len(earlier.latents) == 8
    followed = SegmentBatch(*(values[:8] for values in batch.tensors))
    assert torch.equal(numbers(earlier.latents), numbers(followed.history_latents)[:, -4:])
    assert torch.equal(
        numbers(earlier.history_latents)[:, 0], numbers(followed.history_latents)[:, 0]
    )  # the anchor
    told = joint_a(earlier.actions, spec)
    assert torch.allclose(told, numbers(earlier.latents) + 0.5, atol=1e-3)
    assert earlier.history_mask[:, -1].all()


@pytest.mark.parametrize(("hindsight", "lead"), [(0.0, 0.5), (1.0, 0.0)])
@pytest.mark.parametrize("imagined", [0.0, 1.0])
def test_what_the_model_predicts_itself_is_remembered_with_the_plan_that_it_predicts_it_from(
    hindsight: float, lead: float, imagined: float
) -> None:
    """As a rollout remembers it; what was measured then would tell how it really went."""
    segments, spec = draw(batch=32, own=0.25, hindsight=hindsight, imagined=imagined)
    batch, earlier = segments.split(32)
    remembered = joint_a(batch.history_actions[:8], spec)[:, -4:]
    assert torch.allclose(remembered, joint_a(earlier.actions, spec), atol=1e-3)
    assert torch.allclose(remembered, numbers(earlier.latents) + lead, atol=1e-3)
    if not imagined:
        before = joint_a(earlier.history_actions, spec)[:, -1]
        assert torch.allclose(before, numbers(earlier.history_latents)[:, -1], atol=1e-3)


def test_without_such_segments_the_others_are_drawn_as_ever() -> None:
    alone, _ = draw(batch=4)
    both, _ = draw(batch=4, own=0.1)  # of four, none
    assert all(torch.equal(one, other) for one, other in zip(alone.tensors, both.tensors, strict=True))


def test_where_an_episode_has_no_chunk_earlier_the_memory_there_is_empty() -> None:
    one = source(num_frames=16)  # a chunk of 4 steps and the frame before it are 9
    config = SegmentConfig(chunk_len=4, **NO_CHANCE, own=0.5)
    segments = SegmentSampler([one], [one.spec.space], config).draw(8, np.random.default_rng(0))
    batch, earlier = segments.split(8)
    assert (earlier.history_mask == 0).all()
    assert (earlier.history_latents == 0).all()
    assert batch.history_mask[:, -1].all()


def scene(still: float, spec: ActionSpec) -> SegmentSource:
    """An arm, the first of four latents, counts the frames before a background of its own."""
    latents = np.full((120, 1, 2, 2), still, np.float32)
    latents[:, 0, 0, 0] = still + np.arange(120)
    return SegmentSource(numbered_episode(), latents, spec)


def test_elsewhere_what_stands_still_is_another_robots_and_what_moves_moves_as_it_did() -> None:
    spec = source().spec
    own, other = scene(1000.0, spec), scene(5000.0, replace(spec, space="another robot"))
    config = SegmentConfig(chunk_len=4, **{**NO_CHANCE, "just_started": 0.5}, elsewhere=1.0)
    sampler = SegmentSampler([own, other], [spec.space, "another robot"], config)
    batch = sampler.draw(64, np.random.default_rng(0))
    still, filled = batch.latents[:, :, 0, 1, 1], batch.history_mask.bool()
    assert not batch.at_home.any()
    assert set(still.unique().tolist()) == {1000.0, 5000.0}
    assert (still == torch.where(batch.space == 0, 5000.0, 1000.0)[:, None]).all()
    for index in range(64):
        remembered = batch.history_latents[index, filled[index]]
        assert (remembered[:, 0, 1, 1] == still[index, 0]).all()
        assert (batch.history_latents[index, ~filled[index]] == 0).all()
        steps = torch.cat([remembered[-1:], batch.latents[index]])[:, 0, 0, 0].diff()
        assert steps.tolist() == [2.0] * 4


def drawn_elsewhere(sources: list[SegmentSource], share: float) -> torch.Tensor:
    config = SegmentConfig(chunk_len=4, **NO_CHANCE, elsewhere=share)
    spaces = list(dict.fromkeys(one.spec.space for one in sources))
    return SegmentSampler(sources, spaces, config).draw(8, np.random.default_rng(0)).latents


def test_an_arm_without_another_robot_stays_where_it_is() -> None:
    """Another recording of it would leave a second arm in the picture, one that never moves."""
    spec = source().spec
    arms = [scene(1000.0, spec), scene(5000.0, spec)]
    assert torch.equal(drawn_elsewhere(arms, 0.0), drawn_elsewhere(arms, 1.0))


def test_a_camera_that_moves_stays_where_it_is() -> None:
    one = numbered_camera()
    cameras = [one, replace(one, spec=replace(one.spec, space="another camera"))]
    assert torch.equal(drawn_elsewhere(cameras, 0.0), drawn_elsewhere(cameras, 1.0))


def varied(one: SegmentSource) -> SegmentBatch:
    config = SegmentConfig(chunk_len=4, **{**NO_CHANCE, "just_started": 0.5}, varied=1.0)
    return SegmentSampler([one], [one.spec.space], config).draw(32, np.random.default_rng(0))


def standing_still() -> np.ndarray:
    picture = np.random.default_rng(1).standard_normal((1, 2, 8, 8), dtype=np.float32)
    return np.repeat(picture, 120, axis=0)


def test_varied_all_frames_of_a_segment_are_changed_alike() -> None:
    batch = varied(replace(numbered_camera(120), latents=standing_still()))
    filled = batch.history_mask.bool()
    assert (batch.latents == batch.latents[:, :1]).all()
    for index in range(32):
        assert (batch.history_latents[index, filled[index]] == batch.latents[index, :1]).all()
        assert (batch.history_latents[index, ~filled[index]] == 0).all()
    assert len({tuple(frame.flatten().tolist()) for frame in batch.latents[:, 0]}) == 32


def test_varied_moves_what_a_camera_sees_but_an_arm_stays_where_its_joints_say() -> None:
    latents = standing_still()
    for one, is_moved in ((numbered_camera(120), True), (source(), False)):
        found = varied(replace(one, latents=latents)).latents[:, 0, 0].flatten(1).numpy()
        likeness = np.corrcoef(np.concatenate([latents[:1, 0].reshape(1, -1), found]))[0, 1:]
        assert (likeness.min() < 0.9) == is_moved
        assert is_moved or (likeness > 0.999).all()


def test_varied_a_share_of_the_segments() -> None:
    one = source()
    config = SegmentConfig(chunk_len=4, **NO_CHANCE, varied=0.5)
    batch = SegmentSampler([one], [one.spec.space], config).draw(200, np.random.default_rng(0))
    same = (batch.latents[:, :, 0, 0, 0] % 1 == 0).all(dim=1).float().mean().item()
    assert 0.4 < same < 0.6
