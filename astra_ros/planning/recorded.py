"""A plan from a moment of a recording to a picture, beside holding still and what the robot really did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends.base import Backend, Past
from astra_ros.data.episode import Episode, IntArray, frame_stride
from astra_ros.planning.evaluation import Evaluation, Future, Question, costs_of
from astra_ros.planning.goals import Goal, GoalDistance, MakeGoalDistance, codec_distance, measured
from astra_ros.planning.sampling import Costs, Planned
from astra_ros.rollout.candidates import Candidates
from astra_ros.rollout.proposals import Proposed
from astra_ros.rollout.world_model import SLOT_TOLERANCE, WorldModel
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray, Observation

# `weigh`, `refine`, `cem` or `mppi` with config and seed: (costs, first guess, proposals, action space) → plan.
Optimise = Callable[[Costs, FloatArray, Proposed, ActionSpec], Planned]


@dataclass(frozen=True)
class PlanningTask:
    """now: index of the frame to plan from. goal: (h, w, 3) uint8 of the model's size. horizon: frames. seed: of the model.

    ranking_steps: denoising steps that the costs come from; 0: all. goal_frames: as for `Question`. num_proposals: of the model's own, among the guesses.
    distance_to: what the goal is compared by.
    """

    episode: Episode
    now: int
    goal: ByteArray
    horizon: int
    seed: int = 0
    ranking_steps: int = 0
    num_proposals: int = 0
    distance_to: MakeGoalDistance = codec_distance
    goal_frames: int = 1


@dataclass(frozen=True)
class Iteration:
    """candidates: evaluated in it. best: least cost since the first iteration. mean: of this one's costs."""

    candidates: int
    best: float
    mean: float


@dataclass(frozen=True)
class FinalDistances:
    """To the goal, at the end of the horizon.

    hold_still, plan, recorded_actions: of the futures predicted in all steps, from the same past and with the same noise.
    happened: of the recorded frame. The last two are None where the recording ends before the horizon.
    """

    hold_still: float
    plan: float
    recorded_actions: float | None
    happened: float | None


@dataclass(frozen=True)
class PlannedTask:
    """plan: (horizon, a) commanded positions. seconds: of the optimisation alone, every graph opened, the past encoded.

    predicted: (horizon, h, w, 3) uint8, the plan's future. happened: the same as recorded; None where that ends too early.
    """

    names: tuple[str, ...]
    step_dt: float
    plan: FloatArray
    iterations: tuple[Iteration, ...]
    seconds: float
    final_distance: FinalDistances
    predicted: ByteArray
    happened: ByteArray | None

    def to_json(self) -> dict[str, Any]:
        """All but the pictures."""
        return {
            "names": self.names,
            "step_dt": self.step_dt,
            "rows": np.round(self.plan.astype(float), 6).tolist(),
            "iterations": [vars(iteration) for iteration in self.iterations],
            "candidates": sum(iteration.candidates for iteration in self.iterations),
            "seconds": self.seconds,
            "final_goal_distance": vars(self.final_distance),
        }


def plan_recorded(
    world_model: WorldModel,
    task: PlanningTask,
    optimise: Optimise,
    on_iteration: Callable[[int, Iteration], None] = lambda number, iteration: None,
) -> PlannedTask:
    """Observe the recording up to `now`, then plan, starting at "hold still" and at what the model proposes. Raises ValueError."""
    manifest, backend, episode = world_model.manifest, world_model.backend, task.episode
    if not 1 <= task.horizon <= manifest.max_horizon:
        raise ValueError(
            f"horizon: expected 1 to {manifest.max_horizon} frames (manifest.max_horizon), found {task.horizon}"
        )
    candidates, past = Candidates(backend), _observe(world_model, episode, task.now)
    goal = Goal(backend.encode(task.goal), task.goal)
    distance = task.distance_to(backend, goal)
    costs = costs_of(candidates, past, distance, task.seed, task.ranking_steps, goal_frames=task.goal_frames)
    action, stride = manifest.action, frame_stride(episode, manifest.action.step_dt)
    still = action.clip(np.tile(action.rest(episode.measured[task.now]), (task.horizon, 1)))
    # Which also opens the graphs for candidates, whose time is no part of planning.
    _require_distance(costs(still[None]))
    log, started = _CostLog(costs, on_iteration), time.perf_counter()
    planned = optimise(log, still, _proposed(world_model, task, goal), action)
    seconds = time.perf_counter() - started
    frames = frames_ahead(episode, task.now, action.step_dt, task.horizon)
    happened = None if frames is None else episode.pixels[frames]
    recorded = [] if frames is None else [action.clip(action.steps(episode.commanded, frames, stride))]
    plans = np.stack([planned.plan, still, *recorded])
    futures = _futures(candidates, past, Question(plans, distance, task.seed, top_k=len(plans)))
    finals = [float(futures[index].goal_distance[-1]) for index in range(len(plans))]
    return PlannedTask(
        names=action.names,
        step_dt=action.step_dt,
        plan=planned.plan,
        iterations=tuple(log.iterations),
        seconds=seconds,
        final_distance=FinalDistances(
            hold_still=finals[1],
            plan=finals[0],
            recorded_actions=finals[2] if recorded else None,
            happened=None if happened is None else _distance_of(happened[-1], backend, distance),
        ),
        predicted=backend.decode(futures[0].latents),
        happened=happened,
    )


def frame_at(episode: Episode, seconds: float) -> int:
    """The last frame at or before so many seconds after the first one. Raises ValueError outside the recording."""
    last_s = float(episode.stamps_ns[-1] - episode.stamps_ns[0]) / NANOSECONDS
    if not 0 <= seconds <= last_s:
        raise ValueError(
            f"at: expected 0 to {last_s:g} s, the first and the last frame of {episode.name}, found {seconds:g} s"
        )
    stamp_ns = episode.stamps_ns[0] + round(seconds * NANOSECONDS)
    return int(np.searchsorted(episode.stamps_ns, stamp_ns, side="right")) - 1


def frame_after(episode: Episode, now: int, seconds: float, step_dt: float) -> int:
    """The frame so many seconds after frame `now`. Raises ValueError where the recording has none."""
    ends_s = float(episode.stamps_ns[-1] - episode.stamps_ns[now]) / NANOSECONDS
    frame = _nearest(episode, now, seconds, step_dt) if 0 <= seconds <= ends_s + step_dt else None
    if frame is None:
        raise ValueError(
            f"goal: expected a frame at +0 to +{ends_s:g} s, where {episode.name} goes on, found none at +{seconds:g} s"
        )
    return frame


def frames_ahead(episode: Episode, now: int, step_dt: float, horizon: int) -> IntArray | None:
    """(horizon,) indices of the frames that belong to a future's; None where one is missing."""
    found = [_nearest(episode, now, step_dt * k, step_dt) for k in range(1, horizon + 1)]
    return None if None in found else np.array(found, np.int64)


def _nearest(episode: Episode, now: int, seconds: float, step_dt: float) -> int | None:
    """None when the nearest frame misses the time by more than a slot of the memory allows."""
    missed_ns = np.abs(episode.stamps_ns - (episode.stamps_ns[now] + round(seconds * NANOSECONDS)))
    nearest = int(np.argmin(missed_ns))
    return nearest if missed_ns[nearest] <= SLOT_TOLERANCE * step_dt * NANOSECONDS else None


def _observe(world_model: WorldModel, episode: Episode, now: int) -> Past:
    did = _did(world_model, episode)
    world_model.reset()
    for k in range(now + 1):
        world_model.observe(Observation(int(episode.stamps_ns[k]), episode.pixels[k], did[k]))
    return world_model.past(int(episode.stamps_ns[now]))


def _proposed(world_model: WorldModel, task: PlanningTask, goal: Goal) -> Proposed:
    """The likeliest num_proposals."""
    measured = _did(world_model, task.episode)[task.now]
    count, t0_ns = task.num_proposals, int(task.episode.stamps_ns[task.now])
    if not count:
        return Proposed(np.empty((0, task.horizon, len(measured)), np.float32), np.empty(0, np.float32))
    found = world_model.propose(t0_ns, goal.latents, measured, task.horizon)
    return Proposed(found.plans[:count], found.probabilities[:count])


def _did(world_model: WorldModel, episode: Episode) -> FloatArray:
    """(frames, a) what the robot did in the step that ended at each."""
    action = world_model.manifest.action
    return action.steps(
        episode.measured, np.arange(len(episode.measured)), frame_stride(episode, action.step_dt)
    )


def _futures(candidates: Candidates, past: Past, question: Question) -> dict[int, Future]:
    """By the index of the plan."""
    return {future.plan: future for future in Evaluation(candidates, past, question).finish().futures}


def _require_distance(found: FloatArray) -> None:
    """Before the search, whose result could not be told. Raises ValueError."""
    if not np.isfinite(found).all():
        raise ValueError(
            f"goal distance: expected a finite number for a robot at rest, found {found[0]:g}; mend the plug-in"
        )


def _distance_of(frame: ByteArray, backend: Backend, distance: GoalDistance) -> float:
    return float(measured(distance, backend.encode(frame)[None, None])[0, 0])


class _CostLog:
    """Costs that remember every iteration. An optimiser asks once per iteration, its first guess first (sampling.Sampler)."""

    def __init__(self, costs: Costs, on_iteration: Callable[[int, Iteration], None]) -> None:
        self._costs, self._on_iteration = costs, on_iteration
        self.iterations: list[Iteration] = []

    def __call__(self, plans: FloatArray) -> FloatArray:
        found = self._costs(plans)
        best = min([float(found.min()), *(iteration.best for iteration in self.iterations[-1:])])
        self.iterations.append(Iteration(len(plans), best, float(found.mean())))
        self._on_iteration(len(self.iterations), self.iterations[-1])
        return found
