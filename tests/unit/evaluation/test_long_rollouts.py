"""Drift and the free run: fading and broken models are noticed, and perfect ones are not blamed for the scene."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from astra_ros.actions.spec import ActionSpec
from astra_ros.evaluation.drift import drift
from astra_ros.evaluation.free_run import free_run, looped, save_minutes, within
from astra_ros.evaluation.scenes import Sampling, Scenes
from astra_ros.types import ByteArray, FloatArray
from tests.unit.evaluation import toy_world
from tests.unit.evaluation.toy_world import SPEC

SECONDS = (1.0, 2.0, 5.0, 50.0)


class Breaks(toy_world.ToyModel):
    """Ends in NaN."""

    def predict(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        raise FloatingPointError("latents: expected finite numbers, found nan at frame 7")


def test_a_model_that_stays_exact_does_not_drift() -> None:
    points = drift(toy_world.ToyModel(), toy_world.data(4, 200), SECONDS, 8, seed=0)
    assert [point.seconds for point in points] == [1.0, 2.0, 5.0]  # as far as the recordings go
    assert points[0].drift_db.mean == 0.0
    assert points[-1].sharpness_ratio.mean == 1.0


def test_a_model_that_copies_does_not_drift_beyond_the_scene() -> None:
    points = drift(toy_world.CopyLast(), toy_world.data(4, 200), SECONDS, 8, seed=0)
    assert points[-1].drift_db.mean == 0.0


def test_a_fading_model_drifts_and_is_seen_to_fade() -> None:
    points = drift(toy_world.Blurs(per_step=2.0), toy_world.data(4, 200), SECONDS, 8, seed=0)
    assert points[-1].drift_db.mean > 3.0
    assert points[-1].contrast_ratio.mean == pytest.approx(0.5, abs=0.02)
    assert points[-1].sharpness_ratio.mean == pytest.approx(0.25, abs=0.02)
    assert points[-1].colour_shift.mean > 3.0


def test_recordings_that_are_too_short_say_so() -> None:
    with pytest.raises(ValueError, match=r"slider: expected recordings longer than 3 s, found 1\.8 s"):
        drift(toy_world.ToyModel(), toy_world.data(1, 30), SECONDS, 1, seed=0)


def test_a_free_run_of_a_sound_model() -> None:
    run, frames = free_run(toy_world.ToyModel(), toy_world.data(2), seconds=60.0, every_s=10.0, seed=0)
    assert run.finite
    assert run.in_colour
    assert [one.seconds for one in run.shown] == [10, 20, 30, 40, 50, 60]
    assert len(frames) == 7


def test_a_free_run_of_less_than_a_step_is_one_step() -> None:
    run, frames = free_run(toy_world.ToyModel(), toy_world.data(1), seconds=0.06, every_s=0.006, seed=0)
    assert [one.seconds for one in run.shown] == [0.2]
    assert len(frames) == 2


def test_a_free_run_that_fades_or_breaks(tmp_path: Path) -> None:
    faded, _ = free_run(toy_world.Blurs(per_step=1.0), toy_world.data(2), 60.0, 10.0, seed=0)
    assert faded.finite
    assert not faded.in_colour
    broken, frames = free_run(Breaks(), toy_world.data(2), 60.0, 10.0, seed=0)
    assert not broken.finite
    assert len(frames) == 1
    save_minutes({"slider": np.repeat(frames, 3, axis=0), "other": frames}, 60.0, tmp_path / "minutes.png")
    assert Image.open(tmp_path / "minutes.png").size == (3 * 132 + 4, 2 * 172 + 4)


def test_colours_beyond_those_of_the_world() -> None:
    real = toy_world.episode(0).pixels
    assert within(real[:3], real)
    assert not within(np.full_like(real[:1], 60), real)
    assert not within(255 - real[:3], real)


def test_positions_go_there_and_back_and_rates_repeat() -> None:
    rows = np.array([[1.0], [2.0], [3.0]], np.float32)
    assert looped(SPEC, rows, 8)[:, 0].tolist() == [1, 2, 3, 3, 2, 1, 1, 2]
    rate = replace(SPEC, representation="rate", modality="drive")
    assert looped(rate, rows, 5)[:, 0].tolist() == [1, 2, 3, 1, 2]


def test_a_camera_comes_back_to_where_it_was() -> None:
    names, ones = tuple(f"p{i}" for i in range(12)), (1.0,) * 12
    spec = ActionSpec("toy", "camera", "relative_pose", names, ("1",) * 12, 0.2, ones, ones, ones, ones, ones)
    turn = np.array([0.8, 0, 0.6, 0.1, 0, 1, 0, 0, -0.6, 0, 0.8, 0.5], np.float32)
    advance = np.array([1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0.3], np.float32)
    rows = looped(spec, np.stack([turn, advance]), 4)
    pose = np.eye(4)
    for row in rows:
        pose = pose @ np.concatenate([row.reshape(3, 4), [[0, 0, 0, 1]]])
    np.testing.assert_allclose(pose, np.eye(4), atol=1e-6)
