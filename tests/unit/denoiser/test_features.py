"""Actions of a history and of a chunk as network input."""

from __future__ import annotations

import numpy as np

from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.history.layout import AGED, BLOCKS, NUM_SLOTS
from tests.bundle_fixture import CHUNK, action_specs
from tests.unit.denoiser.scene import actions

PANDA = action_specs()[1]


def moved_on(rows: np.ndarray, newest: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, newest])[[0, *range(1 + len(newest), NUM_SLOTS + len(newest))]]


def test_features_of_what_stays_in_the_window_stay() -> None:
    """What was appended long ago must be what remembering afresh would compute."""
    before = actions(PANDA, 1, NUM_SLOTS)[0]
    after = moved_on(before, actions(PANDA, 1, CHUNK, seed=9)[0])
    found, expected = history_features(PANDA, after), history_features(PANDA, before)
    aged = [slice(*block.slots) for block in BLOCKS if block.pooling == AGED]
    assert np.array_equal(found[0], expected[0])
    for younger, older in zip(aged[1:], aged, strict=False):
        assert np.array_equal(found[older], expected[younger])


def test_the_past_bit_tells_history_from_plan() -> None:
    rows = actions(PANDA, 1, NUM_SLOTS)[0]
    past, current = history_features(PANDA, rows), chunk_features(PANDA, rows[:CHUNK], rows[0])
    assert past.shape == (NUM_SLOTS, PANDA.num_features)
    assert current.shape == (CHUNK, PANDA.num_features)
    assert (past[:, -1] == 1).all()
    assert (current[:, -1] == 0).all()


def test_recent_frames_know_how_the_robot_moved_and_a_plan_continues_from_the_last_one() -> None:
    rows = np.arange(NUM_SLOTS, dtype=np.float32)[:, None] * np.ones(PANDA.dim, np.float32)
    step = slice(PANDA.dim, 2 * PANDA.dim)
    delta = history_features(PANDA, rows)[:, step] * np.asarray(PANDA.delta_std, np.float32)
    np.testing.assert_allclose(delta[-3:], 1.0, rtol=1e-5)
    plan = chunk_features(PANDA, rows[-1] + np.ones((1, PANDA.dim), np.float32), rows[-1])
    np.testing.assert_allclose(plan[:, step] * np.asarray(PANDA.delta_std, np.float32), 1.0, rtol=1e-5)
