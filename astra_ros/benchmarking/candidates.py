"""N action sequences for one observation: side by side from one past, against each on its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from astra_ros.backends.base import Backend, Past
from astra_ros.benchmarking.interleaving import Subject
from astra_ros.benchmarking.scene import Scene, with_newest
from astra_ros.rollout.candidates import Candidates
from astra_ros.rollout.chunks import roll_out
from astra_ros.types import FloatArray

# separate: encode, remember and the steps for each. shared: encode and remember once.
# batched: and the steps for as many at once as the bundle has graphs for.
Way = Literal["separate", "shared", "batched"]
WAYS: tuple[Way, ...] = get_args(Way)
DECODED = 4  # of the ranked candidates; a planner looks at no more
_SEED = 0  # of the noise, which all candidates see


@dataclass(frozen=True)
class Agreement:
    """Of separate and batched runs. cost_difference: the largest. cost_spread: from best candidate to worst."""

    cost_difference: float
    cost_spread: float
    same_ranking: bool


class Ranking:
    """`count` plans of one chunk, ranked by the distance of their last latents from a goal picture's."""

    def __init__(self, backend: Backend, scene: Scene, count: int) -> None:
        self._backend, self._scene = backend, scene
        self._slots, self._plans = scene.slots(backend), scene.plans(count)
        self._goal = backend.encode(scene.goal)
        self._rollout, self._candidates = backend.rollout(), Candidates(backend)

    def subject(self, name: str, way: Way, *, with_frames: bool) -> Subject:
        """Seconds per candidate-frame.

        with_frames: every separate run ends in pictures; the other ways in those of the best DECODED.
        """
        is_separate = way == "separate"

        def run() -> None:
            latents = self._latents(way, decode_each=with_frames and is_separate)
            best = np.argsort(self._costs(latents))[:DECODED]
            if with_frames and not is_separate:
                for index in best:
                    self._backend.decode(latents[index])

        return Subject(name, run, len(self._plans) * self._plans.shape[1])

    def agreement(self) -> Agreement:
        """Runs both ways."""
        separate, batched = (self._costs(self._latents(way)) for way in ("separate", "batched"))
        difference, spread = np.abs(separate - batched).max(), np.ptp(separate)
        one, other = (np.argsort(costs, kind="stable") for costs in (separate, batched))
        return Agreement(float(difference), float(spread), bool(np.array_equal(one, other)))

    def _latents(self, way: Way, *, decode_each: bool = False) -> FloatArray:
        """Of every plan, (n, t, c, h, w)."""
        if way == "separate":
            return np.stack([self._alone(plan, decode=decode_each) for plan in self._plans])
        past = self._observe()
        if way == "shared":
            return np.stack([self._roll_out(past, plan) for plan in self._plans])
        futures = self._candidates.roll_out(past, self._plans, _SEED)
        return np.concatenate([future.latents for future in futures if future is not None])

    def _alone(self, plan: FloatArray, *, decode: bool) -> FloatArray:
        latents = self._roll_out(self._observe(), plan)
        if decode:
            self._backend.decode(latents)
        return latents

    def _observe(self) -> Past:
        newest = self._backend.encode(self._scene.picture)
        return self._backend.remember(with_newest(self._slots, newest))

    def _roll_out(self, past: Past, plan: FloatArray) -> FloatArray:
        (chunk,) = roll_out(self._rollout, past, plan[None], self._scene.manifest, _SEED)
        latents: FloatArray = chunk[0]
        return latents

    def _costs(self, latents: FloatArray) -> FloatArray:
        costs: FloatArray = np.square(latents[:, -1] - self._goal).mean(axis=(1, 2, 3))
        return costs
