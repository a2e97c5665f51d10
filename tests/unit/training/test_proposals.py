"""Proposals learned from a world whose answers are known: a dot on a table, which two joints move."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends.manifest import LatentSpec
from astra_ros.rollout.proposals import Proposals
from astra_ros.training import proposals
from astra_ros.training.proposals import (
    Drive,
    Hindsight,
    Latents,
    ProposalNetwork,
    ProposalsConfig,
    quality,
    train_proposals,
)
from astra_ros.types import FloatArray

SIDE, LENGTH, HORIZON = 8, 17, 8
SPEC = LatentSpec(2, SIDE, SIDE)
ONES = (1.0, 1.0)
TABLE = ActionSpec(
    "table",
    "arm",
    "joint_position",
    ("x", "y"),
    ("m", "m"),
    0.2,
    (0.0, 0.0),
    (0.5, 0.5),
    ONES,
    (-2.0, -2.0),
    (2.0, 2.0),
)
CONFIG = ProposalsConfig(
    count=8, horizon=HORIZON, width=16, features=48, rank=8, batch=64, steps=400, dropout=0.0
)


def picture(position: FloatArray) -> FloatArray:
    """(2, 8, 8): a soft dot, and how bright the table is."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1) * 3 - 1.5
    dot = np.exp(-4 * ((columns - position[0]) ** 2 + (rows - position[1]) ** 2))
    return np.stack([dot, np.full_like(dot, 0.3)]).astype(np.float16)


def drive(path: FloatArray) -> Drive:
    """Commands are reached at once."""
    return Drive(np.stack([picture(one) for one in path]), path.astype(np.float32), path.astype(np.float32))


def straight(seed: int) -> Drive:
    """To two places, one after the other."""
    corners = np.random.default_rng(seed).uniform(-1, 1, (3, 2))
    share = np.linspace(0, 2, LENGTH)
    return drive(np.stack([np.interp(share, range(3), corners[:, k]) for k in range(2)], axis=1))


def around(seed: int) -> Drive:
    """From the left to the right, around the middle by one side or by the other."""
    side = -1 if np.random.default_rng(seed).random() < 0.5 else 1
    angle = np.linspace(np.pi, 0, HORIZON + 1)
    return drive(np.stack([np.cos(angle), side * np.sin(angle)], axis=1))


def trained(drives: list[Drive], config: ProposalsConfig = CONFIG) -> ProposalNetwork:
    learned = Hindsight(drives, TABLE, HORIZON)
    return train_proposals(learned, TABLE, config, Latents.of(SPEC, drives), lambda _line: None)


def propose(network: ProposalNetwork, start: FloatArray, goal: FloatArray, rows: int) -> FloatArray:
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    here, there = (picture(one).astype(np.float32) for one in (start, goal))
    return Proposals(weights, TABLE).propose(here, there, start.astype(np.float32), rows).plans


def test_it_learns_where_goal_pictures_are() -> None:
    unseen = Hindsight([straight(1000 + seed) for seed in range(20)], TABLE, HORIZON)
    found = quality(trained([straight(seed) for seed in range(60)]), unseen, TABLE, HORIZON)
    assert found.likeliest < 0.25
    assert found.best < 0.08
    untaught = trained([straight(0)], replace(CONFIG, steps=1))
    assert quality(untaught, unseen, TABLE, HORIZON).likeliest > 0.8


def test_a_vehicle_has_arrived_where_its_velocities_add_up_to() -> None:
    """Two plans with the last row of what was driven: one that arrives, by other velocities, and one that does not."""
    rates = replace(TABLE, modality="drive", representation="rate")
    path = np.array([[0.0, 0.0], [0.2, 0.0], [0.4, 0.0], [0.3, 0.1]], np.float32)
    one = replace(drive(path), commanded=path)
    batch = Hindsight([one], rates, HORIZON).draw(1, np.random.default_rng(0), rows=3)
    driven = batch.rows[:, None]
    arrives, misses = driven.clone(), driven.clone()
    arrives[0, 0, :2] = driven[0, 0, :2].flip(0)
    misses[0, 0, 0] += 1
    errors = proposals._on_arrival(torch.cat([arrives, misses], dim=1), batch, rates)[0]
    assert errors[0] == pytest.approx(0, abs=1e-6)
    assert errors[1] == pytest.approx(1 / 3)  # a deviation off in three rows
    joints = proposals._on_arrival(torch.cat([arrives, misses], dim=1), batch, TABLE)[0]
    assert joints.tolist() == [0, 0]


def test_where_drivers_go_two_ways_it_proposes_both_and_not_their_mean() -> None:
    network = trained([around(seed) for seed in range(24)], replace(CONFIG, steps=1000))
    plans = propose(network, np.array([-1.0, 0.0]), np.array([1.0, 0.0]), HORIZON)
    middle = plans[:, HORIZON // 2 - 1, 1]
    assert np.abs(middle - 1).min() < 0.15
    assert np.abs(middle + 1).min() < 0.15
    np.testing.assert_allclose(plans[:2, -1], [[1, 0], [1, 0]], atol=0.15)
    # The likeliest two are ways that somebody went.
    assert (np.abs(np.abs(middle[:2]) - 1) < 0.25).all()


def test_equal_data_and_seed_give_the_equal_network_and_another_seed_another() -> None:
    drives, short = [straight(seed) for seed in range(4)], replace(CONFIG, steps=3)
    first, again, other = (trained(drives, one).draw.weight for one in (short, short, replace(short, seed=1)))
    assert first.equal(again)
    assert not first.equal(other)


def test_a_batch_is_what_was_commanded_between_two_moments() -> None:
    one = straight(3)
    batch = Hindsight([one, drive(one.measured[:1])], TABLE, HORIZON).draw(32, np.random.default_rng(0))
    for row in range(32):
        start, last = batch.pose[row].numpy() * 0.5, int(batch.last[row])
        (now,) = np.flatnonzero(np.isclose(one.measured, start, atol=1e-6).all(axis=1))
        assert batch.time[row] == pytest.approx((last + 1) / HORIZON)
        np.testing.assert_array_equal(batch.goal[row], one.latents[now + last + 1].astype(np.float32))
        wanted = (one.commanded[now + 1 : now + last + 2] - start) / 0.5
        np.testing.assert_allclose(batch.rows[row, : last + 1], wanted, atol=1e-5)


def test_a_gripper_that_is_told_to_open_or_to_close_gets_nothing_between() -> None:
    """The second joint is told one of two levels, but for one moment of its way."""
    drives = [straight(seed) for seed in range(4)]
    for one in drives:
        one.commanded[:, 1] = np.where(one.commanded[:, 0] > 0, 0.75, -0.5)
    drives[0].commanded[3, 1] = 0.1
    learned = Hindsight(drives, TABLE, HORIZON)
    low, high = learned.switches()
    np.testing.assert_allclose([low, high], [[0, -0.5], [0, 0.75]])
    network = trained(drives, replace(CONFIG, steps=3))
    plans = propose(network, np.zeros(2, np.float32), np.array([0.5, 0.5], np.float32), HORIZON)
    assert {*np.unique(plans[..., 1])} <= {np.float32(-0.5), np.float32(0.75)}
    assert len(np.unique(plans[..., 0])) > 10


def test_what_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(ValueError, match="episodes: expected some of two steps or more"):
        Hindsight([drive(np.zeros((1, 2), np.float32))], TABLE, HORIZON)
    with pytest.raises(ValueError, match="steps: expected 1 or more, found 0"):
        ProposalsConfig(steps=0)
