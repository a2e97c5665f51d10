"""One question about many plans, answered piece by piece: which future ends at the goal, and how sure is that?

All plans start from the same past and see the same noise, so that what differs between them comes from their actions.
Scores are made in latent space. Only the best futures are kept, so memory does not grow with the number of plans.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from astra_ros.backends.base import Past
from astra_ros.planning.goals import GoalDistance, measured
from astra_ros.rollout.candidates import Candidates, Pace
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class Question:
    """plans: (n, horizon, a) commanded positions inside the trained range, n ≥ 1.

    goal_distance: None = no goal, and no scores. top_k: number of futures to return.
    num_samples: futures per plan, whose spread is the uncertainty; 1 = no uncertainty.
    expected_error: turns a spread (n, horizon) into the uncertainty, NaN for frames that have none; None = the spread itself.
    uncertainty_weight: lambda of the score. Above 0 every plan gets an uncertainty; at 0 only the best top_k, after all scores.
    goal_frames: how many of the last frames a score takes the mean goal distance of; those that have none are left out, but the last.
    num_steps: denoising steps per chunk for the scores; 0 = all. The returned futures get all steps once every score is
    there, if there is time.
    deadline_s: time.monotonic() by which to end; None = no deadline.
    """

    plans: FloatArray
    goal_distance: GoalDistance | None = None
    seed: int = 0
    top_k: int = 1
    num_samples: int = 1
    expected_error: Callable[[FloatArray], FloatArray] | None = None
    uncertainty_weight: float = 0.0
    goal_frames: int = 1
    num_steps: int = 0
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.goal_frames < 1:
            raise ValueError(f"goal_frames: expected 1 or more, found {self.goal_frames}")
        if self.num_steps < 0:
            raise ValueError(f"num_steps: expected 0 (all) or more, found {self.num_steps}")
        if self.num_steps and self.uncertainty_weight:
            raise ValueError(
                f"num_steps: expected 0 where uncertainty is part of the score, found {self.num_steps}; an uncertainty"
                " is that of all steps: set num_steps=0 or uncertainty_weight=0"
            )


@dataclass(frozen=True)
class Future:
    """plan: its index. latents: (horizon, c, h, w), made in num_steps.

    goal_distance, uncertainty: of these, per frame (horizon,); NaN = none.
    """

    plan: int
    num_steps: int
    latents: FloatArray
    goal_distance: FloatArray
    uncertainty: FloatArray


@dataclass(frozen=True)
class Answer:
    """evaluated, scores, final_goal_distance, uncertainty: (n,), one per plan. The last three are NaN where `evaluated` is False.

    scores: higher is better. final_goal_distance: of the last frame. uncertainty: mean over the frames that have one, the same frames for all plans.
    ranking: indices of the evaluated plans, best first, ties by index. futures: of the best top_k, in that order.
    is_complete: False when the evaluation was stopped early.
    """

    evaluated: npt.NDArray[np.bool_]
    scores: FloatArray
    final_goal_distance: FloatArray
    uncertainty: FloatArray
    ranking: npt.NDArray[np.intp]
    futures: tuple[Future, ...]
    is_complete: bool

    @classmethod
    def nothing(cls, count: int) -> Answer:
        """The answer when none of `count` plans was evaluated."""
        nan = np.full(count, np.nan, np.float32)
        return cls(np.zeros(count, np.bool_), nan, nan, nan, np.array([], np.intp), (), is_complete=False)


# Works on a group of plans, and yields as `Evaluation._pieces` does, between its chunks.
_Finish: TypeAlias = Callable[[npt.NDArray[np.intp]], Iterator[float]]


class Evaluation:
    """The work on one question. `run` does it; `answer` is the best so far, at any time.

    is_complete: the last chunk is done.
    """

    def __init__(self, candidates: Candidates, past: Past, question: Question) -> None:
        self._candidates = candidates
        self._past = past
        self._question = question
        count = len(question.plans)
        self._evaluated = np.zeros(count, np.bool_)
        self._final_distance, self._distance, self._uncertainty = np.full((3, count), np.nan, np.float32)
        self._best: dict[int, Future] = {}
        self.is_complete = False

    @property
    def num_done(self) -> int:
        return int(self._evaluated.sum())

    def best(self) -> tuple[int, float]:
        """Index and score of the best plan so far; 0 and NaN before the first."""
        ranking = self._ranking()
        return (int(ranking[0]), float(self._scores()[ranking[0]])) if len(ranking) else (0, float("nan"))

    def run(self) -> Iterator[None]:
        """Returns control after every chunk. Ends when all is done, or when the next chunk would end after the deadline.

        The first of its kind, of which nobody knows yet how long it takes, may end later.
        """
        deadline_s = math.inf if self._question.deadline_s is None else self._question.deadline_s
        # Opening the graphs takes longer than any chunk, but happens once: each of the two is timed for itself.
        if (yield from self._in_time(deadline_s, self._opening(), Pace())):
            question = self._question
            kind = min(len(question.plans), self._candidates.largest_batch), question.num_steps
            yield from self._in_time(deadline_s, self._pieces(), self._candidates.paces[kind])

    def _in_time(self, deadline_s: float, pieces: Iterator[float], pace: Pace) -> Generator[None, None, bool]:
        """As many pieces as end before the deadline. Returns whether these are all."""
        longest_s, since_s, is_first = pace.first_s, time.monotonic(), True
        if since_s >= deadline_s:
            return False
        if since_s + longest_s > deadline_s:
            pace.first_s /= 2  # or one that took long once would keep all later ones from being tried
            return False
        for longer in pieces:
            # Of the piece alone: whoever has control meanwhile may do something else.
            took_s = time.monotonic() - since_s
            if is_first:
                pace.first_s, longest_s, is_first = took_s, took_s, False
            longest_s = longer * max(longest_s, took_s)
            self.is_complete = not longer
            yield
            since_s = time.monotonic()
            if since_s + longest_s > deadline_s:
                return False
        return True

    def finish(self) -> Answer:
        """`run` to its end without giving control back. Returns the answer."""
        for _ in self.run():
            pass
        return self.answer()

    def answer(self) -> Answer:
        scores, ranking = self._scores(), self._ranking()
        return Answer(
            evaluated=self._evaluated.copy(),
            scores=scores,
            final_goal_distance=self._final_distance.copy(),
            uncertainty=self._uncertainty.copy(),
            ranking=ranking,
            futures=tuple(self._best[plan] for plan in ranking[: self._question.top_k].tolist()),
            is_complete=self.is_complete,
        )

    def _opening(self) -> Iterator[float]:
        """As `_pieces`, after every graph that is opened."""
        for _ in self._candidates.prepare():
            yield 1.0

    def _pieces(self) -> Iterator[float]:
        """After every chunk: how many times as long as those before the next one takes, 0 when there is none."""
        question, batch = self._question, self._candidates.largest_batch
        samples = question.num_samples if question.uncertainty_weight else 1
        for start in range(0, len(question.plans), batch):
            group = np.arange(start, min(start + batch, len(question.plans)))
            latents = yield from self._roll_out(group, 0, question.num_steps)
            uncertainty = yield from self._spread(group, latents, samples)
            self._record(group, latents, uncertainty)
            if group[-1] + 1 < len(question.plans):
                yield 1.0
        left = self._finishing(samples)
        yield self._candidates.num_steps / self._num_steps if left else 0.0
        for num_done, (finish, group) in enumerate(left, 1):
            yield from finish(group)
            yield float(num_done < len(left))

    def _finishing(self, samples: int) -> list[tuple[_Finish, npt.NDArray[np.intp]]]:
        """What is left to do after the scores, for groups of the futures that are going to be returned."""
        batch, best = self._candidates.largest_batch, np.array(sorted(self._best), np.intp)
        groups = [best[start : start + batch] for start in range(0, len(best), batch)]
        work: list[_Finish] = []
        if self._num_steps < self._candidates.num_steps:
            work.append(self._denoise)
        if samples < self._question.num_samples:
            work.append(self._add_uncertainty)
        return [(finish, group) for finish in work for group in groups]

    @property
    def _num_steps(self) -> int:
        """Denoising steps that make the scores."""
        every = self._candidates.num_steps
        return min(self._question.num_steps or every, every)

    def _denoise(self, group: npt.NDArray[np.intp]) -> Iterator[float]:
        """In all steps; the scores stay comparable with the others'."""
        latents = yield from self._roll_out(group, 0)
        distances = self._distances(latents)
        for plan, whole, distance in zip(group.tolist(), latents, distances, strict=True):
            self._best[plan] = replace(
                self._best[plan],
                num_steps=self._candidates.num_steps,
                latents=whole,
                goal_distance=distance,
            )

    def _add_uncertainty(self, group: npt.NDArray[np.intp]) -> Iterator[float]:
        latents = np.stack([self._best[plan].latents for plan in group.tolist()])
        uncertainty = yield from self._spread(group, latents, self._question.num_samples)
        self._uncertainty[group] = _over_frames(uncertainty)
        for plan, per_frame in zip(group.tolist(), uncertainty, strict=True):
            self._best[plan] = replace(self._best[plan], uncertainty=per_frame)

    def _roll_out(
        self, group: npt.NDArray[np.intp], sample: int, num_steps: int = 0
    ) -> Generator[float, None, FloatArray]:
        """Latents (g, horizon, c, h, w) of one batch of plans."""
        seed = _sample_seed(self._question.seed, sample)
        for futures in self._candidates.roll_out(self._past, self._question.plans[group], seed, num_steps):
            if futures:
                return futures.latents
            yield 1.0
        raise AssertionError("a group that fits into one batch ends with its futures")

    def _spread(
        self, group: npt.NDArray[np.intp], first: FloatArray, samples: int
    ) -> Generator[float, None, FloatArray]:
        """(g, horizon): standard deviation of the latents over samples, root mean square over c, h, w, or what that is worth.

        NaN for one sample.
        """
        if samples == 1:
            return np.full(first.shape[:2], np.nan, np.float32)
        mean, squares = first.astype(np.float64), np.zeros(first.shape)
        for sample in range(1, samples):
            yield 1.0
            latents = yield from self._roll_out(group, sample)
            # Welford, Technometrics 1962: one pass, no sample is kept.
            difference = latents - mean
            mean += difference / (sample + 1)
            squares += difference * (latents - mean)
        spread = np.sqrt(squares.mean(axis=(2, 3, 4)) / (samples - 1)).astype(np.float32)
        worth = self._question.expected_error
        return worth(spread) if worth else spread

    def _record(self, group: npt.NDArray[np.intp], latents: FloatArray, uncertainty: FloatArray) -> None:
        distance = self._distances(latents)
        self._evaluated[group] = True
        self._final_distance[group] = distance[:, -1]
        last = _over_frames(distance[:, -self._question.goal_frames :])
        # Whoever finds no number at the end, finds none: an object that was lost is not at the goal.
        self._distance[group] = np.where(np.isnan(distance[:, -1]), np.nan, last)
        self._uncertainty[group] = _over_frames(uncertainty)
        best = set(self._ranking()[: self._question.top_k].tolist())
        self._best = {plan: future for plan, future in self._best.items() if plan in best}
        for i, plan in enumerate(group.tolist()):
            if plan in best:
                self._best[plan] = Future(
                    plan, self._num_steps, latents[i].copy(), distance[i], uncertainty[i]
                )

    def _distances(self, latents: FloatArray) -> FloatArray:
        """(g, horizon) to the goal; NaN without one."""
        measure = self._question.goal_distance
        return measured(measure, latents) if measure else np.full(latents.shape[:2], np.nan, np.float32)

    def _scores(self) -> FloatArray:
        weight = np.float32(self._question.uncertainty_weight)
        return -self._distance - weight * self._uncertainty if weight else -self._distance

    def _ranking(self) -> npt.NDArray[np.intp]:
        """Stable, so that ties go by index; numpy sorts NaN last."""
        evaluated = np.flatnonzero(self._evaluated)
        return evaluated[np.argsort(-self._scores()[evaluated], kind="stable")]


def costs_of(
    candidates: Candidates,
    past: Past,
    goal_distance: GoalDistance,
    seed: int = 0,
    num_steps: int = 0,
    *,
    goal_frames: int = 1,
) -> Callable[[FloatArray], FloatArray]:
    """Costs for optimisers: plans (n, horizon, a) → goal distances (n,), always from this past and with the same noise.

    seed, num_steps, goal_frames: as for `Question`.
    """

    def costs(plans: FloatArray) -> FloatArray:
        rows = np.asarray(plans, np.float32)
        question = Question(rows, goal_distance, seed, top_k=0, goal_frames=goal_frames, num_steps=num_steps)
        return -Evaluation(candidates, past, question).finish().scores

    return costs


def _over_frames(values: FloatArray) -> FloatArray:
    """(g, frames) → (g,): mean over the frames that have one; NaN where none has."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan).astype(np.float32)


def _sample_seed(seed: int, sample: int) -> int:
    """Sample 0 has the noise of a prediction with this seed."""
    return int(np.random.SeedSequence([seed, sample]).generate_state(1, np.uint64)[0]) if sample else seed
