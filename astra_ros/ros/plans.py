"""ActionSequence → the commanded joint positions, or velocities of a vehicle, of every predicted frame.

Row k of a plan is the position at its stamp + (k + 1) * its step_dt; frame k of a prediction wants the position at
t0 + (k + 1) * the model's step_dt. Between two rows a joint moves linearly; from t0 to the first row that has not
elapsed it moves from where it was measured. A velocity is in force during its step, and a frame wants the mean of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.actions.velocities import COMMAND_TIMEOUT_S, mean_levels
from astra_ros.msg import ActionSequence, PredictedFuture
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import to_ns
from astra_ros.types import NANOSECONDS, FloatArray

NO_PLAN_ID = (0,) * 16
# Plans that follow each other, as somebody sends who plans anew many times a second.
_MOST_PLANS = 256
# Predictions begin at pictures that are younger than that, unless they may be older.
_OLDEST_T0_NS = NANOSECONDS
REPRESENTATIONS = {
    "joint_position": ActionSequence.REPRESENTATION_JOINT_POSITION,
    "rate": ActionSequence.REPRESENTATION_BASE_VELOCITY,
}


@dataclass(frozen=True)
class Plan:
    """What the robot is going to be told.

    plan_id: (16,) the sender's id. stamp_ns: start; 0 = the observation that a prediction starts from.
    rows: (n, a) positions or velocities in the model's order and units; NaN: of joints that it leaves where they are, or on their way to
    the next row that says more. received_ns: on the node's clock.
    """

    plan_id: tuple[int, ...]
    stamp_ns: int
    step_ns: int
    rows: FloatArray
    received_ns: int

    def is_usable(self, t0_ns: int, now_ns: int, timeout_s: float) -> bool:
        """Until it is over; without a stamp, which gives no end, until it was received timeout_s ago."""
        if self.stamp_ns:
            return self.stamp_ns + len(self.rows) * self.step_ns > t0_ns
        return now_ns - self.received_ns <= timeout_s * NANOSECONDS


class Schedule:
    """The plan in force, and those that follow it, in the order of their starts; and what a vehicle is told without one."""

    def __init__(self) -> None:
        self._plans: list[Plan] = []
        self._command: Plan | None = None

    def set(self, plan: Plan, picture_age_ns: int = 0) -> None:
        """In force from its start on; what was to start later is replaced. picture_age_ns: how old one may be."""
        self._drop_superseded(plan.received_ns - max(_OLDEST_T0_NS, picture_age_ns))
        earlier = [one for one in self._plans if one.stamp_ns < plan.stamp_ns]
        self._plans = [*earlier, plan][-_MOST_PLANS:]

    def set_command(self, command: Plan) -> None:
        """In force where no plan is: a controller that follows one sends commands all the time."""
        self._command = command

    def withdraw(self) -> None:
        """All plans."""
        self._plans = []

    def clear(self) -> None:
        self._plans, self._command = [], None

    def at(self, t0_ns: int, now_ns: int, timeout_s: float) -> Plan | None:
        """What a prediction from t0 is made for, which rises from call to call; the command, else the next plan, when none is in force."""
        self._drop_superseded(t0_ns)
        plan = next((one for one in self._plans if one.is_usable(t0_ns, now_ns, timeout_s)), None)
        is_told = self._command and self._command.is_usable(t0_ns, now_ns, COMMAND_TIMEOUT_S)
        return self._command if is_told and (plan is None or plan.stamp_ns > t0_ns) else plan

    def _drop_superseded(self, t0_ns: int) -> None:
        num_begun = sum(plan.stamp_ns <= t0_ns for plan in self._plans)
        self._plans = self._plans[max(num_begun - 1, 0) :]


@dataclass(frozen=True)
class Commands:
    """What a prediction is made for.

    rows: (horizon, a) inside the range seen in training. plan_id: (16,), zeros without a plan.
    flags: PredictedFuture.FLAG_* about the actions.
    """

    rows: FloatArray
    plan_id: tuple[int, ...]
    flags: int

    @property
    def is_hold_still(self) -> bool:
        return bool(self.flags & PredictedFuture.FLAG_HOLD_STILL)


def read_plan(message: ActionSequence, spec: ActionSpec, latest_start_s: float, now_ns: int) -> Plan:
    """Raises Refusal. latest_start_s: after now."""
    columns = _find_columns(message, spec)
    rows = _rows(message, len(message.names) or spec.dim)[:, columns]
    if not np.isfinite(rows).all():
        row, column = np.argwhere(~np.isfinite(rows))[0]
        raise _refusal(
            f"data: expected finite numbers, found {rows[row, column]} for {spec.names[column]!r} in row {row};"
            " check the planner"
        )
    plan = Plan(
        plan_id=tuple(message.id.uuid.tolist()),
        stamp_ns=to_ns(message.header.stamp),
        step_ns=to_ns(message.step_dt),
        rows=rows,
        received_ns=now_ns,
    )
    require_overlap(plan, latest_start_s, now_ns)
    return plan


def commands_for(
    plan: Plan | None, t0_ns: int, measured: FloatArray, horizon: int, spec: ActionSpec
) -> Commands:
    """Positions or velocities for every frame of a prediction from t0.

    plan: None = go on as measured: hold still, or drive on. measured: (a,) at t0. Returns horizon rows.
    """
    if plan is None:
        rows, flags = np.tile(measured, (horizon, 1)), int(PredictedFuture.FLAG_HOLD_STILL)
    else:
        rows, flags = _rows_from(plan, t0_ns, measured, horizon, spec)
    clipped = spec.clip(rows)
    if not np.array_equal(clipped, rows):
        flags |= PredictedFuture.FLAG_ACTION_CLIPPED
    return Commands(clipped, plan.plan_id if plan else NO_PLAN_ID, flags)


def _rows_from(
    plan: Plan, t0_ns: int, measured: FloatArray, horizon: int, spec: ActionSpec
) -> tuple[FloatArray, int]:
    """(horizon, a), and the flags of a plan of another length."""
    step_ns = round(spec.step_dt * NANOSECONDS)
    if not plan.stamp_ns and plan.step_ns == step_ns and np.isfinite(plan.rows).all():
        # As most candidates are, and there are many of them.
        rows = plan.rows[np.minimum(np.arange(horizon), len(plan.rows) - 1)]
        return rows, _length_flags(len(plan.rows), horizon)
    resample = _resample if spec.representation == "joint_position" else _average
    return resample(plan, t0_ns, measured, horizon, step_ns)


def _resample(
    plan: Plan, t0_ns: int, measured: FloatArray, horizon: int, step_ns: int
) -> tuple[FloatArray, int]:
    start_ns = plan.stamp_ns - t0_ns if plan.stamp_ns else 0
    row_ns = start_ns + plan.step_ns * np.arange(1, len(plan.rows) + 1)
    ahead = row_ns > 0
    # A plan that starts later than t0 leaves the robot where it is until then.
    still_ns = [0, start_ns] if start_ns > 0 else [0]
    knots_ns = np.concatenate([still_ns, row_ns[ahead]])
    knots = np.concatenate([np.tile(measured, (len(still_ns), 1)), plan.rows[ahead]])
    wanted_ns = step_ns * np.arange(1, horizon + 1)
    joints = [_between(wanted_ns, knots_ns, joint) for joint in knots.T]
    rows = np.stack(joints, axis=1).astype(np.float32)
    return rows, _length_flags(int(row_ns[-1]), int(wanted_ns[-1]))


def _average(
    plan: Plan, t0_ns: int, measured: FloatArray, horizon: int, step_ns: int
) -> tuple[FloatArray, int]:
    """A vehicle goes on as measured until the plan starts, and as the last row says once it is over."""
    start_ns = plan.stamp_ns - t0_ns if plan.stamp_ns else 0
    changes_ns = start_ns + plan.step_ns * np.arange(len(plan.rows))
    ends_ns = step_ns * np.arange(1, horizon + 1)
    levels = np.concatenate([measured[None], plan.rows])
    rows = mean_levels(changes_ns, levels, ends_ns - step_ns, ends_ns)
    return rows, _length_flags(start_ns + plan.step_ns * len(plan.rows), int(ends_ns[-1]))


def _between(wanted_ns: Any, knots_ns: Any, joint: FloatArray) -> Any:
    """Linear between the knots that say where the joint is."""
    is_said = np.isfinite(joint)
    return np.interp(wanted_ns, knots_ns[is_said], joint[is_said])


def _length_flags(plan_end: int, horizon_end: int) -> int:
    """Both in one unit."""
    if plan_end > horizon_end:
        return int(PredictedFuture.FLAG_HORIZON_CLIPPED)
    return int(PredictedFuture.FLAG_PLAN_EXTENDED) if plan_end < horizon_end else 0


def _find_columns(message: ActionSequence, spec: ActionSpec) -> list[int]:
    expected = REPRESENTATIONS[spec.representation]
    if message.representation == ActionSequence.REPRESENTATION_MODEL_NATIVE:
        return _native_columns(message, spec)
    if message.representation != expected:
        raise _refusal(
            f"representation: expected {expected} ({spec.representation}, as the model was trained) or"
            f" {ActionSequence.REPRESENTATION_MODEL_NATIVE} (its own numbers), found {message.representation}; convert the plan"
        )
    names: Sequence[str] = message.names
    missing = [name for name in spec.names if name not in names]
    if missing or len(set(names)) != len(names):
        raise _refusal(
            f"names: expected {', '.join(spec.names)}, each once and in any order; missing"
            f" {', '.join(missing) or 'none'}, found {', '.join(names) or 'none'}; name the columns as ~/model_info does"
        )
    return [list(names).index(name) for name in spec.names]


def _native_columns(message: ActionSequence, spec: ActionSpec) -> list[int]:
    if message.names and tuple(message.names) != spec.names:
        raise _refusal(
            f"names: expected {', '.join(spec.names)} in this order, or none, for the model's own numbers, found"
            f" {', '.join(message.names)}; leave names empty, or say representation {REPRESENTATIONS[spec.representation]}"
        )
    return list(range(spec.dim))


def _rows(message: ActionSequence, width: int) -> FloatArray:
    """(horizon, width)."""
    if message.horizon < 1:
        raise _refusal("horizon: expected at least 1 row, found 0; set the number of rows")
    if to_ns(message.step_dt) <= 0:
        raise _refusal("step_dt: expected a duration above 0, found 0; set the time between two rows")
    expected = message.horizon * width
    if len(message.data) != expected:
        raise _refusal(
            f"data: expected horizon * len(names) = {message.horizon} * {width} = {expected} values, found"
            f" {len(message.data)}; send row-major (horizon, names)"
        )
    return np.array(message.data, np.float32).reshape(message.horizon, width)


def require_overlap(plan: Plan, latest_start_s: float, now_ns: int) -> None:
    """Raises Refusal for a plan that is over, or starts later than this after now."""
    if not plan.stamp_ns:
        return
    end_ns = plan.stamp_ns + len(plan.rows) * plan.step_ns
    fix = (
        "stamp it with its start, or with 0 for 'from the observation on'; check use_sim_time and the clocks"
    )
    if end_ns <= now_ns:
        raise _refusal(
            f"header.stamp: expected a plan that is not over, found one that ended"
            f" {(now_ns - end_ns) / NANOSECONDS:.3f} s ago; {fix}"
        )
    if plan.stamp_ns - now_ns > latest_start_s * NANOSECONDS:
        raise _refusal(
            f"header.stamp: expected a start within {latest_start_s:g} s, found one"
            f" {(plan.stamp_ns - now_ns) / NANOSECONDS:.3f} s from now; {fix}"
        )


def _refusal(line: str) -> Refusal:
    return Refusal(Drop.BAD_PLAN, line)
