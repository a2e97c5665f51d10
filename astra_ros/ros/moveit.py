"""Which of several MoveIt plans does the world model like best?

    best = plans[WorldModelClient(node).rank(plans, goal, measured=positions).ranking[0]]

or, in a node whose calls may not block:

    request = rank_plans(plans, info, goal, measured=positions)
    reply = await client.call_async(request)         # ~/evaluate_actions

MoveIt is not imported: a plan is a JointTrajectory, or has one as `joint_trajectory` (RobotTrajectory), possibly one
level down as `trajectory` (MotionPlanResponse, and SubTrajectory of a task constructor's solution), or is one of moveit_py's own, which
make a message of themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astra_ros.msg import ActionSequence, Goal, ModelInfo
from astra_ros.ros.stamps import to_duration, to_ns
from astra_ros.ros.trajectories import JointTrajectory, TrajectoryError, to_action_sequence
from astra_ros.srv import EvaluateActions
from astra_ros.types import NANOSECONDS, FloatArray


def rank_plans(
    plans: Sequence[Any],
    info: ModelInfo,
    goal: Goal | None = None,
    *,
    measured: Mapping[str, float] | None = None,
    until_s: float | None = None,
    **fields: Any,
) -> EvaluateActions.Request:
    """One request for all plans, in their order; candidate k has k in the first four bytes of its id, little-endian.

    info: from ~/model_info. goal: None = the standing one. measured: where joints are, as for to_action_sequence.
    until_s: cuts off what comes later, counted from a plan's own start; for plans that are longer than the model foresees
    (info.max_horizon steps). fields: others of the request: top_k, frames, deadline, seed, …
    Raises TrajectoryError, which names the plan, and TypeError for a field that the request does not have.
    """
    candidates = _candidates(plans, info, measured, until_s)
    return to_request(candidates, goal, **fields)


def to_request(
    candidates: Sequence[ActionSequence], goal: Goal | None = None, **fields: Any
) -> EvaluateActions.Request:
    """A request for ~/evaluate_actions. fields: other fields of it by name; the deadline may be a number of seconds.

    Raises TypeError for a field that the request does not have: ROS's own constructor would accept and drop it.
    """
    known = EvaluateActions.Request.get_fields_and_field_types()
    if unknown := sorted(set(fields) - set(known)):
        raise TypeError(
            f"{unknown[0]}: expected a field of EvaluateActions.Request, {', '.join(known)}, found none of that name; what"
            " it has not is a parameter of the node (docs/ros_interface.md)"
        )
    if isinstance(deadline := fields.get("deadline"), int | float):
        fields["deadline"] = to_duration(deadline)
    return EvaluateActions.Request(candidates=candidates, goal=goal or Goal(), **fields)


def plan_rows(
    plans: Sequence[Any],
    info: ModelInfo,
    *,
    measured: Mapping[str, float] | None = None,
    until_s: float | None = None,
) -> FloatArray:
    """Plans as optimisers have them, (n, horizon, a) in the model's order: `planning.refine`, `WorldModelClient.ask`.

    The horizon is that of the longest; the others stay where they end. Stamps are not kept: all begin at once. Arguments and
    errors as of `rank_plans`.
    """
    candidates = _candidates(plans, info, measured, until_s)
    rows = [np.array(candidate.data, np.float32).reshape(candidate.horizon, -1) for candidate in candidates]
    longest = max(map(len, rows), default=0)
    held = [np.pad(plan, ((0, longest - len(plan)), (0, 0)), mode="edge") for plan in rows]
    return np.stack(held) if held else np.empty((0, 0, len(info.action_names)), np.float32)


def _candidates(
    plans: Sequence[Any], info: ModelInfo, measured: Mapping[str, float] | None, until_s: float | None
) -> list[ActionSequence]:
    candidates = []
    for index, plan in enumerate(plans):
        plan_id = (*index.to_bytes(4, "little"), *(0,) * 12)
        try:
            candidate = to_action_sequence(
                joint_trajectory_of(plan), info, measured=measured, plan_id=plan_id
            )
            candidates.append(candidate if until_s is None else _cut(candidate, until_s))
        except TrajectoryError as error:
            raise TrajectoryError(f"plans[{index}].{error}") from error
    return candidates


def _cut(candidate: ActionSequence, until_s: float) -> ActionSequence:
    """Its rows of that time. Raises TrajectoryError for less than one."""
    step_s = to_ns(candidate.step_dt) / NANOSECONDS
    if not math.isfinite(until_s):
        raise TrajectoryError(
            f"until_s: expected a finite number of seconds, found {until_s:g}; leave it out"
        )
    rows = math.floor(until_s / step_s + 1e-6)
    if rows < 1:
        raise TrajectoryError(f"until_s: expected a step of {step_s:g} s or more, found {until_s:g} s")
    candidate.horizon = min(candidate.horizon, rows)
    candidate.data = candidate.data[: candidate.horizon * len(candidate.names)]
    return candidate


def joint_trajectory_of(plan: Any) -> JointTrajectory:
    """Raises TrajectoryError."""
    inner = getattr(plan, "trajectory", plan)
    if hasattr(inner, "get_robot_trajectory_msg"):  # moveit.core.robot_trajectory.RobotTrajectory
        inner = inner.get_robot_trajectory_msg()
    found = getattr(inner, "joint_trajectory", inner)
    if not hasattr(found, "points") or not hasattr(found, "joint_names"):
        raise TrajectoryError(
            f"type: expected a JointTrajectory, a RobotTrajectory, or something with one as `trajectory`, found"
            f" {type(plan).__name__}"
        )
    trajectory: JointTrajectory = found
    return trajectory
