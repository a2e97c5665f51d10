"""trajectory_msgs/JointTrajectory, which MoveIt and ros2_control speak → ActionSequence.

The message type is not imported: whatever has its fields will do.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from builtin_interfaces.msg import Duration
from std_msgs.msg import Header
from unique_identifier_msgs.msg import UUID

from astra_ros.msg import ActionSequence, ModelInfo
from astra_ros.ros.stamps import to_duration, to_ns
from astra_ros.types import NANOSECONDS, FloatArray

# Far longer than any model looks ahead; more would be rows without end.
MAX_DURATION_S = 600.0


class TrajectoryError(ValueError):
    """A trajectory that says nothing about the model's joints. One line: field, expected, found, what fixes it."""


class TrajectoryPoint(Protocol):
    """trajectory_msgs/JointTrajectoryPoint; only these two fields are read."""

    positions: Sequence[float]
    time_from_start: Duration


class JointTrajectory(Protocol):
    """trajectory_msgs/JointTrajectory."""

    header: Header
    joint_names: Sequence[str]
    points: Sequence[TrajectoryPoint]


def to_action_sequence(
    trajectory: JointTrajectory,
    info: ModelInfo,
    *,
    measured: Mapping[str, float] | None = None,
    plan_id: Sequence[int] = (0,) * 16,
) -> ActionSequence:
    """A candidate or plan at the model's step: linear between the points, the last point held to the end of its step.

    info: from ~/model_info. measured: where joints of the model are: those that the trajectory does not move, a gripper for
    example, stay there, and the others start there when the first point is later than 0; without it, the robot is taken to
    be at the first point before; joints that are not the model's are ignored there. plan_id: 16 bytes, echoed in the prediction. header.stamp carries over: 0 = from the
    observation on, as in ROS "start at once".
    Raises TrajectoryError for joints that the model does not know, joints that are missing, and broken points.
    """
    measured = {name: at for name, at in (measured or {}).items() if name in info.action_names}
    times_s, positions = _from_now(
        *_points(trajectory), [measured.get(name) for name in trajectory.joint_names]
    )
    step_dt = to_ns(info.step_dt) / NANOSECONDS
    # Half a nanosecond less: a point exactly at the end of a step belongs to it.
    horizon = max(1, int(np.ceil((times_s[-1] - 0.5e-9) / step_dt)))
    wanted_s = step_dt * np.arange(1, horizon + 1)
    columns = {
        name: np.interp(wanted_s, times_s, joint)
        for name, joint in zip(trajectory.joint_names, positions.T, strict=True)
    }
    held = {name: at for name, at in measured.items() if name not in trajectory.joint_names}
    rows = _in_order(columns, info.action_names, held, horizon)
    return ActionSequence(
        header=Header(stamp=trajectory.header.stamp),
        id=UUID(uuid=np.array(plan_id, np.uint8)),
        representation=ActionSequence.REPRESENTATION_JOINT_POSITION,
        step_dt=to_duration(step_dt),
        horizon=horizon,
        names=list(info.action_names),
        data=array("f", rows.ravel()),
    )


def _points(trajectory: JointTrajectory) -> tuple[Any, Any]:
    """Times (n,) [s] and positions (n, joints)."""
    joints, points = len(trajectory.joint_names), trajectory.points
    if not points:
        raise TrajectoryError(
            "points: expected at least 1, found none; send the plan, not only its joint names"
        )
    if len(set(trajectory.joint_names)) != joints:
        raise TrajectoryError(
            f"joint_names: expected every joint once, found {', '.join(trajectory.joint_names)}"
        )
    for index, point in enumerate(points):
        if len(point.positions) != joints:
            raise TrajectoryError(
                f"points[{index}].positions: expected {joints} values (one per joint name), found {len(point.positions)};"
                " send positions, not only velocities"
            )
    times_s = np.array([to_ns(point.time_from_start) for point in points]) / NANOSECONDS
    if times_s[0] < 0 or (np.diff(times_s) <= 0).any():
        raise TrajectoryError(
            "time_from_start: expected times that rise from 0 or later, found"
            f" {', '.join(f'{time:g}' for time in times_s[:8])} s; time-parameterise the plan first"
        )
    if times_s[-1] > MAX_DURATION_S:
        raise TrajectoryError(
            f"time_from_start: expected an end within {MAX_DURATION_S:g} s, found {times_s[-1]:g} s; send the first part"
        )
    positions = np.array([point.positions for point in points], np.float64)
    if not np.isfinite(positions).all():
        index, joint = np.argwhere(~np.isfinite(positions))[0]
        raise TrajectoryError(
            f"points[{index}].positions: expected finite numbers, found {positions[index, joint]} for"
            f" {trajectory.joint_names[joint]!r}"
        )
    return times_s, positions


def _from_now(times_s: Any, positions: Any, start: Sequence[float | None]) -> tuple[Any, Any]:
    """With the measured positions as the point at 0, where they are known and there is none."""
    known = [at for at in start if at is not None]
    if times_s[0] == 0 or len(known) < len(start):
        return times_s, positions
    return np.concatenate([[0.0], times_s]), np.concatenate([[known], positions])


def _in_order(
    columns: dict[str, Any], names: Sequence[str], held: dict[str, float], horizon: int
) -> FloatArray:
    """(horizon, a) in the model's order."""
    unknown = [name for name in columns if name not in names]
    if unknown:
        raise TrajectoryError(
            f"joint_names: expected joints of the model ({', '.join(names)}), found {', '.join(unknown)}; plan for the group"
            " that the model was trained on"
        )
    missing = [name for name in names if name not in columns and name not in held]
    if missing:
        raise TrajectoryError(
            f"joint_names: expected {', '.join(names)}; missing {', '.join(missing)}; give their positions as"
            " measured={name: position}, from the joint states"
        )
    still = {name: np.full(horizon, position) for name, position in held.items()}
    return np.stack([{**still, **columns}[name] for name in names], axis=1).astype(np.float32)
