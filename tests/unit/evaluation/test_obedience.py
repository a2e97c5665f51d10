"""Models that obey, ignore or defy their plan are told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from astra_ros.actions.spec import ActionSpec
from astra_ros.evaluation.action_gap import HISTORY_LENGTHS, action_gap, inertia_curve
from astra_ros.evaluation.intervals import wilson
from astra_ros.evaluation.recovery import Judge, counterfactual, recovery
from astra_ros.evaluation.scenes import Sampling, Scenes, UnsuitableDataError
from astra_ros.types import ByteArray, FloatArray
from tests.unit.evaluation import toy_world
from tests.unit.evaluation.toy_world import SPEC

JUDGE = Judge(SPEC, toy_world.ColumnReader())


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return toy_world.data().scenes(horizon=5, count=24)


def test_an_obedient_model_needs_the_right_plan(scenes: Scenes) -> None:
    gap = action_gap(toy_world.ToyModel(), SPEC, scenes, (0,))
    assert gap.gap_db.mean > 20
    assert gap.moved_gap_db.mean > 20
    assert gap.moments + gap.still == 24


@pytest.mark.parametrize("model", [toy_world.CopyLast(), toy_world.IgnoresActions()])
def test_a_model_that_ignores_actions_has_no_gap(model: toy_world.ToyModel, scenes: Scenes) -> None:
    assert action_gap(model, SPEC, scenes, (0, 1)).gap_db.mean == 0.0


def test_nothing_is_said_of_a_still_picture(scenes: Scenes) -> None:
    moving = toy_world.data(1)
    pixels = moving.episodes[0].pixels
    frozen = replace(moving.episodes[0], pixels=np.repeat(pixels[:1], len(pixels), axis=0))
    still = replace(moving, episodes=(frozen,))
    with pytest.raises(
        ValueError, match="slider: expected two moments or more in which something moves, found 0"
    ):
        action_gap(toy_world.ToyModel(), SPEC, still.scenes(5, 4), (0,))


def test_visual_inertia_shows_in_the_curve() -> None:
    curve = inertia_curve(toy_world.Inert(length=8), toy_world.data(), 5, 12, (0,))
    gaps = {point.history_length: point.gap.gap_db.mean for point in curve}
    assert list(gaps) == list(HISTORY_LENGTHS)
    assert min(gaps[length] for length in (1, 2, 4, 8)) > 20
    assert gaps[16] == gaps[20] == 0.0


def test_the_plan_is_read_off_an_obedient_models_pictures(scenes: Scenes) -> None:
    result = recovery(toy_world.ToyModel(), JUDGE, scenes, (0, 1))
    assert result.predicted.mean > 0.99
    assert result.real.mean > 0.99
    assert result.copied.mean < 0.1
    assert set(result.by_dimension) == {"slide"}


def test_what_was_executed_counts_where_the_robot_could_not_follow() -> None:
    held_out = toy_world.data()
    commanded = tuple(replace(e, commanded=e.measured + 6 * np.sin(e.measured)) for e in held_out.episodes)
    lagging = replace(held_out, episodes=commanded).scenes(5, 24)
    result = recovery(toy_world.ToyModel(), JUDGE, lagging, (0,))
    assert result.real.mean > 0.99
    assert result.predicted.mean < 0.9


def test_a_judge_that_cannot_read_is_not_asked(scenes: Scenes) -> None:
    class Guesses:
        def recover(self, spec: ActionSpec, observed: ByteArray, frames: ByteArray) -> FloatArray:
            return np.zeros((*frames.shape[:2], 1), np.float32)

    with pytest.raises(
        UnsuitableDataError, match=r"slider: expected movements that the judge reads off real pictures"
    ):
        counterfactual(toy_world.ToyModel(), Judge(SPEC, Guesses()), scenes, (0,))


def test_nothing_is_read_off_copies_and_less_than_nothing_off_defiance(scenes: Scenes) -> None:
    assert recovery(toy_world.CopyLast(), JUDGE, scenes, (0,)).predicted.mean < 0.1
    assert recovery(toy_world.Contrary(), JUDGE, scenes, (0,)).predicted.mean < -0.5


@pytest.mark.parametrize(
    ("model", "share"),
    [(toy_world.ToyModel(), 1.0), (toy_world.Contrary(), 0.0), (toy_world.CopyLast(), 0.0)],
)
def test_counterfactuals(model: toy_world.ToyModel, share: float, scenes: Scenes) -> None:
    result = counterfactual(model, JUDGE, scenes, (0, 1))
    assert result.share.mean == share
    assert result.judged + result.alike == len(scenes)
    assert result.judged > 12


@pytest.mark.parametrize(("flips", "share"), [((False,), 1.0), ((False, True, False, True), 0.5)])
def test_more_seeds_are_not_more_moments(flips: tuple[bool, ...], share: float, scenes: Scenes) -> None:
    """The interval of a model that is right for some seeds and wrong for others is that of so many moments."""

    class OfTwoMinds(toy_world.ToyModel):
        def futures(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
            kind = toy_world.Contrary if flips[sampling.seed] else toy_world.ToyModel
            return kind().futures(scenes, plan, sampling)

    result = counterfactual(OfTwoMinds(), JUDGE, scenes, range(len(flips)))
    assert result.share == wilson(share * result.judged, result.judged)


def test_the_cameras_of_a_trajectory_are_resampled_together(scenes: Scenes) -> None:
    views = replace(scenes, episodes=tuple(f"one_cam{number % 3}" for number in range(len(scenes))))
    assert recovery(toy_world.ToyModel(), JUDGE, views, (0,)).predicted.low is None
    assert action_gap(toy_world.ToyModel(), SPEC, views, (0,)).gap_db.low is None
