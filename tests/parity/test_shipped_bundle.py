"""The bundle that travels with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends.bundle import shipped_bundle
from astra_ros.data.episode import read_episode
from astra_ros.evaluation.held_out_bundle import EvaluationConfig, evaluate
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import NANOSECONDS, Observation

BUNDLE = shipped_bundle()
DEMO_BAG = Path(__file__).resolve().parents[2] / "examples/demo_bag"


def test_it_is_small_enough_for_a_repository() -> None:
    assert sum(path.stat().st_size for path in BUNDLE.iterdir()) <= 25_000_000


def test_it_predicts(capsys: pytest.CaptureFixture[str]) -> None:
    """Loading checks hashes and golden vectors on this machine."""
    rng = np.random.default_rng(0)
    with WorldModel.load(BUNDLE) as world_model:
        manifest = world_model.manifest
        joints = np.asarray(manifest.action.mean, np.float32)
        for slot in range(manifest.history.num_slots):
            stamp = round(slot * manifest.action.step_dt * NANOSECONDS)
            pixels = rng.integers(0, 256, (manifest.camera.height, manifest.camera.width, 3), np.uint8)
            world_model.observe(Observation(stamp, pixels, joints))
        plan = np.tile(joints, (manifest.max_horizon, 1))
        prediction = world_model.predict(stamp, plan, seed=0)
    assert prediction.frames.shape == (manifest.max_horizon, manifest.camera.height, manifest.camera.width, 3)
    with capsys.disabled():
        print(f"\n{manifest.model_id}: {len(plan)} frames in {1e3 * prediction.inference_time_s:.0f} ms")


def test_it_beats_copying_the_last_frame_and_obeys_the_actions(capsys: pytest.CaptureFixture[str]) -> None:
    """On the recording of `make demo`, which it was not trained on; benchmarks/results has the whole held-out set."""
    with WorldModel.load(BUNDLE) as world_model:
        spec = world_model.manifest.action
        episode = read_episode(DEMO_BAG, spec.names, world_model.manifest.camera.height)
        quality = evaluate(world_model, [episode], EvaluationConfig(horizon=10, every=15))
    one_second = round(1.0 / spec.step_dt) - 1
    predicted, other = quality.predicted[one_second].mean, quality.other_actions[one_second].mean
    assert quality.gain[one_second].mean >= 2.0
    assert predicted - other >= 2.0
    with capsys.disabled():
        print(f"\n{quality.table()}")
