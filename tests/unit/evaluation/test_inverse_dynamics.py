"""The judge learns movements from real pictures, keeps them in a file, and knows whose they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from astra_ros.evaluation.inverse_dynamics import (
    InverseDynamics,
    InverseDynamicsConfig,
    cached_inverse_dynamics,
    train_inverse_dynamics,
    transitions,
)
from astra_ros.evaluation.recovery import Judge, recovery
from astra_ros.evaluation.scenes import at_model_rate
from tests.unit.evaluation import toy_world
from tests.unit.evaluation.toy_world import SPEC

CONFIG = InverseDynamicsConfig(size=32, width=16, max_gap=5, batch=32, learning_rate=3e-3, steps=150)


def test_transitions_go_both_ways_where_movements_add_up() -> None:
    episode = at_model_rate(toy_world.episode(0, 40), SPEC)
    pairs = transitions(SPEC, [episode, episode], max_gap=2)
    assert len(pairs.before) == 2 * 2 * (19 + 18)
    columns = toy_world.column_of(pairs.frames)
    moved = columns[pairs.after] - columns[pairs.before]
    np.testing.assert_allclose(pairs.movement[:, 0], moved, atol=0.1)
    assert {-2, -1, 1, 2} == set((pairs.after - pairs.before).tolist())


def test_rates_belong_to_one_step_forwards() -> None:
    rate = replace(SPEC, representation="rate", modality="drive")
    episode = at_model_rate(toy_world.episode(0, 40), rate)
    pairs = transitions(rate, [episode], max_gap=5)
    assert (pairs.after - pairs.before).tolist() == [1] * 19
    np.testing.assert_allclose(pairs.movement[:, 0], episode.measured[1:, 0])


def test_a_trained_judge_reads_the_movements_of_unseen_episodes() -> None:
    episodes = [at_model_rate(toy_world.episode(seed, 120), SPEC) for seed in range(10, 20)]
    network = train_inverse_dynamics(transitions(SPEC, episodes, 5), CONFIG, lambda _: None)
    result = recovery(toy_world.ToyModel(), Judge(SPEC, network), toy_world.data().scenes(5, 24), (0,))
    assert result.real.mean > 0.9
    assert result.predicted.mean > 0.9
    assert result.copied.mean < 0.2


def test_a_judge_is_trained_once_for_each_key(tmp_path: Path) -> None:
    trained: list[InverseDynamics] = []

    def train() -> InverseDynamics:
        trained.append(InverseDynamics(CONFIG, num_dims=1))
        return trained[-1]

    path = tmp_path / "cache" / "judge.safetensors"
    first = cached_inverse_dynamics(path, {"codec": "a"}, CONFIG, train)
    again = cached_inverse_dynamics(path, {"codec": "a"}, CONFIG, train)
    assert len(trained) == 1
    for own, other in zip(first.parameters(), again.parameters(), strict=True):
        assert own.equal(other)
    cached_inverse_dynamics(path, {"codec": "b"}, CONFIG, train)
    cached_inverse_dynamics(path, {"codec": "b"}, replace(CONFIG, batch=8), train)
    assert len(trained) == 3
