"""One question about many plans, with the real runtime."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from astra_ros.backends.base import Past
from astra_ros.planning.evaluation import Answer, Evaluation, Question, costs_of
from astra_ros.planning.goals import Goal, GoalDistance, codec_distance, find_goal_distance
from astra_ros.rollout.candidates import Candidates, Futures, Pace
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import FloatArray, Observation
from tests.bundle_fixture import CHUNK, HEIGHT, LATENT, WIDTH

HORIZON = CHUNK + 1
PLANTED = 7


@pytest.fixture(scope="module")
def model(untrained_bundle: Path) -> Iterator[WorldModel]:
    with WorldModel.load(untrained_bundle) as loaded:
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        loaded.observe(Observation(0, pixels, np.zeros(8, np.float32)))
        yield loaded


@pytest.fixture(scope="module")
def candidates(model: WorldModel) -> Candidates:
    return Candidates(model.backend)


def plans(count: int) -> FloatArray:
    return 0.5 * np.random.default_rng(1).standard_normal((count, HORIZON, 8)).astype(np.float32)


def ask(model: WorldModel, candidates: Candidates, question: Question, stop_after: int = 10**6) -> Answer:
    evaluation = Evaluation(candidates, model.past(0), question)
    for piece, _ in enumerate(evaluation.run(), 1):
        if piece == stop_after:
            break
    return evaluation.answer()


@pytest.fixture(scope="module")
def to_planted(model: WorldModel, candidates: Candidates) -> GoalDistance:
    """The goal is where plan PLANTED leads."""
    future = ask(model, candidates, Question(plans(10)[[PLANTED]])).futures[0]
    return codec_distance(model.backend, Goal(future.latents[-1]))


def test_the_plan_that_leads_to_the_goal_is_ranked_first(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    answer = ask(model, candidates, Question(plans(10), to_planted, top_k=3))
    assert answer.is_complete
    assert answer.evaluated.all()
    assert answer.ranking[0] == PLANTED
    assert answer.final_goal_distance[PLANTED] < 1e-6 < np.sort(answer.final_goal_distance)[1]
    np.testing.assert_array_equal(answer.scores, -answer.final_goal_distance)
    np.testing.assert_array_equal(answer.ranking, np.argsort(-answer.scores, kind="stable"))
    assert [future.plan for future in answer.futures] == answer.ranking[:3].tolist()
    assert answer.futures[0].latents.shape == (HORIZON, *LATENT)
    assert answer.futures[1].goal_distance[-1] == answer.final_goal_distance[answer.ranking[1]]
    assert np.isnan(answer.uncertainty).all()


@pytest.mark.parametrize("goal_frames", [3, 100])
def test_a_score_is_the_mean_of_the_last_frames(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance, goal_frames: int
) -> None:
    """Of all, where there are fewer."""
    answer = ask(model, candidates, Question(plans(4), to_planted, top_k=4, goal_frames=goal_frames))
    for future in answer.futures:
        last = future.goal_distance[-goal_frames:]
        assert len(last) == min(goal_frames, HORIZON)
        assert answer.scores[future.plan] == pytest.approx(-last.mean())
        assert answer.final_goal_distance[future.plan] == last[-1]
    costs = costs_of(candidates, model.past(0), to_planted, goal_frames=goal_frames)
    np.testing.assert_array_equal(costs(plans(4)), -answer.scores)


def test_frames_without_a_distance_do_not_take_the_others_from_the_score(
    model: WorldModel, candidates: Candidates
) -> None:
    """As of the distance `perceptual`, which looks at the last one alone; what is infinitely far stays so."""

    def of_the_last(futures: FloatArray) -> FloatArray:
        found = np.full(futures.shape[:2], np.nan, np.float32)
        found[:, -1] = np.where(np.arange(len(futures)) == 1, np.inf, 2.0)
        return found

    answer = ask(model, candidates, Question(plans(3), of_the_last, goal_frames=3))
    np.testing.assert_array_equal(answer.scores, [-2, -np.inf, -2])


def test_a_plan_without_a_distance_at_its_end_has_no_score(model: WorldModel, candidates: Candidates) -> None:
    """Whatever the frames before say: what was lost is not at the goal."""

    def lost_by_the_second(futures: FloatArray) -> FloatArray:
        found = np.ones(futures.shape[:2], np.float32)
        found[1, -1] = np.nan
        return found

    answer = ask(model, candidates, Question(plans(3), lost_by_the_second, goal_frames=3))
    np.testing.assert_array_equal(answer.scores, [-1, np.nan, -1])
    assert answer.ranking.tolist() == [0, 2, 1]


def test_ties_go_by_index(model: WorldModel, candidates: Candidates, to_planted: GoalDistance) -> None:
    def constant(futures: FloatArray) -> FloatArray:
        return np.ones(futures.shape[:2], np.float32)

    assert ask(model, candidates, Question(plans(10), constant)).ranking.tolist() == list(range(10))
    assert ask(model, candidates, Question(plans(3))).ranking.tolist() == [0, 1, 2]


def test_futures_are_the_ones_that_the_live_stream_would_predict(
    model: WorldModel, candidates: Candidates
) -> None:
    future = ask(model, candidates, Question(plans(1), seed=5)).futures[0]
    expected = model.predict(0, plans(1)[0], seed=5).frames
    np.testing.assert_array_equal(model.backend.decode(future.latents), expected)


def test_what_runs_between_two_pieces_changes_nothing(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    question = Question(plans(9), to_planted, num_samples=2, uncertainty_weight=0.5)
    undisturbed = ask(model, candidates, question)
    evaluation = Evaluation(candidates, model.past(0), question)
    for _ in evaluation.run():
        model.predict(0, plans(2)[1], seed=9)
    np.testing.assert_array_equal(evaluation.answer().scores, undisturbed.scores)


class Timed:
    """Candidates whose graphs take `opening_s` to open, and every chunk 0.05 s; time is what they say."""

    largest_batch = 8
    num_steps = 1

    def __init__(self, opening_s: float = 0.0) -> None:
        self.now_s, self._opening_s = 0.0, opening_s
        self.paces = defaultdict[tuple[int, int], Pace](Pace)

    def prepare(self) -> Iterator[None]:
        if self._opening_s:
            self.now_s, self._opening_s = self.now_s + self._opening_s, 0.0
            yield

    def roll_out(self, _past: Past, rows: FloatArray, _seed: int, _num_steps: int) -> Iterator[Futures]:
        self.now_s += 0.05
        yield Futures(range(len(rows)), np.zeros((len(rows), HORIZON, *LATENT), np.float32))


@pytest.mark.parametrize(
    ("opening_s", "between_s", "num_done"),
    [(0.0, 0.0, 160), (0.0, 0.6, 64), (0.5, 0.0, 80), (2.0, 0.0, 0)],
    ids=["alone", "a live prediction", "graphs opened", "too late"],
)
def test_until_its_deadline_a_question_goes_on_whatever_else_took_long(
    model: WorldModel, monkeypatch: pytest.MonkeyPatch, opening_s: float, between_s: float, num_done: int
) -> None:
    """Only chunks say how long the next one takes."""
    timed = Timed(opening_s)
    monkeypatch.setattr(time, "monotonic", lambda: timed.now_s)
    question = Question(plans(320), deadline_s=1.01, top_k=0)
    evaluation = Evaluation(cast("Candidates", timed), model.past(0), question)
    for piece, _ in enumerate(evaluation.run()):
        timed.now_s += between_s * (piece == 1)
    assert evaluation.num_done == num_done
    assert not evaluation.is_complete


def test_a_chunk_that_would_end_too_late_is_not_begun(
    model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the first one either, once it is known how long one takes; but it is tried again some day."""
    timed = Timed()
    monkeypatch.setattr(time, "monotonic", lambda: timed.now_s)

    def ask_within(seconds: float, num_steps: int = 0) -> tuple[int, float]:
        """Plans evaluated, and seconds taken."""
        began_s = timed.now_s
        question = Question(plans(8), deadline_s=began_s + seconds, top_k=0, num_steps=num_steps)
        answer = Evaluation(cast("Candidates", timed), model.past(0), question).finish()
        return int(answer.evaluated.sum()), timed.now_s - began_s

    assert ask_within(0.01) == (8, pytest.approx(0.05))
    assert ask_within(0.01) == (0, 0.0)
    assert ask_within(0.01, num_steps=1) == (8, pytest.approx(0.05))  # of another kind
    assert ask_within(0.06) == (8, pytest.approx(0.05))
    assert [ask_within(-0.01)[0] for _ in range(8)] == [
        0
    ] * 8  # over before it began: that says nothing of how long one takes
    assert [ask_within(0.01)[0] for _ in range(4)] == [0, 0, 0, 8]


def test_without_a_weight_only_the_best_get_an_uncertainty(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    plain = ask(model, candidates, Question(plans(10), to_planted, top_k=2))
    answer = ask(model, candidates, Question(plans(10), to_planted, top_k=2, num_samples=3))
    np.testing.assert_array_equal(answer.scores, plain.scores)
    assert set(np.flatnonzero(np.isfinite(answer.uncertainty))) == set(answer.ranking[:2])
    best = answer.futures[0]
    assert (best.uncertainty > 0).all()
    assert answer.uncertainty[best.plan] == pytest.approx(best.uncertainty.mean())


def test_plans_may_be_ranked_by_fewer_steps_but_what_is_returned_has_all(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    whole = ask(model, candidates, Question(plans(10), to_planted, top_k=10))
    quick = ask(model, candidates, Question(plans(10), to_planted, top_k=3, num_steps=1))
    assert (quick.scores != whole.scores).all()
    assert quick.ranking[0] == PLANTED
    latents = {future.plan: future.latents for future in whole.futures}
    for future in quick.futures:
        assert future.num_steps == model.manifest.num_steps
        np.testing.assert_allclose(future.latents, latents[future.plan], atol=1e-5)
        assert future.goal_distance[-1] == pytest.approx(whole.final_goal_distance[future.plan], abs=1e-5)
    costs = costs_of(candidates, model.past(0), to_planted, num_steps=1)(plans(10))
    np.testing.assert_array_equal(costs, quick.final_goal_distance)
    all_steps = ask(model, candidates, Question(plans(10), to_planted, num_steps=model.manifest.num_steps))
    np.testing.assert_array_equal(all_steps.scores, whole.scores)


class SlowCandidates(Candidates):
    """Half a second per denoising step: more than a busy machine needs for it."""

    def roll_out(
        self, past: Past, plans: FloatArray, seed: int, num_steps: int = 0
    ) -> Iterator[Futures | None]:
        for futures in super().roll_out(past, plans, seed, num_steps):
            time.sleep(0.5 * (num_steps or self.num_steps))
            yield futures


def test_without_time_for_all_steps_the_best_say_how_many_they_have(
    model: WorldModel, to_planted: GoalDistance
) -> None:
    """Two chunks of one step take a second, the next one, of two steps, as long: it does not begin."""
    candidates = SlowCandidates(model.backend)
    ask(model, candidates, Question(plans(8), to_planted))  # opens the graphs
    deadline_s = time.monotonic() + 1.9
    question = Question(plans(8), to_planted, top_k=2, num_steps=1, deadline_s=deadline_s)
    answer = ask(model, candidates, question)
    assert time.monotonic() <= deadline_s
    assert not answer.is_complete
    assert answer.evaluated.all()
    assert [future.num_steps for future in answer.futures] == [1, 1]
    assert answer.futures[0].goal_distance[-1] == answer.final_goal_distance[answer.futures[0].plan]


def test_what_is_done_before_the_deadline_is_complete_however_long_a_chunk_takes(
    model: WorldModel, to_planted: GoalDistance
) -> None:
    """Two chunks of half a second, and no time for a third, which nobody needs."""
    candidates = SlowCandidates(model.backend)
    ask(model, candidates, Question(plans(8), to_planted))  # opens the graphs
    deadline_s = time.monotonic() + 1.45
    question = Question(plans(8), to_planted, top_k=0, num_steps=1, deadline_s=deadline_s)
    answer = ask(model, candidates, question)
    assert answer.evaluated.all()
    assert answer.is_complete


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"goal_frames": 0}, "goal_frames: expected 1 or more, found 0"),
        ({"num_steps": -1}, r"num_steps: expected 0 \(all\) or more, found -1"),
        ({"num_steps": 1, "uncertainty_weight": 0.5}, "num_steps: expected 0 where uncertainty is part"),
    ],
)
def test_a_question_that_cannot_be_answered_says_so(settings: dict[str, float], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Question(plans(1), **settings)  # type: ignore[arg-type]


def test_uncertainty_is_the_spread_over_noise_and_lowers_the_score(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    question = Question(plans(3), to_planted, num_samples=4, uncertainty_weight=2.0)
    answer = ask(model, candidates, question)
    expected = -answer.final_goal_distance - 2 * answer.uncertainty
    np.testing.assert_allclose(answer.scores, expected, rtol=1e-5)
    evaluation = Evaluation(candidates, model.past(0), question)
    samples = np.stack([_exhausted(evaluation._roll_out(np.arange(3), sample)) for sample in range(4)])
    spread = np.sqrt(samples.var(axis=0, ddof=1).mean(axis=(2, 3, 4)))
    np.testing.assert_allclose(answer.uncertainty, spread.mean(axis=1), rtol=1e-4)


def test_frames_without_an_uncertainty_do_not_take_the_others_from_the_score(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    def of_three_frames(spread: FloatArray) -> FloatArray:
        return np.where(np.arange(HORIZON) < 3, spread, np.nan).astype(np.float32)

    question = Question(plans(3), to_planted, num_samples=2, uncertainty_weight=2.0)
    whole = ask(model, candidates, question).futures[0]
    partly = ask(model, candidates, replace(question, expected_error=of_three_frames, top_k=3))
    future = next(one for one in partly.futures if one.plan == whole.plan)
    np.testing.assert_array_equal(future.uncertainty, of_three_frames(whole.uncertainty))
    assert partly.uncertainty[whole.plan] == pytest.approx(whole.uncertainty[:3].mean())
    expected = -partly.final_goal_distance - 2 * partly.uncertainty
    np.testing.assert_allclose(partly.scores, expected, rtol=1e-5)
    assert np.isfinite(partly.scores).all()


def _exhausted(steps: Iterator[float]) -> FloatArray:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_stopped_early_it_has_the_best_so_far(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    """Plan PLANTED is in the first batch of eight, which takes two chunks."""
    answer = ask(model, candidates, Question(plans(20), to_planted), stop_after=2)
    assert not answer.is_complete
    assert answer.evaluated.tolist() == [True] * 8 + [False] * 12
    assert answer.ranking[0] == PLANTED
    assert len(answer.ranking) == 8
    assert np.isnan(answer.scores[8:]).all()


def test_the_deadline_is_overrun_by_no_more_than_a_piece(model: WorldModel, candidates: Candidates) -> None:
    started_s = time.monotonic()
    answer = ask(model, candidates, Question(plans(8)))
    needed_s = time.monotonic() - started_s
    deadline_s = time.monotonic() + 2.5 * needed_s
    answer = ask(model, candidates, Question(plans(800), deadline_s=deadline_s))
    assert time.monotonic() < deadline_s + 2 * needed_s
    assert not answer.is_complete
    assert 0 < answer.evaluated.sum() < 800
    late = ask(model, candidates, Question(plans(8), deadline_s=time.monotonic()))
    assert not late.evaluated.any()
    assert not late.futures


def test_no_more_futures_than_asked_for_are_kept(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    evaluation = Evaluation(candidates, model.past(0), Question(plans(40), to_planted, top_k=3))
    assert max(len(evaluation._best) for _ in evaluation.run()) == 3
    assert not ask(model, candidates, Question(plans(3), to_planted, top_k=0)).futures


def test_costs_are_final_goal_distances(
    model: WorldModel, candidates: Candidates, to_planted: GoalDistance
) -> None:
    costs = costs_of(candidates, model.past(0), to_planted)(plans(10))
    answer = ask(model, candidates, Question(plans(10), to_planted))
    np.testing.assert_array_equal(costs, answer.final_goal_distance)


def test_a_plug_in_of_another_shape_is_named(model: WorldModel, candidates: Candidates) -> None:
    with pytest.raises(ValueError, match=r"goal distance: expected \(futures, frames\) = \(2, 5\)"):
        ask(model, candidates, Question(plans(2), lambda futures: futures.mean(axis=(1, 2, 3, 4))))


def test_an_unknown_distance_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="expected one of codec, perceptual, found 'lpips'"):
        find_goal_distance("lpips")


def test_a_plug_in_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: WorldModel
) -> None:
    (tmp_path / "near_zero.py").write_text(
        "def make(backend, goal):\n    return lambda futures: (futures**2).mean(axis=(2, 3, 4))\n"
    )
    info = tmp_path / "near_zero-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: near-zero\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[astra_ros.goal_distance]\nzero = near_zero:make\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    measure = find_goal_distance("zero")(model.backend, Goal(np.ones(LATENT, np.float32)))
    assert measure(np.full((1, 2, *LATENT), 2, np.float32)).tolist() == [[4, 4]]
