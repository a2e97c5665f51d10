"""CEM and MPPI on costs whose minimum is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

from astra_ros.actions.spec import ActionSpec
from astra_ros.planning.cem import CemConfig, cem
from astra_ros.planning.mppi import MppiConfig, mppi
from astra_ros.planning.refine import RefineConfig, refine
from astra_ros.planning.sampling import Planned, Sampler, limited, shifted
from astra_ros.types import FloatArray

HORIZON = 6
SPEC = ActionSpec(
    space="arm of two joints",
    modality="arm",
    representation="joint_position",
    names=("shoulder", "elbow"),
    units=("rad", "rad"),
    step_dt=0.2,
    mean=(0.0, 0.0),
    std=(1.0, 1.0),
    delta_std=(1.0, 1.0),
    lower=(-2.0, -1.0),
    upper=(2.0, 1.0),
)
REST = np.zeros((HORIZON, 2), np.float32)
TARGET = np.stack([np.linspace(0, 1.2, HORIZON), np.linspace(0, -0.6, HORIZON)], axis=1).astype(np.float32)

Optimise = Callable[..., Planned]
OPTIMISERS = [
    pytest.param(
        partial(cem, config=CemConfig(num_samples=128, num_elites=16, iterations=12, initial_std=0.5)),
        id="cem",
    ),
    pytest.param(partial(mppi, config=MppiConfig(iterations=10)), id="mppi"),
]


def to_target(plans: FloatArray) -> FloatArray:
    return np.square(plans - TARGET).mean(axis=(1, 2))


def two_valleys(plans: FloatArray) -> FloatArray:
    """The deeper one ends at 1.5, and rest lies nearer to the other."""
    end = plans[:, -1, 0]
    return np.minimum(np.square(end + 0.5) + 0.5, np.square(end - 1.5))


@pytest.mark.parametrize("optimise", OPTIMISERS)
def test_a_quadratic_is_minimised(optimise: Optimise) -> None:
    found = optimise(to_target, REST, SPEC)
    assert found.cost < 0.05 * to_target(REST[None])[0]
    assert found.cost == to_target(found.plan[None])[0]
    assert (np.diff(found.history) <= 0).all()
    assert found.history[-1] == found.cost


def test_cem_leaves_the_nearer_valley_for_the_deeper_one() -> None:
    wide = CemConfig(num_samples=256, iterations=12, initial_std=0.6, num_elites=16)
    assert cem(two_valleys, REST, SPEC, wide).plan[-1, 0] == pytest.approx(1.5, abs=0.1)


@pytest.mark.parametrize("optimise", OPTIMISERS)
def test_plans_stay_in_the_trained_range(optimise: Optimise) -> None:
    seen: list[FloatArray] = []

    def far_away(plans: FloatArray) -> FloatArray:
        seen.append(plans)
        return np.square(plans - 10).mean(axis=(1, 2))

    found = optimise(far_away, REST, SPEC)
    for plans in seen:
        np.testing.assert_array_equal(SPEC.clip(plans), plans)
    assert found.plan[:, 1].mean() > 0.8


@pytest.mark.parametrize("optimise", OPTIMISERS)
def test_the_same_seed_gives_the_same_plan(optimise: Optimise) -> None:
    one, again, other = (optimise(to_target, REST, SPEC, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.plan, again.plan)
    assert not np.array_equal(one.plan, other.plan)


@pytest.mark.parametrize("optimise", [cem, mppi])
def test_a_warm_start_is_never_lost(optimise: Optimise) -> None:
    assert optimise(to_target, TARGET, SPEC).cost == 0


@pytest.mark.parametrize("optimise", OPTIMISERS)
def test_plans_without_a_cost_are_avoided(optimise: Optimise) -> None:
    def broken(plans: FloatArray) -> FloatArray:
        return np.where(plans[:, -1, 0] < 0, np.nan, to_target(plans))

    found = optimise(broken, REST, SPEC)
    assert np.isfinite(found.cost)
    assert found.plan[-1, 0] >= 0
    nothing = optimise(lambda plans: np.full(len(plans), np.nan), REST, SPEC)
    np.testing.assert_array_equal(nothing.plan, REST)
    assert nothing.cost == np.inf


def test_what_nobody_evaluated_is_no_elite_of_cem() -> None:
    """As when a question was answered in part: the first plan of an iteration is the best so far, the second the mean."""
    asked: list[FloatArray] = []

    def only_the_first(plans: FloatArray) -> FloatArray:
        asked.append(plans)
        return np.where(np.arange(len(plans)) == 0, 1.0, np.nan)

    cem(only_the_first, REST, SPEC, CemConfig(num_samples=16, num_elites=8, iterations=2))
    assert np.array_equal(asked[1][1], REST)


@pytest.mark.parametrize("optimise", OPTIMISERS)
@pytest.mark.parametrize("replaced_after", [1, 10])
def test_a_plan_for_a_goal_that_was_replaced_is_not_the_best_any_more(
    optimise: Optimise, replaced_after: int
) -> None:
    """However cheap it was: it is compared by what it costs now."""
    iteration = count()

    def costs(plans: FloatArray) -> FloatArray:
        return to_target(plans) if next(iteration) >= replaced_after else to_target(-plans) - 100

    found = optimise(costs, REST, SPEC)
    assert found.cost == to_target(found.plan[None])[0]
    assert replaced_after > 1 or found.cost < 0.05 * to_target(REST[None])[0]


def test_a_colder_mppi_follows_the_best_more_closely() -> None:
    def last_mean(temperature: float) -> Any:
        seen: list[FloatArray] = []

        def costs(plans: FloatArray) -> FloatArray:
            seen.append(plans)
            return to_target(plans)

        mppi(costs, REST, SPEC, MppiConfig(iterations=1, temperature=temperature))
        return to_target(seen[-1])[1]  # beside the best

    assert last_mean(0.1) < last_mean(10.0)


def test_coloured_noise_is_smooth_and_of_unit_variance() -> None:
    def roughness(beta: float) -> tuple[float, float]:
        noise = Sampler(SPEC, REST[0], beta, max_step=1.5, seed=0)._noise((200, 20, 2))
        return float(np.diff(noise, axis=1).std()), float(noise.std())

    (white, white_std), (smooth, smooth_std) = roughness(0.0), roughness(2.0)
    assert smooth < 0.6 * white
    assert white_std == pytest.approx(1, abs=0.05)
    assert smooth_std == pytest.approx(1, abs=0.05)


def test_the_rest_of_a_plan_is_the_next_warm_start() -> None:
    plan = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(shifted(plan, 1), plan[[1, 2, 2]])
    np.testing.assert_array_equal(shifted(plan, 9), plan[[2, 2, 2]])


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: CemConfig(num_elites=65), "num_elites"),
        (lambda: CemConfig(momentum=1.0), "momentum"),
        (lambda: CemConfig(min_std=0.5), "min_std"),
        (lambda: MppiConfig(temperature=0.0), "temperature: expected more than 0"),
        (lambda: cem(to_target, REST[:, :1], SPEC), r"mean: expected \(horizon, 2\)"),
        (lambda: cem(lambda plans: plans[:, 0], REST, SPEC), r"costs: expected one per plan, \(64,\)"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        make()


@pytest.mark.parametrize("optimise", [cem, mppi])
@pytest.mark.parametrize("max_step", [1.5, 0.1])
def test_no_joint_jumps(optimise: Optimise, max_step: float) -> None:
    """However far away the goal is: every plan that is evaluated can be followed."""
    seen: list[FloatArray] = []

    def far_away(plans: FloatArray) -> FloatArray:
        seen.append(plans.copy())
        return np.square(plans[:, -1] - (2.0, -1.0)).sum(axis=1)

    kind = CemConfig if optimise is cem else MppiConfig
    spec = replace(SPEC, delta_std=(0.2, 0.1))
    chosen = kind(max_step=max_step)
    found = optimise(far_away, REST, spec, chosen)
    for plans in (*seen, found.plan[None]):
        steps = np.abs(np.diff(plans, axis=1, prepend=np.zeros((len(plans), 1, 2), np.float32)))
        assert (steps <= max_step * np.array(spec.delta_std) + 1e-5).all()
    assert found.cost < far_away(REST[None])[0]


@pytest.mark.parametrize("optimise", [cem, mppi])
def test_the_first_row_is_within_reach_of_where_the_robot_is(optimise: Optimise) -> None:
    """Also where the first guess is not, as when the robot is a little outside the trained range."""
    seen: list[FloatArray] = []

    def costs(plans: FloatArray) -> FloatArray:
        seen.append(plans.copy())
        return to_target(plans)

    anchor, spec = np.array([1.0, -1.1], np.float32), replace(SPEC, delta_std=(0.2, 0.1))
    found = optimise(costs, REST, spec, anchor=anchor)
    for plans in (*seen, found.plan[None]):
        assert (np.abs(plans[:, 0] - anchor) <= 1.5 * np.array(spec.delta_std) + 1e-6).all()
        np.testing.assert_array_equal(spec.clip(plans), plans)


def test_rates_may_change_at_once() -> None:
    keys = replace(SPEC, representation="rate", delta_std=(1e-3, 1e-3))
    assert abs(cem(to_target, REST, keys).plan[-1, 0]) > 0.3


def proposals(count: int = 16, seed: int = 0) -> FloatArray:
    """Straight plans to places around TARGET's end, both joints moving together."""
    ends = TARGET[-1] + np.random.default_rng(seed).normal(0, 0.3, (count, 2))
    return (np.linspace(0, 1, HORIZON)[:, None] * ends[:, None]).astype(np.float32)


def test_proposals_are_refined_to_between_the_best_of_them() -> None:
    found = refine(to_target, proposals(), SPEC)
    assert found.cost < 0.1 * to_target(proposals()).min()
    assert found.cost == found.history[-1] == to_target(found.plan[None])[0]
    assert (np.diff(found.history) <= 0).all()
    again, other = refine(to_target, proposals(), SPEC), refine(to_target, proposals(), SPEC, seed=1)
    np.testing.assert_array_equal(found.plan, again.plan)
    assert not np.array_equal(found.plan, other.plan)


def test_mixtures_are_no_faster_than_they_may_be() -> None:
    """Of plans that go at once, later, or not at all, all as fast as they may, differences are faster."""
    step, share = np.full(2, 0.25, np.float32), np.arange(1, HORIZON + 1)[:, None] * np.ones(2)
    ways = (np.minimum(share, 3), np.maximum(share - 3, 0), 0 * share, -np.minimum(share, 3))
    guesses = 0.25 * np.stack(ways).astype(np.float32)
    slow = partial(limited, anchor=np.zeros(2, np.float32), max_step=step)

    def fastest(**options: Any) -> float:
        """Step of all plans that were asked about, in the allowed one."""
        steps: list[float] = []

        def costs(plans: FloatArray) -> FloatArray:
            steps.append(float((np.abs(np.diff(plans, axis=1, prepend=0)) / step).max()))
            return to_target(plans)

        refine(costs, guesses, SPEC, **options)
        return max(steps)

    assert fastest(limit=slow) <= 1 + 1e-5
    assert fastest() > 1.1


def test_refined_plans_move_as_the_proposals_do() -> None:
    """A cost that would have the joints do something else at every step, as a model's errors do."""
    wish = TARGET * np.array([1.0, -1.0], np.float32)[np.arange(HORIZON) % 2][:, None]
    seen: list[FloatArray] = []

    def tempting(plans: FloatArray) -> FloatArray:
        seen.append(plans)
        return np.square(plans - wish).mean(axis=(1, 2))

    refine(tempting, proposals(), SPEC)
    free = cem(tempting, proposals()[0], SPEC, CemConfig(max_step=10))
    tried = np.concatenate(seen[1:6])
    straight = np.linspace(0, 1, HORIZON)[:, None] * tried[:, -1:]
    np.testing.assert_allclose(tried, straight, atol=1e-5)
    assert np.abs(free.plan - np.linspace(0, 1, HORIZON)[:, None] * free.plan[-1]).max() > 0.2
    lowest, highest = SPEC.clip(proposals()).min(axis=0), SPEC.clip(proposals()).max(axis=0)
    assert (tried >= lowest).all()
    assert (tried <= highest).all()


def test_what_nobody_evaluated_is_not_mixed() -> None:
    asked: list[FloatArray] = []

    def only_the_first_two(plans: FloatArray) -> FloatArray:
        asked.append(plans)
        return np.where(np.arange(len(plans)) < 2, to_target(plans), np.nan)

    refine(only_the_first_two, proposals(), SPEC, RefineConfig(iterations=1))
    np.testing.assert_allclose(asked[1][1], proposals()[:2].mean(axis=0), atol=1e-6)
    nothing = refine(lambda plans: np.full(len(plans), np.nan), proposals(), SPEC)
    assert nothing.cost == np.inf
    np.testing.assert_array_equal(nothing.plan, proposals()[0])


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: refine(to_target, REST, SPEC), r"guesses: expected \(n, horizon, 2\) .* found \(6, 2\)"),
        (lambda: refine(to_target, proposals(1), SPEC), r"of two plans or more, found \(1, 6, 2\)"),
        (lambda: refine(lambda plans: plans, proposals(), SPEC), r"costs: expected one per plan, \(16,\)"),
        (lambda: RefineConfig(iterations=-1), "expected iterations >= 0"),
        (lambda: RefineConfig(num_elites=1), "2 <= num_elites <= num_samples = 32, found 5, 1"),
    ],
)
def test_what_cannot_be_refined_is_refused(call: Callable[[], Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        call()
