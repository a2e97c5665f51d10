"""`astra attempts`: the simulated arm tries what the bundled model proposes, and a dataset is what came of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends.bundle import load_bundle, shipped_bundle
from astra_ros.cli.main import main
from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import Dataset
from tests.simulator.conftest import PYTHON, Start

pytestmark = pytest.mark.slow
SEED = 200_000
START_STEPS, ROWS = 13, 14  # of the task lift


def attempts(out: Path, *words: str) -> int:
    options = ["--first-seed", str(SEED), "--attempts", "2", "--python", str(PYTHON), *words]
    return main(["attempts", str(shipped_bundle()), "--out", str(out), *options])


@pytest.fixture(scope="module")
def recorded(start_in_simulator: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attempts") / "panda_attempts"
    assert attempts(out, "--episodes", "2") == 0
    return out


@pytest.fixture(scope="module")
def episodes(recorded: Path) -> list[Episode]:
    dataset = Dataset.open(recorded)
    return [dataset.read(name, 128) for name in dataset.episode_names]


def test_it_is_a_dataset_of_the_models_own_space(recorded: Path, episodes: list[Episode]) -> None:
    schema, action = Dataset.open(recorded).schema, load_bundle(shipped_bundle()).manifest.action
    assert (schema.space, schema.names, schema.units) == (action.space, action.names, action.units)
    assert {len(one.pixels) for one in episodes} == {START_STEPS + 1 + 2 * ROWS}


def test_every_picture_is_beside_what_led_to_it(episodes: list[Episode]) -> None:
    """A measured position is nearer to the command before its picture than to the command after it, or to the one before that."""
    for one in episodes:
        measured, commanded = one.measured[:, :7], one.commanded[:, :7]
        is_moving = np.abs(np.diff(commanded, axis=0)).sum(axis=1)[1:-1] > 0.05
        assert is_moving.sum() > 10
        led, before, after = (
            np.abs(measured[2:-1] - of)[is_moving].mean()
            for of in (commanded[2:-1], commanded[1:-2], commanded[3:])
        )
        assert led < before
        assert led < after


def test_the_arm_moves_and_the_gripper_is_told_to_close(episodes: list[Episode]) -> None:
    for one in episodes:
        assert np.abs(np.diff(one.pixels.astype(int), axis=0)).max(axis=(1, 2, 3)).min() > 0
    fingers = np.concatenate([one.commanded[START_STEPS + 1 :, 7] for one in episodes])
    assert fingers.min() < 0.01
    assert fingers.max() > 0.03


def test_what_is_there_is_left_as_it_is(
    recorded: Path, episodes: list[Episode], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An interrupted command goes on, and a seed gives the same episode in another folder."""
    assert attempts(recorded, "--episodes", "2") == 0
    assert "2 episodes were there, 0 written" in capsys.readouterr().err
    assert attempts(tmp_path / "again", "--episodes", "1") == 0
    again = Dataset.open(tmp_path / "again").read(f"episode_{SEED}", 128)
    np.testing.assert_array_equal(again.commanded, episodes[0].commanded)
    np.testing.assert_array_equal(again.pixels, episodes[0].pixels)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--robot", "pusht", "--task", "push"), "names: expected"),
        (("--task", "juggle"), "task: expected one of reach, lift, found 'juggle'"),
        (("--robot", "unicorn"), "the simulator did not start"),
        (("--python", "nowhere/python"), "make sim"),
        (("--attempts", "0"), "attempts: expected 1 or more, found 0"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: tuple[str, ...],
    message: str,
    start_in_simulator: Start,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert attempts(tmp_path / "wrong", "--episodes", "1", *words) == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("astra attempts: ")
    assert message in line
