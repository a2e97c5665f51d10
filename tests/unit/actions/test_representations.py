"""What recorded rows mean: one action per step of the model, and features of it."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.actions.representations import REPRESENTATIONS
from astra_ros.actions.spec import ActionSpec

FRAMES = np.array([4, 6, 8])
STRIDE = 2


def spec(representation: str, dim: int) -> ActionSpec:
    zeros, ones = (0.0,) * dim, (1.0,) * dim
    names = tuple(f"a{index}" for index in range(dim))
    return ActionSpec(
        "robot", "camera", representation, names, ("1",) * dim, 0.2, zeros, ones, ones, zeros, ones
    )


def yawing(frames: int, world: np.ndarray | None = None) -> np.ndarray:
    """Camera-to-world poses (t, 12): each frame 0.1 m ahead in its own direction and 0.05 rad further to the right."""
    angle = 0.05
    c, s = np.cos(angle), np.sin(angle)
    step = np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0.1], [0, 0, 0, 1]])
    poses = [np.eye(4) if world is None else world]
    for _ in range(frames - 1):
        poses.append(poses[-1] @ step)
    return np.stack(poses)[:, :3].reshape(frames, 12).astype(np.float32)


def test_every_representation_gives_the_promised_number_of_features() -> None:
    for name in REPRESENTATIONS:
        action = spec(name, 12)
        rows = np.zeros((4, 12), np.float32)
        assert action.features(rows, rows[0], is_past=False).shape == (4, action.num_features)


def test_joint_positions_are_taken_at_the_end_of_a_step() -> None:
    recorded = np.arange(10, dtype=np.float32)[:, None]
    assert spec("joint_position", 1).steps(recorded, FRAMES, STRIDE)[:, 0].tolist() == [4, 6, 8]


def test_rates_are_means_over_a_step() -> None:
    recorded = np.arange(10, dtype=np.float32)[:, None] ** 2
    assert spec("rate", 1).steps(recorded, FRAMES, STRIDE)[:, 0].tolist() == [12.5, 30.5, 56.5]


def test_rates_are_told_with_what_they_add_up_to() -> None:
    action, rows = spec("rate", 1), np.array([[1.0], [2.0], [-4.0]], np.float32)
    current = action.features(rows, rows[0], is_past=False)
    np.testing.assert_allclose(current[:, 1], [0.2, 0.6, -0.2], rtol=1e-6)
    assert not action.features(rows, rows[0], is_past=True)[:, 1].any()


def test_a_pose_step_is_the_cameras_own_movement() -> None:
    steps = spec("relative_pose", 12).steps(yawing(10), FRAMES, 1)
    expected = yawing(2)[1]
    np.testing.assert_allclose(steps, np.tile(expected, (3, 1)), atol=1e-6)


def test_where_the_world_has_its_origin_changes_no_pose_step() -> None:
    """Neither in training, which starts anywhere in a recording, nor on a robot, which starts at its own origin."""
    world = np.array([[0, -1, 0, 3], [0, 0, -1, 2], [1, 0, 0, -5], [0, 0, 0, 1]], float)
    here, there = (
        spec("relative_pose", 12).steps(yawing(10, origin), FRAMES, STRIDE) for origin in (None, world)
    )
    np.testing.assert_allclose(here, there, atol=1e-5)


def test_pose_features_add_up_to_the_pose_since_the_observation() -> None:
    action = spec("relative_pose", 12)
    steps = action.steps(yawing(10), np.arange(1, 5), 1)
    total = action.features(steps, steps[0], is_past=False)[:, 12:24]
    identity = np.eye(4)[:3].reshape(12)
    np.testing.assert_allclose(total, yawing(5)[1:] - identity, atol=1e-5)
    assert not action.features(steps, steps[0], is_past=True)[:, 12:24].any()


def test_before_a_recording_nothing_moved() -> None:
    first = np.array([-3, 0])
    poses = spec("relative_pose", 12).steps(yawing(4), first, STRIDE)
    np.testing.assert_allclose(poses, np.tile(np.eye(4)[:3].reshape(12), (2, 1)), atol=1e-6)
    joints = spec("joint_position", 1).steps(np.array([[7.0], [8.0]], np.float32), first, STRIDE)
    assert joints[:, 0].tolist() == [7.0, 7.0]


def test_a_pose_of_another_size_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"action.names: expected 12 for relative_pose \(3x4, row-major\), found 7"
    ):
        spec("relative_pose", 7)
