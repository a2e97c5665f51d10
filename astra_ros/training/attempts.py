"""A simulated robot tries what its model proposes, and is recorded: where the model is wrong, there it has something to learn.

A driver's recordings hold hardly any grasp that misses. A planner finds those plans of which the model wrongly expects more
(docs/decisions/0020), so they must be in the recordings, with what comes of them (DAgger: Ross et al. 2011, arXiv 1011.0686).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode
from astra_ros.data.schema import ActionSchema
from astra_ros.data.sim_client import SimClient
from astra_ros.frames.preprocess import fit
from astra_ros.planning.evaluation import costs_of
from astra_ros.planning.goals import Goal, codec_distance
from astra_ros.rollout.candidates import Candidates
from astra_ros.rollout.proposals import Proposed
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray, Observation

START_NS = NANOSECONDS


@dataclass(frozen=True)
class AttemptsConfig:
    """task: of the simulated robot. attempts: per episode; the first, third, ... lead to the task's goal, the others back.

    considered: likeliest proposals among which the model chooses, in a third of the attempts. Another third draws by the driver's
    probability, the last one any of the proposals.
    """

    task: str = "lift"
    attempts: int = 4
    considered: int = 16

    def __post_init__(self) -> None:
        for name in ("attempts", "considered"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, found {getattr(self, name)}")


@dataclass
class _Lived:
    """What an episode has seen so far, one entry per step of the model; commanded[k] led to picture k."""

    pictures: list[ByteArray] = field(default_factory=list)
    measured: list[FloatArray] = field(default_factory=list)
    commanded: list[FloatArray] = field(default_factory=list)


class Attempts:
    """Episodes of a robot that follows its model's proposals. The same seed, bundle and backend give the same episode."""

    def __init__(self, config: AttemptsConfig, world_model: WorldModel, sim: SimClient) -> None:
        """Raises ValueError where the model is another robot's or of another pace, and for a task that the robot does not have."""
        self._config, self._model, self._sim = config, world_model, sim
        self._candidates = Candidates(world_model.backend)
        action, facts = world_model.manifest.action, sim.describe()
        _require_same("names", action.names, tuple(map(str, facts["names"])))
        _require_same("step_dt", action.step_dt, float(facts["step_s"]))
        if config.task not in (tasks := [*map(str, facts["tasks"])]):
            raise ValueError(
                f"task: expected one of {', '.join(tasks)}, found {config.task!r}; choose --task so"
            )
        self._periods = round(int(facts["control_hz"]) / int(facts["camera_hz"]))

    def episode(self, name: str, seed: int) -> Episode:
        """Raises SimError when the simulator ends, and ValueError for a model without proposals."""
        rng, lived = np.random.default_rng(seed), _Lived()
        self._model.reset()
        began = self._sim.reset(task=self._config.task, seed=seed)
        self._live(lived, began)
        goals = [self._encoded(began["goal"]), self._encoded(began["now"])]
        for attempt in range(self._config.attempts):
            plan = self._choose(goals[attempt % len(goals)], lived, int(began["rows"]), rng)
            self._live(lived, self._sim.execute(rows=plan))
        stamps_ns = START_NS + np.arange(len(lived.pictures)) * self._step_ns
        return Episode(
            name, stamps_ns, np.stack(lived.pictures), np.stack(lived.measured), np.stack(lived.commanded)
        )

    @property
    def _step_ns(self) -> int:
        return round(self._model.manifest.action.step_dt * NANOSECONDS)

    def _live(self, lived: _Lived, news: dict[str, Any]) -> None:
        """Remember pictures and joints, in the model's memory too. The first picture is the one that was last `now`."""
        is_first = not lived.pictures
        commanded = news["commanded"][self._periods - 1 :: self._periods]
        ticks = np.array([*news["measured"], news["last"]])
        measured = at_pictures(ticks, self._periods, self._model.manifest.action.representation)
        lived.commanded += [measured[0], *commanded] if is_first else [*commanded]
        lived.measured += [*measured] if is_first else [*measured[1:]]
        for picture in [*news["pictures"], news["now"]][not is_first :]:
            pixels = self._fitted(picture)
            stamp_ns = START_NS + len(lived.pictures) * self._step_ns
            joints = np.asarray(lived.measured[len(lived.pictures)], np.float32)
            self._model.observe(Observation(stamp_ns, pixels, joints))
            lived.pictures.append(pixels)

    def _choose(self, goal: FloatArray, lived: _Lived, rows: int, rng: np.random.Generator) -> FloatArray:
        now_ns = START_NS + (len(lived.pictures) - 1) * self._step_ns
        measured = np.asarray(lived.measured[-1], np.float32)
        proposed = self._model.propose(now_ns, goal, measured, rows)
        ways: tuple[Callable[[], int], ...] = (
            lambda: self._nearest(proposed, goal, now_ns, int(rng.integers(2**32))),
            lambda: int(rng.choice(len(proposed.plans), p=_exactly(proposed.probabilities))),
            lambda: int(rng.integers(len(proposed.plans))),
        )
        return proposed.plans[ways[rng.integers(len(ways))]()]

    def _nearest(self, proposed: Proposed, goal: FloatArray, now_ns: int, seed: int) -> int:
        """The one that the model wrongly or rightly expects most of."""
        distance = codec_distance(self._model.backend, Goal(goal))
        costs = costs_of(self._candidates, self._model.past(now_ns), distance, seed)
        return int(np.argmin(costs(proposed.plans[: self._config.considered])))

    def _encoded(self, picture: ByteArray) -> FloatArray:
        return self._model.backend.encode(self._fitted(picture)).copy()

    def _fitted(self, picture: ByteArray) -> ByteArray:
        camera = self._model.manifest.camera
        return np.ascontiguousarray(fit(picture, camera.height, camera.width))


def schema_of(action: ActionSpec) -> ActionSchema:
    """Of recordings that a model of that action space goes on learning from."""
    return ActionSchema(action.space, action.modality, action.representation, action.names, action.units)


def at_pictures(ticks: np.ndarray, periods: int, representation: str) -> np.ndarray:
    """(n * periods + 1, a) at the control rate → (n + 1, a): positions there, or mean velocities since the picture before."""
    if representation != "rate":
        return ticks[::periods]
    since = ticks[1:].reshape(-1, periods, ticks.shape[1]).mean(axis=1)
    return np.concatenate([ticks[:1], since])


def _exactly(probabilities: FloatArray) -> np.ndarray:
    """They add up to one in float64, as numpy's generator wants them."""
    exact = probabilities.astype(np.float64)
    return exact / exact.sum()


def _require_same(what: str, expected: object, found: object) -> None:
    if expected != found:
        raise ValueError(
            f"{what}: expected {expected} of the bundle, found {found}; choose its robot: --robot"
        )
