"""Observations in, a predicted future out, with the real runtime."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends import golden
from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.golden import ChunkInputs
from astra_ros.history.memory import HistorySlots
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import FloatArray, Observation

STEP_NS = 200_000_000


@pytest.fixture(scope="module")
def loaded(untrained_bundle: Path) -> Iterator[WorldModel]:
    with WorldModel.load(untrained_bundle) as model:
        yield model


@pytest.fixture
def world_model(loaded: WorldModel) -> WorldModel:
    """Four observations, the newest at 3 * STEP_NS."""
    loaded.reset()
    for observation in observations():
        loaded.observe(observation)
    return loaded


def observations() -> list[Observation]:
    rng = np.random.default_rng(0)
    return [
        Observation(
            k * STEP_NS,
            rng.integers(0, 256, (32, 32, 3), np.uint8),
            rng.standard_normal(8).astype(np.float32),
        )
        for k in range(4)
    ]


def plan(horizon: int) -> FloatArray:
    return np.random.default_rng(1).standard_normal((horizon, 8)).astype(np.float32)


@pytest.mark.parametrize("horizon", [1, 2, 3, 5, 6])
def test_one_frame_per_row_of_the_plan(world_model: WorldModel, horizon: int) -> None:
    prediction = world_model.predict(3 * STEP_NS, plan(horizon), seed=7)
    assert (prediction.frames.shape, prediction.frames.dtype) == ((horizon, 32, 32, 3), np.uint8)
    assert prediction.seed == 7
    assert prediction.inference_time_s > 0


def test_same_inputs_and_seed_same_bytes(world_model: WorldModel) -> None:
    first = world_model.predict(3 * STEP_NS, plan(6), seed=3)
    world_model.predict(3 * STEP_NS, plan(4), seed=4)
    assert world_model.predict(3 * STEP_NS, plan(6), seed=3).frames.tobytes() == first.frames.tobytes()


@pytest.mark.parametrize("changed", ["seed", "plan", "picture", "joints"])
def test_everything_matters(world_model: WorldModel, changed: str) -> None:
    before = world_model.predict(3 * STEP_NS, plan(2), seed=3)
    if changed in ("picture", "joints"):
        *earlier, last = observations()
        pixels = 255 - last.pixels if changed == "picture" else last.pixels
        positions = last.positions + 1 if changed == "joints" else last.positions
        world_model.reset()
        for observation in (*earlier, Observation(last.stamp_ns, pixels, positions)):
            world_model.observe(observation)
    other = plan(2) + (changed == "plan")
    after = world_model.predict(3 * STEP_NS, other, seed=3 + (changed == "seed"))
    assert not np.array_equal(before.frames, after.frames)


def test_a_rollout_is_chunks_whose_latents_become_history(world_model: WorldModel) -> None:
    """Beside `predict`, the same by hand."""
    backend, rng = world_model.backend, np.random.default_rng(5)
    actions = plan(6)
    latents = np.stack([backend.encode(observation.pixels) for observation in observations()])
    positions = np.stack([observation.positions for observation in observations()])
    frames = []
    for start in (0, 2, 4):
        backend.remember(HistorySlots(latents[-4:], positions[-4:], np.ones(4, np.float32)))
        sample = rng.standard_normal((2, 4, 4, 4), np.float32)
        for k in range(2):
            sample = backend.denoise(k, sample, actions[start : start + 2])
        frames.append(backend.decode(sample))
        latents, positions = (
            np.concatenate([latents, sample]),
            np.concatenate([positions, actions[start : start + 2]]),
        )
    assert np.array_equal(world_model.predict(3 * STEP_NS, actions, seed=5).frames, np.concatenate(frames))


def test_the_first_chunk_is_the_one_the_exporter_saw(world_model: WorldModel, untrained_bundle: Path) -> None:
    """The rollout asks the backend for the same things in the same order as the golden chunk."""
    bundle = load_bundle(untrained_bundle)
    inputs, _ = golden.load(bundle.file("golden.npz"), bundle.manifest)
    noise = np.random.default_rng(9).standard_normal(inputs.noise.shape, np.float32)
    full = np.ones_like(inputs.mask)
    expected = golden.run_chunk(
        world_model.backend, ChunkInputs(inputs.pixels, inputs.positions, full, noise, inputs.plan)
    )
    world_model.reset()
    for k, (pixels, positions) in enumerate(zip(inputs.pixels, inputs.positions, strict=True)):
        world_model.observe(Observation(k * STEP_NS, pixels, positions))
    assert np.array_equal(world_model.predict(3 * STEP_NS, inputs.plan, seed=9).frames, expected.frames)


def test_a_plan_that_ends_inside_a_chunk_holds_still(world_model: WorldModel) -> None:
    short, held = plan(3), np.concatenate([plan(3), plan(3)[-1:]])
    cut = world_model.predict(3 * STEP_NS, short, seed=0).frames
    assert np.array_equal(cut, world_model.predict(3 * STEP_NS, held, seed=0).frames[:3])


def test_one_observation_is_enough(world_model: WorldModel) -> None:
    world_model.reset()
    world_model.observe(observations()[-1])
    assert len(world_model.predict(3 * STEP_NS, plan(2), seed=0).frames) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            plan(7),
            r"expected a horizon of at most 6 frames \(manifest.max_horizon\), found 7; send the first 6 rows",
        ),
        (plan(2)[:, :7], r"expected \(horizon, 8\) positions of panda_joint1, .*; found \(2, 7\)"),
        (plan(2)[0], r"expected \(horizon, 8\) positions .*found \(8,\)"),
        (plan(2)[:0], r"expected .*found \(0, 8\)"),
        (plan(2) * np.float32("nan"), "expected finite positions, found nan"),
    ],
)
def test_bad_plans(world_model: WorldModel, wrong: FloatArray, message: str) -> None:
    with pytest.raises(ValueError, match=f"plan: {message}"):
        world_model.predict(3 * STEP_NS, wrong, seed=0)
    assert len(world_model.predict(3 * STEP_NS, plan(2), seed=0).frames) == 2


def test_predicting_from_what_was_never_observed(world_model: WorldModel) -> None:
    with pytest.raises(LookupError, match="t0_ns: expected the stamp of an observation in memory"):
        world_model.predict(STEP_NS // 2, plan(2), seed=0)


def test_close_releases_the_backend(untrained_bundle: Path) -> None:
    world_model = WorldModel.load(untrained_bundle, backend="onnxruntime", num_threads=1)
    world_model.observe(observations()[0])
    world_model.close()
    world_model.close()
    assert len(world_model.memory) == 0
    with pytest.raises(RuntimeError, match=r"expected load\(\) first"):
        world_model.backend.encode(observations()[0].pixels)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_does_not_grow(world_model: WorldModel) -> None:
    times = []
    for k in range(80):
        if k == 30:
            before = resident_bytes()
        stamp = (4 + k) * STEP_NS
        world_model.observe(Observation(stamp, observations()[k % 4].pixels, plan(1)[0]))
        times.append(world_model.predict(stamp, plan(6), seed=k).inference_time_s)
    print(f"\npredict, 6 frames of the untrained model: median {1e3 * np.median(times):.1f} ms")
    assert resident_bytes() - before < 4e6


WITHOUT_TORCH = """
import hashlib, importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "safetensors", "einops", "rclpy"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
import numpy as np
from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import Observation

arrays = np.load(sys.argv[2])
with WorldModel.load(sys.argv[1]) as model:
    for stamp, pixels, positions in zip(arrays["stamps"], arrays["pixels"], arrays["positions"]):
        model.observe(Observation(int(stamp), pixels, positions))
    frames = model.predict(int(stamp), arrays["plan"], seed=11).frames
print(hashlib.sha256(frames.tobytes()).hexdigest())
"""


def test_the_robots_path_runs_without_torch(
    world_model: WorldModel, untrained_bundle: Path, tmp_path: Path
) -> None:
    """In a process in which importing torch fails, and with the same bytes as in this one."""
    seen = observations()
    np.savez(
        tmp_path / "arrays.npz",
        stamps=[observation.stamp_ns for observation in seen],
        pixels=np.stack([observation.pixels for observation in seen]),
        positions=np.stack([observation.positions for observation in seen]),
        plan=plan(6),
    )
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(untrained_bundle), str(tmp_path / "arrays.npz")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    here = world_model.predict(3 * STEP_NS, plan(6), seed=11).frames
    assert result.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()
