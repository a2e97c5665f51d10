"""What a row of actions means, and what the network is told of it. Numpy only.

Each representation turns recorded rows at camera rate into one action per model step, and those into features.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from astra_ros.types import FloatArray

_POSE_VALUES = 12


class Scales(NamedTuple):
    """mean, std: of a row, (a,). delta_std: of what rows add up to, (a,). step_dt: seconds of a step."""

    mean: FloatArray
    std: FloatArray
    delta_std: FloatArray
    step_dt: float


class Representation(Protocol):
    """One meaning of an action row."""

    features_per_dim: int

    def check_dim(self, dim: int) -> None:
        """Raise ValueError when a row cannot have `dim` values."""

    def steps(self, recorded: FloatArray, frames: np.ndarray, stride: int) -> FloatArray:
        """(t, a) recorded rows, (n,) frame indices, frames per step → (n, a), the action that led to each frame."""

    def rest(self, measured: FloatArray) -> FloatArray:
        """(a,) as measured last → (a,), what leaves the robot where it is."""

    def features(
        self,
        actions: FloatArray,
        previous: FloatArray,
        scales: Scales,
        *,
        is_past: bool,
    ) -> FloatArray:
        """(t, a) rows → (t, features_per_dim * a)."""


class JointPosition:
    """Absolute joint targets, each reached at the end of its step."""

    features_per_dim = 3

    def check_dim(self, dim: int) -> None:
        """Any number of joints."""

    def steps(self, recorded: FloatArray, frames: np.ndarray, stride: int) -> FloatArray:
        del stride
        return recorded[np.maximum(frames, 0)]

    def rest(self, measured: FloatArray) -> FloatArray:
        return measured

    def features(
        self,
        actions: FloatArray,
        previous: FloatArray,
        scales: Scales,
        *,
        is_past: bool,
    ) -> FloatArray:
        """Position, change since the frame before, change since `previous` (0 for the past)."""
        before = np.concatenate([previous[None], actions[:-1]])
        step, total = (actions - before) / scales.delta_std, (actions - previous) / scales.delta_std
        return np.concatenate([(actions - scales.mean) / scales.std, step, total * (not is_past)], axis=1)


class Rate:
    """What acts during a step: steering angle, speed, pressed keys, mouse movement."""

    features_per_dim = 2

    def check_dim(self, dim: int) -> None:
        """Any number of controls."""

    def steps(self, recorded: FloatArray, frames: np.ndarray, stride: int) -> FloatArray:
        """The mean over the step."""
        window = np.maximum(frames[:, None] - np.arange(stride), 0)
        mean: FloatArray = recorded[window].mean(axis=1)
        return mean

    def rest(self, measured: FloatArray) -> FloatArray:
        return np.zeros_like(measured)

    def features(
        self,
        actions: FloatArray,
        previous: FloatArray,
        scales: Scales,
        *,
        is_past: bool,
    ) -> FloatArray:
        """Rate, and its integral since the observation (0 for the past)."""
        del previous
        total = np.cumsum(actions, axis=0) * scales.step_dt / scales.delta_std
        return np.concatenate([(actions - scales.mean) / scales.std, total * (not is_past)], axis=1)


class RelativePose:
    """Pose of the camera in its own frame of one step earlier: a 3x4 matrix, row-major (paper: A.10).

    Recorded rows are absolute camera-to-world poses of the same shape.
    """

    features_per_dim = 2

    def check_dim(self, dim: int) -> None:
        if dim != _POSE_VALUES:
            raise ValueError(
                f"action.names: expected {_POSE_VALUES} for relative_pose (3x4, row-major), found {dim}"
            )

    def steps(self, recorded: FloatArray, frames: np.ndarray, stride: int) -> FloatArray:
        now, before = recorded[np.maximum(frames, 0)], recorded[np.maximum(frames - stride, 0)]
        return _rows(np.linalg.inv(pose_matrices(before)) @ pose_matrices(now))

    def rest(self, measured: FloatArray) -> FloatArray:
        del measured
        return _rows(np.eye(4)[None])[0]

    def features(
        self,
        actions: FloatArray,
        previous: FloatArray,
        scales: Scales,
        *,
        is_past: bool,
    ) -> FloatArray:
        """Step, and the pose since the observation (identity for the past)."""
        del previous
        pose, poses = np.eye(4), []
        for step in pose_matrices(actions):
            pose = pose @ step
            poses.append(pose)
        total = (_rows(np.stack(poses)) - _rows(np.eye(4)[None])) / scales.delta_std
        return np.concatenate([(actions - scales.mean) / scales.std, total * (not is_past)], axis=1)


def pose_matrices(rows: FloatArray) -> np.ndarray:
    """(t, 12) → (t, 4, 4)."""
    last = np.broadcast_to(np.array([[[0.0, 0.0, 0.0, 1.0]]]), (len(rows), 1, 4))
    return np.concatenate([rows.reshape(-1, 3, 4).astype(np.float64), last], axis=1)


def _rows(matrices: np.ndarray) -> FloatArray:
    """(t, 4, 4) → (t, 12)."""
    return matrices[:, :3].reshape(-1, _POSE_VALUES).astype(np.float32)


REPRESENTATIONS: dict[str, Representation] = {
    "joint_position": JointPosition(),
    "rate": Rate(),
    "relative_pose": RelativePose(),
}
