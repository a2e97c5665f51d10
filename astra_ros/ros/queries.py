"""Requests of ~/evaluate_actions and ~/predict_futures, checked in one place: what is wrong has a status and one line."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np

from astra_ros.action import PredictFutures
from astra_ros.backends.manifest import Manifest
from astra_ros.frames.preprocess import fit_stacked
from astra_ros.msg import Goal
from astra_ros.ros.conversions import to_rgb
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import Plan, read_plan
from astra_ros.ros.refusal import Refusal
from astra_ros.ros.stamps import to_ns
from astra_ros.srv import EvaluateActions
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

Request: TypeAlias = EvaluateActions.Request | PredictFutures.Goal
_FRAMES = (
    EvaluateActions.Request.FRAMES_NONE,
    EvaluateActions.Request.FRAMES_LAST,
    EvaluateActions.Request.FRAMES_ALL,
)


class Status(IntEnum):
    """EvaluateActions.Response.STATUS_*."""

    OK = EvaluateActions.Response.STATUS_OK
    PARTIAL = EvaluateActions.Response.STATUS_PARTIAL
    REJECTED = EvaluateActions.Response.STATUS_REJECTED
    BUSY = EvaluateActions.Response.STATUS_BUSY
    NOT_ACTIVE = EvaluateActions.Response.STATUS_NOT_ACTIVE
    STALE_OBSERVATION = EvaluateActions.Response.STATUS_STALE_OBSERVATION
    ERROR = EvaluateActions.Response.STATUS_ERROR
    NOT_SUPPORTED = EvaluateActions.Response.STATUS_NOT_SUPPORTED


class QueryRefusal(ValueError):  # noqa: N818 - an answer, not a malfunction
    """A question that is not answered. One line: the field, what was expected, what was found, and what fixes it."""

    def __init__(self, status: Status, line: str) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True)
class GoalInput:
    """Exactly one of the two. pixels: (h, w, 3) at the model's size. latents: (c, h, w)."""

    pixels: ByteArray | None = None
    latents: FloatArray | None = None


@dataclass(frozen=True)
class Query:
    """A request that can be answered once there is an observation.

    goal: None = the standing one, if any. frames: Request.FRAMES_*. denoising_steps: of the scores too, all that the model has;
    0 = as the node is configured. received_s, deadline_s: time.monotonic(); deadline_s None = none.
    """

    plans: tuple[Plan, ...]
    goal: GoalInput | None
    frames: int
    top_k: int
    compressed: bool
    denoising_steps: int
    seed: int
    received_s: float
    deadline_s: float | None

    def is_over_at(self, time_s: float) -> bool:
        """The deadline has passed by then (time.monotonic())."""
        return self.deadline_s is not None and time_s >= self.deadline_s


def read_query(request: Request, manifest: Manifest, config: NodeConfig, now_ns: int) -> Query:
    """Raises QueryRefusal. now_ns: on the node's clock."""
    received_s = time.monotonic()
    _require_limits(request, manifest, config)
    allowed_ns = to_ns(request.deadline)
    return Query(
        plans=_read_plans(request, manifest, now_ns),
        goal=read_goal(request.goal, manifest),
        frames=request.frames,
        top_k=request.top_k,
        compressed=request.compressed,
        denoising_steps=request.denoising_steps,
        seed=secrets.randbelow(2**31) if request.seed == -1 else request.seed,
        received_s=received_s,
        deadline_s=received_s + allowed_ns / NANOSECONDS if allowed_ns else None,
    )


def horizon_of(plans: Sequence[Plan], t0_ns: int, manifest: Manifest) -> int:
    """Frames until the longest plan is over: all candidates are compared at the same time. Raises QueryRefusal."""
    step_ns = round(manifest.action.step_dt * NANOSECONDS)
    ends_ns = [
        (plan.stamp_ns - t0_ns if plan.stamp_ns else 0) + len(plan.rows) * plan.step_ns for plan in plans
    ]
    for index, end_ns in enumerate(ends_ns):
        if end_ns <= 0:
            raise _rejected(
                f"candidates[{index}].header.stamp: expected a plan that is not over when its turn comes, found one that"
                f" ended {-end_ns / NANOSECONDS:.3f} s before the observation; send longer plans, or stamp them with 0 for"
                " 'from the observation on'"
            )
    longest = int(np.argmax(ends_ns))
    horizon = -(-ends_ns[longest] // step_ns)
    if horizon > manifest.max_horizon:
        raise QueryRefusal(
            Status.REJECTED,
            f"candidates[{longest}].horizon: expected an end within {manifest.max_horizon} frames of"
            f" {manifest.action.step_dt:g} s (ModelInfo.max_horizon) from the observation, found {horizon}; send shorter"
            " plans",
        )
    return horizon


def _require_limits(request: Request, manifest: Manifest, config: NodeConfig) -> None:
    count = len(request.candidates)
    if not count:
        raise _rejected("candidates: expected at least 1, found none; send one ActionSequence per plan")
    if count > config.max_candidates:
        raise _rejected(
            f"candidates: expected at most {config.max_candidates} (max_candidates), found {count}; ask in several requests"
        )
    if request.top_k > config.max_futures:
        raise _rejected(
            f"top_k: expected at most {config.max_futures} (max_futures), found {request.top_k}; all scores come anyway"
        )
    if request.frames not in _FRAMES:
        raise _rejected(f"frames: expected one of {_FRAMES} (FRAMES_*), found {request.frames}")
    if request.seed < -1:
        raise _rejected(f"seed: expected 0 or more, or -1 for a random one, found {request.seed}")
    if to_ns(request.deadline) < 0:
        raise _rejected(
            f"deadline: expected a duration of 0 (none) or more, found {to_ns(request.deadline) / NANOSECONDS:g} s;"
            " it counts from the request's receipt"
        )
    if request.denoising_steps not in (0, manifest.num_steps):
        raise QueryRefusal(
            Status.NOT_SUPPORTED,
            f"denoising_steps: expected 0 or {manifest.num_steps} (ModelInfo.denoising_steps), found"
            f" {request.denoising_steps}; export a bundle with that many",
        )


def _read_plans(request: Request, manifest: Manifest, now_ns: int) -> tuple[Plan, ...]:
    horizon_s = manifest.max_horizon * manifest.action.step_dt
    plans = []
    for index, candidate in enumerate(request.candidates):
        try:
            plans.append(read_plan(candidate, manifest.action, horizon_s, now_ns))
        except Refusal as refusal:
            raise _rejected(f"candidates[{index}].{refusal}") from refusal
    return tuple(plans)


def read_goal(goal: Goal, manifest: Manifest) -> GoalInput | None:
    """None for TYPE_NONE. Raises QueryRefusal."""
    if goal.type == Goal.TYPE_NONE:
        return None
    if goal.type == Goal.TYPE_IMAGE:
        return GoalInput(pixels=_fitted(goal.image, "goal.image", manifest))
    if goal.type == Goal.TYPE_COMPRESSED_IMAGE:
        return GoalInput(pixels=_fitted(goal.compressed_image, "goal.compressed_image", manifest))
    if goal.type == Goal.TYPE_EMBEDDING:
        return GoalInput(latents=_embedding(goal, manifest))
    if goal.type == Goal.TYPE_TEXT:
        raise QueryRefusal(
            Status.NOT_SUPPORTED,
            "goal.type: expected TYPE_IMAGE, TYPE_COMPRESSED_IMAGE or TYPE_EMBEDDING, found TYPE_TEXT, which this model does"
            " not understand; send a picture of the goal",
        )
    raise _rejected(f"goal.type: expected one of Goal.TYPE_*, found {goal.type}")


def _fitted(message: object, field: str, manifest: Manifest) -> ByteArray:
    try:
        rgb = to_rgb(message)
    except Refusal as refusal:
        raise _rejected(f"{field}: {refusal}") from refusal
    try:
        fitted = fit_stacked(rgb, manifest.camera.count, *manifest.camera.size)
    except ValueError as error:
        raise _rejected(f"{field}: {error}") from error
    return np.array(fitted)  # a copy: the picture may lie in the request's memory


def _embedding(goal: Goal, manifest: Manifest) -> FloatArray:
    shape = manifest.latents
    size = (shape.channels, shape.height, shape.width)
    values = np.array(goal.embedding, np.float32)
    if values.size != np.prod(size):
        raise _rejected(
            f"goal.embedding: expected {np.prod(size)} numbers, the latents (c, h, w) = {size} of a frame row by row,"
            f" found {values.size}; send a picture instead"
        )
    if not np.isfinite(values).all():
        raise _rejected(f"goal.embedding: expected finite numbers, found {values[~np.isfinite(values)][0]}")
    return values.reshape(size)


def _rejected(line: str) -> QueryRefusal:
    return QueryRefusal(Status.REJECTED, line)
