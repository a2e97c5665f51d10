"""The simulated arm behind its socket: one episode, lived several times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.arrays import pack, unpack
from astra_ros.data.sim_client import SimClient, SimError
from tests.simulator.conftest import PYTHON, Start

pytestmark = pytest.mark.slow
SEED = 200_000


@pytest.mark.parametrize(("task", "noise_m"), [("reach", 0.06), ("lift", 0.03)])
def test_what_was_probed_happens(sim: SimClient, task: str, noise_m: float) -> None:
    lived = sim.reset(task=task, seed=SEED)
    assert lived["is_possible"]
    plans = sim.propose(count=3, noise_m=noise_m, seed=1)["plans"]
    assert plans.shape == (3, lived["rows"], 8)
    np.testing.assert_array_equal(sim.propose(count=2, noise_m=noise_m, seed=1)["plans"], plans[:2])
    probed = sim.probe(plans=plans)
    for plan, picture, is_success in zip(plans, probed["pictures"], probed["is_success"], strict=True):
        sim.restart()
        happened = sim.execute(rows=plan)
        assert happened["is_success"] == is_success
        assert (happened["now"] == picture).mean() > 0.999
        assert len(happened["measured"]) == 4 * len(plan)
        assert len(happened["pictures"]) == len(plan)
        np.testing.assert_allclose(happened["last"][:7], plan[-1, :7], atol=0.1)


def test_an_exact_prior_succeeds_and_a_blind_one_does_not(sim: SimClient) -> None:
    sim.reset(task="lift", seed=SEED)
    exact, blind = (sim.propose(count=4, noise_m=noise, seed=2)["plans"] for noise in (0.0, 0.2))
    assert sim.probe(plans=exact)["is_success"].all()
    assert not sim.probe(plans=blind)["is_success"].all()


def test_the_disc_pushes_the_tee_as_was_probed(disc: SimClient) -> None:
    assert disc.describe()["names"].tolist() == ["pusht_x", "pusht_y"]
    lived = disc.reset(task="push", seed=SEED)
    assert lived["is_possible"]
    assert (lived["now"] != lived["goal"]).any(axis=2).mean() > 0.01  # the T is elsewhere
    plans = disc.propose(count=16, noise_m=0.015, seed=1)["plans"]
    assert plans.shape == (16, lived["rows"], 2)
    probed = disc.probe(plans=plans)
    assert 0 < probed["is_success"].mean() < 1
    for index in (int(np.argmax(probed["is_success"])), int(np.argmin(probed["is_success"]))):
        disc.restart()
        happened = disc.execute(rows=plans[index])
        assert happened["is_success"] == probed["is_success"][index]
        np.testing.assert_array_equal(happened["now"], probed["pictures"][index])
        np.testing.assert_allclose(happened["last"], plans[index, -1], atol=0.02)


def test_a_push_that_is_exact_succeeds_whatever_the_seed(disc: SimClient) -> None:
    for seed in range(SEED, SEED + 5):
        assert disc.reset(task="push", seed=seed)["is_possible"]
        exact, blind = (disc.propose(count=4, noise_m=noise, seed=2)["plans"] for noise in (0.0, 0.1))
        assert disc.probe(plans=exact)["is_success"].all()
        assert not disc.probe(plans=blind)["is_success"].all()


def test_equal_seeds_are_equal_episodes(sim: SimClient) -> None:
    first, second = (sim.reset(task="reach", seed=SEED + 1) for _ in range(2))
    np.testing.assert_array_equal(first["goal"], second["goal"])
    np.testing.assert_array_equal(first["measured"], second["measured"])
    assert (sim.reset(task="reach", seed=SEED + 2)["goal"] != first["goal"]).any()


def test_an_episode_begins_with_reset(start_in_simulator: Start, tmp_path: Path) -> None:
    del start_in_simulator  # skips
    with SimClient(PYTHON, tmp_path / "log", "pusht") as fresh:
        with pytest.raises(SimError, match="restart: AssertionError: reset comes first"):
            fresh.restart()
        with pytest.raises(SimError, match="propose: AssertionError: reset comes first"):
            fresh.propose(count=1, noise_m=0.0, seed=0)


def test_a_request_that_fails_says_why_and_the_next_is_answered(sim: SimClient) -> None:
    with pytest.raises(SimError, match="fly: AttributeError"):
        sim.fly(height=1)
    with pytest.raises(SimError, match="reset: KeyError"):
        sim.reset(task="juggle", seed=0)
    assert sim.describe()["step_s"] == 0.2


def test_without_its_environment_it_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(SimError, match="expected the simulator's Python, found none; make it: make sim"):
        SimClient(tmp_path / "python", tmp_path / "log")


def test_arrays_numbers_and_texts_survive_the_way() -> None:
    values = {
        "rows": np.eye(2, dtype=np.float32),
        "names": np.array(["a", "bc"]),
        "seed": 3,
        "ok": True,
        "why": "so",
    }
    found = unpack(pack(values))
    assert {name: found[name] for name in ("seed", "ok", "why")} == {"seed": 3, "ok": True, "why": "so"}
    np.testing.assert_array_equal(found["rows"], values["rows"])
    assert found["names"].tolist() == ["a", "bc"]
