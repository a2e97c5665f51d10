"""Filling a dataset: bad seeds are refused, a failing episode is counted, a dying process is replaced. No simulator needed."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from astra_ros.cli.main import main
from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import Dataset
from astra_ros.data.schema import ActionSchema
from astra_ros.data.worlds import catalog, generate
from astra_ros.data.worlds.base import Recording, Style, World, style_of
from astra_ros.data.worlds.generate import GenerateConfig

SCHEMA = ActionSchema("drifting", "drive", "rate", ("steer", "speed"), ("1", "m/s"))
FAILS, DIES = 2, 3


def drift(seed: int, style: Style) -> Recording:
    """A grey ramp; some seeds fail as a simulator may: with an exception, or taking its process with it."""
    del style
    if seed == FAILS:
        raise ArithmeticError("the physics blew up")
    if seed == DIES:
        os._exit(1)
    return Recording([np.full((128, 128, 3), 10 * k + seed, np.uint8) for k in range(4)], [np.zeros(2)] * 4)


DRIFTING = World("drifting", SCHEMA, drift, lambda seed: "drift")


def episode_of(world: str, seed: int, style: Style) -> Episode:
    """Stands in for the job of a worker process; found there by its name."""
    assert world == "driving"
    return DRIFTING.episode(seed, style)


@pytest.fixture
def drifting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalog's worlds need MuJoCo; this one is known to forked processes only."""
    monkeypatch.setattr(generate, "open_world", lambda name: DRIFTING)
    monkeypatch.setattr(generate, "_episode", episode_of)
    monkeypatch.setattr(generate, "get_context", lambda method: multiprocessing.get_context("fork"))


@pytest.mark.usefixtures("drifting")
def test_a_failing_episode_and_a_dying_process_are_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    told: dict[str, str] = {}
    config = GenerateConfig("driving", range(6), workers=1)
    failed = generate.generate(tmp_path, config, lambda name, error: told.update({name: str(error)}))
    assert failed == 2
    assert Dataset.open(tmp_path).episode_names == tuple(f"episode_{seed:06d}" for seed in (0, 1, 4, 5))
    assert told["episode_000002"] == "the physics blew up"
    assert "terminated abruptly" in told["episode_000003"]


@pytest.mark.usefixtures("drifting")
def test_what_is_there_is_not_simulated_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate.generate(tmp_path, GenerateConfig("driving", range(2), workers=1), lambda name, error: None)
    asked: list[int] = []

    def simulate(config: GenerateConfig, seeds: list[int]) -> list[tuple[int, Future[Episode]]]:
        asked.extend(seeds)
        return []

    monkeypatch.setattr(generate, "_simulate", simulate)
    generate.generate(tmp_path, GenerateConfig("driving", range(5), workers=1), lambda name, error: None)
    assert asked == [2, 3, 4]


def test_both_styles_alternate_unless_one_is_asked_for() -> None:
    assert [style_of(seed) for seed in range(4)] == ["abrupt", "smooth", "abrupt", "smooth"]
    assert GenerateConfig("rooms", range(1)).style_of(7) == "smooth"
    assert GenerateConfig("rooms", range(1), style="abrupt").style_of(7) == "abrupt"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--first-seed", "-1"], "seeds: expected one or more from 0 on, found 150 from -1"),
        (["--episodes", "0"], "seeds: expected one or more from 0 on, found 0 from 0"),
        (["--workers", "0"], "workers: expected 1 or more, found 0"),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_one_line(
    options: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", "--world", "driving", "--out", str(tmp_path / "new"), *options]) == 1
    error = capsys.readouterr().err
    assert line in error
    assert len(error.strip().splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_an_unknown_world_or_seed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["simulate", "--world", "moon", "--out", str(tmp_path)])
    assert "choose from" in capsys.readouterr().err
    with pytest.raises(
        ValueError, match="world: expected one of driving, rooms, command, metaworld, pusht, found 'moon'"
    ):
        catalog.open_world("moon")
    with pytest.raises(ValueError, match="seed: expected 0 or more, found -3"):
        DRIFTING.episode(-3, "smooth")
