"""Movements of every representation, their opposites, and the same movement elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from astra_ros.actions.spec import ActionSpec
from astra_ros.evaluation.movements import active_dims, movements, opposite, transplanted
from tests.unit.evaluation.toy_world import SPEC


def _spec(representation: str, modality: str, names: tuple[str, ...], lower: float) -> ActionSpec:
    ones = (1.0,) * len(names)
    units, bounds = ("1",) * len(names), ((lower,) * len(names), ones)
    return ActionSpec("toy", modality, representation, names, units, 0.2, ones, ones, ones, *bounds)


def _step(yaw: float, forward: float) -> np.ndarray:
    """A camera (x right, y down, z forward) that turns about y after moving along z."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, 0, sin, 0], [0, 1, 0, 0], [-sin, 0, cos, forward]], np.float32).ravel()


def test_joints_move_from_where_they_were() -> None:
    plan, last = np.array([[[3.0], [5.0]]], np.float32), np.array([[2.0]], np.float32)
    np.testing.assert_allclose(movements(SPEC, plan, last), [[[1.0], [3.0]]])
    np.testing.assert_allclose(opposite(SPEC, plan, last), [[[1.0], [0.0]]])  # -1 is beyond the lower bound
    other = transplanted(SPEC, plan, last, np.array([[20.0]], np.float32))
    np.testing.assert_allclose(other, [[[21.0], [23.0]]])


def test_a_camera_turns_and_advances_since_the_frame_before() -> None:
    spec = _spec("relative_pose", "camera", tuple(f"p{i}" for i in range(12)), -1.0)
    plan = np.stack([[_step(0.1, 0.5), _step(-0.2, 0.3)]])
    moved = movements(spec, plan, plan[:, 0])
    np.testing.assert_allclose(moved[0], [[0, 0, 0.5, 0, 0.1, 0], [0, 0, 0.3, 0, -0.2, 0]], atol=1e-6)


def test_a_camera_step_and_its_opposite_cancel() -> None:
    spec = _spec("relative_pose", "camera", tuple(f"p{i}" for i in range(12)), -1.0)
    plan = np.stack([[_step(0.3, 0.5)]])
    there, back = (
        np.concatenate([row.reshape(3, 4), [[0, 0, 0, 1]]])
        for row in (plan[0, 0], opposite(spec, plan, plan[:, 0])[0, 0])
    )
    np.testing.assert_allclose(there @ back, np.eye(4), atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1.0, 3.0])
def test_rotation_vectors_at_any_angle(angle: float) -> None:
    spec = _spec("relative_pose", "camera", tuple(f"p{i}" for i in range(12)), -1.0)
    assert movements(spec, _step(angle, 0.0)[None, None], np.zeros((1, 12), np.float32))[
        0, 0, 4
    ] == pytest.approx(angle, abs=1e-5)


def test_a_car_keeps_its_speed_and_steers_the_other_way() -> None:
    spec = _spec("rate", "drive", ("steer", "speed"), -1.0)
    plan = np.array([[[0.4, 0.8]]], np.float32)
    np.testing.assert_allclose(opposite(spec, plan, plan[:, 0]), [[[-0.4, 0.8]]])
    np.testing.assert_allclose(movements(spec, plan, plan[:, 0]), plan)
    np.testing.assert_allclose(transplanted(spec, plan, plan[:, 0] + 1, plan[:, 0]), plan)


@pytest.mark.parametrize(
    ("names", "plan", "contrary"),
    [
        (("linear.x", "angular.z"), [0.5, 0.3], [0.5, -0.3]),
        (("linear.x", "linear.y", "angular.z"), [0.5, 0.2, 0.3], [0.5, -0.2, -0.3]),
        (("steering_angle", "speed"), [0.3, 0.5], [-0.3, 0.5]),
    ],
)
def test_a_ros_vehicle_does_too(names: tuple[str, ...], plan: list[float], contrary: list[float]) -> None:
    spec, rows = _spec("rate", "drive", names, -1.0), np.array([[plan]], np.float32)
    np.testing.assert_allclose(opposite(spec, rows, rows[:, 0]), [[contrary]])


def test_commands_press_the_opposite_key() -> None:
    spec = replace(
        _spec("rate", "command", ("key_forward", "key_back", "key_left", "key_right", "mouse_dx"), 0.0),
        lower=(-0.02, -0.02, -0.02, -0.02, -1.0),
    )
    plan = np.array([[[1.0, 0.0, 0.0, 1.0, 0.3]]], np.float32)
    np.testing.assert_allclose(opposite(spec, plan, plan[:, 0]), [[[0.0, 1.0, 1.0, 0.0, -0.3]]], atol=1e-6)


def test_dimensions_that_hardly_move_are_not_judged() -> None:
    moved = np.array([[1.0, 0.01, 0.001, 0.0], [-1.0, -0.01, -0.001, 0.0]])
    assert active_dims(moved, ("rad", "rad", "m", "m")).tolist() == [True, False, True, False]
