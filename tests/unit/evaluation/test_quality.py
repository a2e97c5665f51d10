"""Models of known quality get the numbers they deserve."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.evaluation.metrics import masked_psnr, moving_pixels, psnr
from astra_ros.evaluation.quality import Quality, metrics, quality
from astra_ros.evaluation.scenes import Predictor
from astra_ros.evaluation.step_curve import NUM_STEPS, step_curve
from astra_ros.types import ByteArray, FloatArray
from tests.unit.evaluation import toy_world

BEST_DB = 10 * np.log10(255**2 * 12)


def _quality(model: Predictor) -> Quality:
    scenes = toy_world.data().scenes(horizon=5, count=16)
    return quality(model, scenes, (5,), (0, 1), metrics(None), toy_world.SPEC.step_dt)[0]


def test_a_perfect_model_gains_all_there_is_to_gain() -> None:
    result = _quality(toy_world.ToyModel())
    assert result.seconds == 1.0
    assert result.metrics["psnr_db"]["predicted"].mean == pytest.approx(BEST_DB, abs=0.1)
    assert result.metrics["ssim"]["predicted"].mean == pytest.approx(1.0, abs=1e-4)
    assert result.share_of_possible is not None
    assert result.share_of_possible.mean == pytest.approx(1.0, abs=0.05)
    assert (result.episodes, result.moments) == (4, 16)
    assert result.gain_db.mean > 20


def test_a_model_that_copies_gains_nothing() -> None:
    result = _quality(toy_world.CopyLast())
    assert result.gain_db.mean == 0.0
    assert result.share_of_possible is not None
    assert result.share_of_possible.mean == 0.0
    assert result.gain_over_history_only_db.mean == 0.0
    assert result.metrics["ssim"]["predicted"] == result.metrics["ssim"]["copy_last"]


def test_what_the_action_free_branch_knows_is_asked_without_guidance() -> None:
    """A model that is served with guidance 0 is its own action-free branch."""
    copying, obeying = _quality(toy_world.Coarse(1000, 0.0)), _quality(toy_world.Coarse(1000))
    assert obeying.metrics["psnr_db"]["history_only"] == copying.metrics["psnr_db"]["predicted"]
    assert obeying.metrics["psnr_db"]["predicted"].mean > copying.metrics["psnr_db"]["predicted"].mean + 20
    assert copying.gain_over_history_only_db.mean == 0.0


def test_no_share_is_claimed_where_the_codec_is_worse_than_copying() -> None:
    class Blind(toy_world.CopyLast):
        def reconstruct(self, latents: FloatArray) -> ByteArray:
            return np.zeros_like(super().reconstruct(latents))

    assert _quality(Blind()).share_of_possible is None


def test_moving_pixels_are_those_that_change_visibly() -> None:
    observed, happened = np.full((1, 4, 4, 3), 100, np.uint8), np.full((1, 2, 4, 4, 3), 100, np.uint8)
    happened[0, 0, 1, 1, 2] += 21
    happened[0, 1, 2, 2] += 20
    assert np.argwhere(moving_pixels(happened, observed)).tolist() == [[0, 0, 1, 1]]


def test_psnr_on_moving_pixels_ignores_the_others() -> None:
    actual, predicted = np.zeros((2, 1, 4, 4, 3), np.uint8), np.full((2, 1, 4, 4, 3), 200, np.uint8)
    mask = np.zeros((2, 1, 4, 4), bool)
    mask[0, 0, 0] = True
    predicted[0, 0, 0] = 10
    db = masked_psnr(predicted, actual, mask)
    assert db[0] == pytest.approx(psnr(predicted[0, 0, :1], actual[0, 0, :1]))
    assert np.isnan(db[1])


def test_a_student_as_good_as_its_teacher_keeps_everything() -> None:
    scenes, lines = toy_world.data().scenes(5, 8), list[str]()
    model = toy_world.ToyModel()
    points, teacher = step_curve(model, (model, 50), scenes, metrics(None), lines.append)
    assert [point.num_steps for point in points] == list(NUM_STEPS)
    assert {point.kept.mean for point in points} == {1.0}
    assert teacher["psnr_db"].mean == pytest.approx(BEST_DB)
    assert lines[-1] == "steps: K = 50"


def test_every_number_of_steps_is_the_one_that_is_measured() -> None:
    """A model that errs by what its steps are fewer."""
    scenes, model = toy_world.data().scenes(5, 8), toy_world.Coarse()
    points, teacher = step_curve(model, (model, 50), scenes, metrics(None), lambda _: None)
    reached = [point.metrics["psnr_db"].mean for point in points]
    assert reached == sorted(set(reached))
    assert reached[-1] == teacher["psnr_db"].mean
    assert points[0].kept.mean < points[-1].kept.mean == 1.0


def test_a_worse_student_keeps_less() -> None:
    scenes = toy_world.data().scenes(5, 8)
    points, _ = step_curve(
        toy_world.CopyLast(), (toy_world.ToyModel(), 50), scenes, metrics(None), lambda _: None
    )
    assert points[0].kept.mean < 0.6
