"""The planner's searches: one after the other, each from where the robot is or where the plan before leads it meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.msg import PredictedFuture
from astra_ros.planning.cem import CemConfig, cem
from astra_ros.planning.motion import Departure, Motion
from astra_ros.planning.mppi import MppiConfig, mppi
from astra_ros.planning.refine import RefineConfig, refine
from astra_ros.planning.sampling import Costs, Planned, limited
from astra_ros.planning.weighing import weigh
from astra_ros.rollout.proposals import Proposed
from astra_ros.ros.client import WorldModelClient, WorldModelError
from astra_ros.ros.declaration import ConfigError, Limits, parameter, require_choices
from astra_ros.ros.parameters import COMMAND_TYPES, MAX_CANDIDATES
from astra_ros.ros.trajectories import LEAST_STEP
from astra_ros.types import NANOSECONDS, FloatArray

_REFINED = RefineConfig().num_elites
METHODS = ("auto", "propose", "refine", "cem", "mppi")
# Parameters that have a prefix here and none in CemConfig, whose errors name them.
_OF_CEM = re.compile(r"\b(?:num_)?(elites|initial_std|min_std)\b")


@dataclass(frozen=True)
class PlannerConfig:
    """One field per parameter, same name."""

    world_model: str = parameter("world_model", "Name of the world model node that is asked.", is_live=False)
    joints: str = parameter(
        "", "Joints of the published trajectory, separated by commas: a controller's; empty: the model's."
    )
    method: str = parameter(
        "auto",
        "How plans are searched for. propose takes a near and likely one of the world model's own proposals, refine mixes these; auto is"
        " propose where it has some, else cem.",
        Limits(choices=METHODS),
    )
    num_samples: int = parameter(
        32,
        "Plans that are tried per iteration, up to max_candidates of the world model.",
        Limits(4, MAX_CANDIDATES),
    )
    iterations: int = parameter(
        5, "Iterations of the search, at most: fewer where a moving robot leaves less time.", Limits(1, 1000)
    )
    horizon: int = parameter(8, "Rows of a plan, in steps of the model.", Limits(1, 1024))
    max_step: float = parameter(
        1.5,
        "Largest change of a joint from row to row, in the action space's `delta_std`: the root mean square of its changes over one to"
        " four steps of training.",
        Limits(0.01, 100.0),
    )
    noise_beta: float = parameter(
        2.0, "How smooth samples are: exponent of the noise's spectrum, 0 = white.", Limits(0.0, 10.0)
    )
    cem_elites: int = parameter(
        0,
        "Plans that an iteration of cem is fitted to; 0: an eighth of num_samples, at least 2.",
        Limits(0, MAX_CANDIDATES),
    )
    cem_momentum: float = parameter(0.1, "Share of the old mean and deviation in cem.", Limits(0.0, 0.99))
    cem_initial_std: float = parameter(
        0.3, "First deviation of cem, in halves of each joint's trained range.", Limits(0.0001, 10.0)
    )
    cem_min_std: float = parameter(
        0.01, "Least deviation of cem, in halves of each joint's trained range.", Limits(0.0001, 10.0)
    )
    mppi_temperature: float = parameter(
        0.3,
        "Of the weights exp(-cost / temperature) of mppi, in deviations of an iteration's costs.",
        Limits(0.0001, 1000.0),
    )
    mppi_std: float = parameter(
        0.2, "Deviation of mppi, in halves of each joint's trained range.", Limits(0.0001, 10.0)
    )
    mppi_momentum: float = parameter(0.0, "Share of the old mean in mppi.", Limits(0.0, 0.99))
    period_s: float = parameter(
        0.0,
        "Plan again and again, at least so long after the last time [s]; 0: only when asked (~/plan).",
        Limits(0.0, 3600.0),
    )
    cmd_vel_type: str = parameter(
        "auto",
        "Of a model of a vehicle: type of the topic cmd_vel; auto: that of whoever listens, else geometry_msgs/msg/TwistStamped.",
        Limits(choices=COMMAND_TYPES),
    )
    seed: int = parameter(0, "Seed of the first search; every later one has the next.", Limits(0, 2**31 - 1))

    def __post_init__(self) -> None:
        require_choices(self)
        try:
            self.cem(), self.mppi()
        except ValueError as error:
            raise ConfigError(_OF_CEM.sub(r"cem_\1", str(error))) from error

    def cem(self) -> CemConfig:
        """Raises ValueError."""
        return CemConfig(
            self.num_samples,
            self.iterations,
            self.cem_elites or max(2, self.num_samples // 8),
            self.cem_momentum,
            self.cem_initial_std,
            self.cem_min_std,
            self.noise_beta,
            self.max_step,
        )

    def mppi(self) -> MppiConfig:
        """Raises ValueError."""
        return MppiConfig(
            self.num_samples,
            self.iterations,
            self.mppi_temperature,
            self.mppi_std,
            self.mppi_momentum,
            self.noise_beta,
            self.max_step,
        )

    def refine(self) -> RefineConfig:
        """Of whose iterations the first is the proposals' own."""
        return RefineConfig(self.num_samples, self.iterations - 1, min(_REFINED, self.num_samples))

    def published(self, spec: ActionSpec) -> list[str]:
        """Joints of the trajectory. Raises ConfigError."""
        wanted = [name.strip() for name in self.joints.split(",") if name.strip()] or list(spec.names)
        if unknown := [name for name in wanted if name not in spec.names]:
            raise ConfigError(f"joints: expected some of {', '.join(spec.names)}, found {', '.join(unknown)}")
        return wanted

    def held(self, spec: ActionSpec) -> tuple[int, ...]:
        """Columns of the joints that are not published, so that the plan does not move them. Raises ConfigError."""
        published = self.published(spec)
        return tuple(column for column, name in enumerate(spec.names) if name not in published)

    def limit(self, spec: ActionSpec) -> FloatArray:
        """(a,) largest change of a joint from row to row; of one that stood still in training what a sensor's noise takes."""
        usual = np.array(spec.delta_std, np.float32)
        return self.max_step * np.maximum(usual, LEAST_STEP * usual.max())


class Search:
    """model: gives the scores. positions: (a,) where the robot is; raises when unknown. now_ns: the node's clock."""

    def __init__(
        self, model: WorldModelClient, positions: Callable[[], FloatArray], now_ns: Callable[[], int]
    ) -> None:
        self._model, self._positions, self._now_ns = model, positions, now_ns
        self._num_searches = 0
        self._last: Motion | None = None
        # What an iteration of the last search took, and so will the next.
        self._iteration_ns = self._num_asked = self._began_ns = self._clock_ns = 0

    def forget(self) -> None:
        """The last plan is another robot's, or of another time."""
        self._last = None

    def run(self, spec: ActionSpec, config: PlannerConfig) -> tuple[Planned, int]:
        """The best plan (horizon, a), and when it begins [ns]. Raises WorldModelError, ConfigError, ValueError."""
        self._began_ns, self._num_asked = self._now_ns(), 0
        self._clock_ns = self._began_ns
        positions = self._positions()
        _require_in_range(positions, spec, config)
        departure, iterations = self._departure(positions, spec, config)
        config = replace(config, iterations=iterations)
        costs = self._costs(departure, config)
        found = self._optimise(costs, departure, spec, config)
        self._num_searches += 1
        self._require_in_time(departure, config)
        ended_ns = self._steady_ns()
        positions = self._positions()
        course = departure.motion.holding(departure.held, positions)
        _require_on_course(course, positions, spec, config, ended_ns)
        plan = departure.whole(found.plan[None])
        if not departure.committed:
            # A standing robot may have been moved meanwhile, by less than a step, and the plan begins where it is now.
            departure = _standing(positions, spec, config, ended_ns)
            plan = departure.whole(limited(plan, positions, config.limit(spec)))
        planned = replace(found, plan=plan[0])
        self._last = departure.followed_by(planned.plan, ended_ns)
        self._measure(ended_ns, config)
        return planned, self._last.begins_ns

    def from_standstill(self, spec: ActionSpec, config: PlannerConfig) -> Planned:
        """The best velocities (horizon, a) for a vehicle that stands. Raises WorldModelError, ValueError."""
        self._began_ns = self._clock_ns = self._now_ns()
        step_ns = round(spec.step_dt * NANOSECONDS)
        stand = np.zeros(spec.dim, np.float32)
        departure = Departure(Motion.standing(stand, config.horizon, self._began_ns, step_ns))
        found = self._optimise(self._costs(departure, config), departure, spec, config)
        self._num_searches += 1
        return found

    def _departure(
        self, positions: FloatArray, spec: ActionSpec, config: PlannerConfig
    ) -> tuple[Departure, int]:
        """Amid the last plan, if the robot follows it, else from rest; and how many iterations there is time for."""
        held, now_ns, step_ns = config.held(spec), self._began_ns, round(spec.step_dt * NANOSECONDS)
        last = self._last and self._last.holding(held, positions)
        if (
            last is None
            or (last.step_ns, len(last.points)) != (step_ns, 1 + config.horizon)
            or not 0 <= last.elapsed(now_ns) < config.horizon
            or last.astray(positions, config.limit(spec), now_ns) is not None
        ):
            return _standing(positions, spec, config, now_ns), config.iterations
        motion = last.since(int(last.elapsed(now_ns)))
        iterations, committed = self._time_for(motion, config)
        if committed >= config.horizon:
            raise WorldModelError(
                f"horizon: expected more than {committed} rows, what the robot carries out of the last plan during an iteration of"
                f" {self._iteration_ns / NANOSECONDS:.2f} s, found {config.horizon}; lower num_samples, rank by fewer steps"
                f" (ranking_steps:=1 of {config.world_model}), or plan when the robot stands"
            )
        return Departure(motion, committed, held), iterations

    def _time_for(self, motion: Motion, config: PlannerConfig) -> tuple[int, int]:
        """Iterations, and the rows that are carried out meanwhile: at most half the plan, if one iteration is that short."""

        def committed(iterations: int) -> int:
            """The row that is on its way when the search ends, and one to spare."""
            return int(motion.elapsed(self._began_ns + iterations * self._iteration_ns)) + 2

        most = 1 if self.method(config) == "propose" else config.iterations  # which asks once
        fitting = (n for n in range(most, 1, -1) if committed(n) <= config.horizon // 2)
        iterations = next(fitting, 1)
        return iterations, committed(iterations)

    def _measure(self, now_ns: int, config: PlannerConfig) -> None:
        """MPPI asks once more at its end, of two plans."""
        self._iteration_ns = (now_ns - self._began_ns) // max(1, min(self._num_asked, config.iterations))

    def _costs(self, departure: Departure, config: PlannerConfig) -> Costs:
        """Of what is not over of the plans, from the newest picture on."""

        def costs(plans: FloatArray) -> FloatArray:
            elapsed = self._require_in_time(departure, config)
            self._num_asked += 1
            reply = self._model.ask(departure.whole(plans)[:, elapsed:], seed=config.seed, top_k=0)
            if any(flags & PredictedFuture.FLAG_OUT_OF_DISTRIBUTION for flags in reply.flags):
                raise WorldModelError(
                    f"{config.world_model}: expected a picture like those of training, found one unlike them"
                    " (FLAG_OUT_OF_DISTRIBUTION); plan again, and if it stays so, uncover the camera, put it back, or train on"
                    " this view (docs/training.md)"
                )
            return self._model.costs_in(reply)

        return costs

    def _optimise(
        self, costs: Costs, departure: Departure, spec: ActionSpec, config: PlannerConfig
    ) -> Planned:
        """With the method that is asked for."""
        seed, first, anchor = config.seed + self._num_searches, departure.first_guess, departure.anchor
        method = self.method(config)

        def slow(plans: FloatArray) -> FloatArray:
            is_arm = spec.representation == "joint_position"
            return limited(plans, anchor, config.limit(spec)) if is_arm else plans

        if method == "propose":
            proposed = self._proposed(departure, config)
            return weigh(costs, replace(proposed, plans=slow(proposed.plans)))
        if method == "refine":
            guesses = np.concatenate(
                [first[None], slow(self._proposed(departure, config).plans[: config.num_samples - 1])]
            )
            return refine(costs, guesses, spec, config.refine(), seed, slow)
        if method == "mppi":
            return mppi(costs, first, spec, config.mppi(), seed, anchor)
        return cem(costs, first, spec, config.cem(), seed, anchor)

    def method(self, config: PlannerConfig) -> str:
        """What `auto` stands for: a free search does not find far."""
        if config.method != "auto":
            return config.method
        info = self._model.info()
        return "propose" if info.max_proposals and config.horizon <= info.max_proposal_rows else "cem"

    def _proposed(self, departure: Departure, config: PlannerConfig) -> Proposed:
        """What the model proposes, from the rows on that are not carried out during the search."""
        elapsed = self._require_in_time(departure, config)
        count = min(config.num_samples, self._model.info().max_proposals)
        found = self._model.propose(config.horizon - elapsed, count=count)
        return replace(found, plans=found.plans[:, departure.committed - elapsed :])

    def _require_in_time(self, departure: Departure, config: PlannerConfig) -> int:
        """Rows of the plan that are over. Raises WorldModelError when those are all that the robot was to carry out meanwhile."""
        now_ns = self._steady_ns()
        if not departure.committed:
            return 0
        elapsed = max(int(departure.motion.elapsed(now_ns)), 0)
        if elapsed >= departure.committed:
            self._measure(now_ns, config)
            raise WorldModelError(
                f"search: expected an end before the robot has carried out {departure.committed} rows of the last plan, found"
                f" none after {(now_ns - self._began_ns) / NANOSECONDS:.2f} s; if it stays so, lower num_samples or rank by fewer"
                f" steps (ranking_steps:=1 of {config.world_model})"
            )
        return elapsed

    def _steady_ns(self) -> int:
        """Now. Raises WorldModelError where the clock by which the last plan and this one begin is gone."""
        before_ns, self._clock_ns = self._clock_ns, self._now_ns()
        if self._clock_ns < before_ns:
            self.forget()
            raise WorldModelError(
                "clock: expected one that goes on during a search, found one that jumped back by"
                f" {(before_ns - self._clock_ns) / NANOSECONDS:.2f} s or more; plan again"
            )
        return self._clock_ns


def _standing(positions: FloatArray, spec: ActionSpec, config: PlannerConfig, now_ns: int) -> Departure:
    step_ns = round(spec.step_dt * NANOSECONDS)
    return Departure(Motion.standing(positions, config.horizon, now_ns, step_ns), held=config.held(spec))


def _require_in_range(positions: FloatArray, spec: ActionSpec, config: PlannerConfig) -> None:
    """No plan leads back from further outside without a jump. Raises WorldModelError."""
    outside = np.abs(positions - spec.clip(positions)) > config.limit(spec)
    if outside.any():
        joint = int(np.argmax(outside))
        raise WorldModelError(
            f"joint_states: expected {spec.names[joint]} within max_step ({config.limit(spec)[joint]:g}) of the trained range"
            f" {spec.lower[joint]:g} to {spec.upper[joint]:g}, found {positions[joint]:g}; move the robot back into it"
        )


def _require_on_course(
    course: Motion, positions: FloatArray, spec: ActionSpec, config: PlannerConfig, now_ns: int
) -> None:
    """A plan from where the robot is not would be a jump. Raises WorldModelError."""
    joint = course.astray(positions, config.limit(spec), now_ns)
    if joint is not None:
        raise WorldModelError(
            f"joint_states: expected {spec.names[joint]} within max_step ({config.limit(spec)[joint]:g}) of"
            f" {course.at(now_ns)[joint]:g} when the search ended, found {positions[joint]:g}; let the robot stand or follow"
            " its last plan, and plan again"
        )
