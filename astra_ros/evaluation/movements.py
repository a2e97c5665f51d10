"""What a plan makes visible: the movement of each step, its opposite, and the same movement from elsewhere. Numpy only.

A plan is (b, t, a) per-step actions. Its movement (b, t, m) is what two pictures can show of it: of joint positions the
change since the observation; of a camera the translation and rotation since the frame before; of rates the rate itself,
between a frame and the one before.
"""

from __future__ import annotations

import numpy as np

from astra_ros.actions.representations import pose_matrices
from astra_ros.actions.spec import ActionSpec
from astra_ros.types import FloatArray

TWIST_NAMES = ("t_x", "t_y", "t_z", "rot_x", "rot_y", "rot_z")
TWIST_UNITS = ("m", "m", "m", "rad", "rad", "rad")
# Keys whose effects cancel: the opposite of a plan presses the other one.
OPPOSITE_KEYS = (("key_forward", "key_back"), ("key_left", "key_right"))
# Axes of a vehicle's velocity, as ROS has them, whose opposite leads to the other side.
_SIDEWAYS = ("linear.y", "angular.z")
# A dimension counts when it moves at least this share as much as the most mobile one of its unit.
_ACTIVE_SHARE = 0.1
# A control goes both ways when its least value is at least this share of its greatest, negative.
_BOTH_WAYS = 0.1


def movement_names(spec: ActionSpec) -> tuple[str, ...]:
    """One name per dimension of a movement."""
    return TWIST_NAMES if spec.representation == "relative_pose" else spec.names


def movement_units(spec: ActionSpec) -> tuple[str, ...]:
    """One unit per dimension of a movement."""
    return TWIST_UNITS if spec.representation == "relative_pose" else spec.units


def is_cumulative(spec: ActionSpec) -> bool:
    """Whether movements count from the observation and not from the frame before."""
    return spec.representation == "joint_position"


def movements(spec: ActionSpec, plan: FloatArray, last: FloatArray) -> FloatArray:
    """plan (b, t, a), last (b, a) the action that led to the observed frame. Returns (b, t, m)."""
    if spec.representation == "joint_position":
        return plan - last[:, None]
    if spec.representation == "rate":
        return plan
    return np.stack([[_twist(pose) for pose in pose_matrices(rows)] for rows in plan]).astype(np.float32)


def opposite(spec: ActionSpec, plan: FloatArray, last: FloatArray) -> FloatArray:
    """The plan that does the contrary from the same place.

    Joints move the other way, within the trained range; a camera makes every step backwards; a vehicle keeps its speed
    and steers the other way; commands press the opposite key, and the mouse moves the other way.
    """
    if spec.representation == "joint_position":
        return spec.clip(2 * last[:, None] - plan)
    if spec.representation == "relative_pose":
        return np.stack([np.linalg.inv(pose_matrices(rows))[:, :3].reshape(-1, 12) for rows in plan]).astype(
            np.float32
        )
    mirrored = np.where([_is_mirrored(spec, a) for a in range(spec.dim)], -plan, plan).astype(np.float32)
    for first, second in OPPOSITE_KEYS:
        if first in spec.names and second in spec.names:
            pair = [spec.names.index(first), spec.names.index(second)]
            mirrored[..., pair] = plan[..., pair[::-1]]
    return mirrored


def transplanted(
    spec: ActionSpec, plan: FloatArray, from_last: FloatArray, to_last: FloatArray
) -> FloatArray:
    """The movement of `plan`, made from another place: what a robot there could really be told.

    from_last, to_last (b, a): the actions that led to the observed frames. Only joint positions depend on the place.
    """
    if spec.representation != "joint_position":
        return plan
    return spec.clip(plan - from_last[:, None] + to_last[:, None])


def active_dims(moved: FloatArray, units: tuple[str, ...]) -> np.ndarray:
    """(m,) True for dimensions of (n, m) movements that move noticeably beside others of the same unit."""
    spread, unit = moved.std(axis=0), np.asarray(units)
    widest = np.array([spread[unit == own].max() for own in units])
    active: np.ndarray = (spread > 0) & (spread >= _ACTIVE_SHARE * widest)
    return active


def _is_mirrored(spec: ActionSpec, a: int) -> bool:
    """Of a vehicle only what leads to the side; elsewhere what goes both ways, beyond the margin of the trained range."""
    if spec.modality == "drive":
        return "steer" in spec.names[a] or spec.names[a] in _SIDEWAYS
    return -spec.lower[a] > _BOTH_WAYS * spec.upper[a]


def _twist(pose: np.ndarray) -> np.ndarray:
    """(4, 4) → translation and rotation vector, (6,)."""
    rotation = pose[:3, :3]
    axis = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(rotation) - 1) / 2
    angle = np.arctan2(sine, cosine)
    scale = angle / (2 * sine) if sine > 1e-9 else 0.5
    return np.concatenate([pose[:3, 3], scale * axis])
