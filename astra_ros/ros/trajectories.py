"""trajectory_msgs/JointTrajectory, as MoveIt plans and ros2_control takes → ActionSequence of a question, or plan in force.

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
from astra_ros.ros.plans import NO_PLAN_ID, Plan
from astra_ros.ros.stamps import to_ns
from astra_ros.types import NANOSECONDS, FloatArray

# Far longer than any model looks ahead; more would be rows without end, and a start later than that is of another clock.
MAX_DURATION_S = 600.0
# How far a plan may begin from where the robot is, in usual changes of each joint (ModelInfo.action_step_std).
START_STEPS = 1.5
# Of the most mobile joint's usual change: what a joint may be off that stood still in training, as a parked gripper does.
LEAST_STEP = 0.02


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

    info: from ~/model_info.
    measured: positions of the model's joints by name; other joints in it are ignored. Joints that the trajectory does not
    move, such as a gripper, stay there. The others start there when the first point is later than 0; without `measured` the
    robot is taken to be at the first point until then.
    plan_id: 16 bytes, echoed in the prediction. header.stamp carries over: 0 = from the observation on, as in ROS "start at
    once".
    Raises TrajectoryError for joints that the model does not know, joints that are missing, a start where the robot is not, and
    broken points.
    """
    measured = {name: at for name, at in (measured or {}).items() if name in info.action_names}
    times_ns, positions = _points(trajectory)
    start = [measured.get(name) for name in trajectory.joint_names]
    known = [at for at in start if at is not None]
    _require_start(trajectory, info, measured)
    if len(known) == len(start):
        times_ns, positions = _begun(times_ns, positions, known, at_ns=0)
    columns = _resampled(times_ns, positions, to_ns(info.step_dt))
    horizon = len(columns)
    held = {name: at for name, at in measured.items() if name not in trajectory.joint_names}
    rows = _in_order(
        dict(zip(trajectory.joint_names, columns.T, strict=True)), info.action_names, held, horizon
    )
    return ActionSequence(
        header=Header(stamp=trajectory.header.stamp),
        id=UUID(uuid=np.array(plan_id, np.uint8)),
        representation=ActionSequence.REPRESENTATION_JOINT_POSITION,
        step_dt=info.step_dt,
        horizon=horizon,
        names=list(info.action_names),
        data=array("f", rows.ravel()),
    )


def read_trajectory(
    trajectory: JointTrajectory, names: Sequence[str], step_ns: int, measured: FloatArray | None, now_ns: int
) -> Plan:
    """The plan that a controller carries out when it receives the trajectory now; with stamp 0 it starts now.

    names, step_ns: the model's joints and step. measured: (a,) where the robot is, or will be at a later start; from there it
    moves to the first point, unless that is over. Rows are NaN for joints that the trajectory leaves out and, without
    `measured`, until the first point. Raises TrajectoryError.
    """
    times_ns, points = _points(trajectory)
    _require_known(trajectory.joint_names, names)
    columns = [names.index(name) for name in trajectory.joint_names]
    stamp_ns = to_ns(trajectory.header.stamp) or now_ns
    start = np.full(len(columns), np.nan) if measured is None else measured[columns]
    moved = _resampled(*_begun(times_ns, points, start, at_ns=max(0, now_ns - stamp_ns)), step_ns)
    rows = np.full((len(moved), len(names)), np.nan, np.float32)
    rows[:, columns] = moved
    return Plan(NO_PLAN_ID, stamp_ns, step_ns, rows, now_ns)


def _points(trajectory: JointTrajectory) -> tuple[Any, Any]:
    """Times (n,) [ns] and positions (n, joints)."""
    joints, points = len(trajectory.joint_names), trajectory.points
    if not points:
        raise TrajectoryError(
            "points: expected at least 1, found none; send the plan, not only its joint names"
        )
    if not joints or len(set(trajectory.joint_names)) != joints:
        raise TrajectoryError(
            f"joint_names: expected every joint once, found {', '.join(trajectory.joint_names) or 'none'}"
        )
    for index, point in enumerate(points):
        if len(point.positions) != joints:
            raise TrajectoryError(
                f"points[{index}].positions: expected {joints} values (one per joint name), found {len(point.positions)};"
                " send positions, not only velocities"
            )
    times_ns = np.array([to_ns(point.time_from_start) for point in points])
    times_s = times_ns / NANOSECONDS
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
    return times_ns, positions


def _require_start(trajectory: JointTrajectory, info: ModelInfo, measured: Mapping[str, float]) -> None:
    """A plan that is elsewhere at once would be judged as if the robot had jumped there, and a controller would make it jump."""
    first, steps = trajectory.points[0], np.array(info.action_step_std)
    if to_ns(first.time_from_start) or to_ns(trajectory.header.stamp) or not len(steps):
        return
    limits = dict(
        zip(info.action_names, START_STEPS * np.maximum(steps, LEAST_STEP * steps.max()), strict=True)
    )
    for joint, at in zip(trajectory.joint_names, first.positions, strict=True):
        if joint in measured and abs(at - measured[joint]) > limits[joint]:
            raise TrajectoryError(
                f"points[0].positions: expected {joint} within {limits[joint]:.3g} of where it is, {measured[joint]:.4g}, found"
                f" {at:.4g} at time 0; plan from the present state, or give the first point a later time"
            )


def _begun(times_ns: Any, positions: Any, start: Any, at_ns: int) -> tuple[Any, Any]:
    """The points after where the robot is at at_ns, start (joints,); none of that once the first point is due."""
    if at_ns >= times_ns[0]:
        return times_ns, positions
    return np.concatenate([[at_ns], times_ns]), np.concatenate([[start], positions])


def _resampled(times_ns: Any, positions: Any, step_ns: int) -> FloatArray:
    """(horizon, joints) at the end of every step, the last point held to the end of its own."""
    horizon = max(1, -(-int(times_ns[-1]) // step_ns))
    wanted_ns = step_ns * np.arange(1, horizon + 1)
    columns = [np.interp(wanted_ns, times_ns, joint) for joint in positions.T]
    return np.stack(columns, axis=1).astype(np.float32)


def _require_known(joints: Sequence[str], names: Sequence[str]) -> None:
    unknown = [joint for joint in joints if joint not in names]
    if unknown:
        raise TrajectoryError(
            f"joint_names: expected joints of the model ({', '.join(names)}), found {', '.join(unknown)}; plan for the group"
            " that the model was trained on"
        )


def _in_order(
    columns: dict[str, Any], names: Sequence[str], held: dict[str, float], horizon: int
) -> FloatArray:
    """(horizon, a) in the model's order."""
    _require_known(list(columns), names)
    missing = [name for name in names if name not in columns and name not in held]
    if missing:
        raise TrajectoryError(
            f"joint_names: expected {', '.join(names)}; missing {', '.join(missing)}; give their positions as"
            " measured={name: position}, from the joint states"
        )
    still = {name: np.full(horizon, position) for name, position in held.items()}
    return np.stack([{**still, **columns}[name] for name in names], axis=1).astype(np.float32)
