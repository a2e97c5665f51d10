"""The simulated robot records itself: real MuJoCo physics and pictures, through the program, in its own environment."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.bag import BagReader
from astra_ros.data.episode import Episode, read_episode
from tests.simulator.conftest import output_of

JOINTS = (*(f"panda_joint{i}" for i in range(1, 8)), "panda_finger_joint1")
SECONDS = 6.0


@pytest.fixture(scope="module")
def recordings(
    simulate: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The same seed twice, by two runs of the program."""
    folders = [tmp_path_factory.mktemp("sim") / name for name in ("first", "second")]
    options = ("--episodes", "1", "--first-seed", "7", "--duration", str(SECONDS))
    for program in [simulate("panda", folder, *options) for folder in folders]:
        assert "robosuite" not in output_of(program)  # whose warnings at every reset would bury the progress
    return folders[0] / "episode_000007", folders[1] / "episode_000007"


@pytest.fixture(scope="module")
def episode(recordings: tuple[Path, Path]) -> Episode:
    return read_episode(recordings[0], JOINTS, 128)


def test_the_topics_of_a_real_robot_are_there_at_their_rates(recordings: tuple[Path, Path]) -> None:
    with BagReader(recordings[0]) as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
    assert counts == {
        "/camera/image_raw/compressed": SECONDS * 10,
        "/joint_states": SECONDS * 20,
        "/joint_commands": SECONDS * 20,
        "/action_sequence": SECONDS * 5,
    }


def test_the_same_seed_records_the_same_motion(recordings: tuple[Path, Path], episode: Episode) -> None:
    again = read_episode(recordings[1], JOINTS, 128)
    assert np.array_equal(episode.measured, again.measured)
    assert np.array_equal(episode.commanded, again.commanded)
    assert np.array_equal(episode.pixels, again.pixels)


def test_a_smooth_episode_changes_its_commands_less(
    simulate: Callable[..., subprocess.Popen[str]], episode: Episode, tmp_path: Path
) -> None:
    """Of the same seed: the same cubes, but nothing breaks in and no noise shakes the gripper."""
    options = ("--episodes", "1", "--first-seed", "7", "--duration", str(SECONDS), "--style", "smooth")
    output_of(simulate("panda", tmp_path, *options))
    smooth = read_episode(tmp_path / "episode_000007", JOINTS, 128)
    assert np.array_equal(smooth.pixels[0], episode.pixels[0])
    shaken, calm = (np.abs(np.diff(one.commanded[:, :7], n=2, axis=0)).mean() for one in (episode, smooth))
    assert calm < 0.7 * shaken


def test_the_arm_moves_where_it_is_told_and_the_camera_sees_it(episode: Episode) -> None:
    travelled = np.ptp(episode.measured[:, :7], axis=0)
    lag = np.abs(episode.commanded[1:, :7] - episode.measured[1:, :7])
    assert travelled.max() > 0.3
    assert lag.mean() < 0.08
    changed = np.abs(np.diff(episode.pixels.astype(int), axis=0)).max(axis=3) > 40
    assert changed.mean() > 0.005


def test_a_plan_holds_the_commands_that_follow(recordings: tuple[Path, Path]) -> None:
    with BagReader(recordings[0]) as bag:
        plans = [bag.deserialize(m) for m in bag.messages(["/action_sequence"])]
        commands = np.array([bag.deserialize(m).position for m in bag.messages(["/joint_commands"])])
    rows = plans[3].data.reshape(plans[3].horizon, len(JOINTS))
    ticks = 3 * 4 + 4 * np.arange(1, 11) - 1  # 4 commands per step of 0.2 s; a plan every 0.2 s
    assert np.allclose(rows, commands[ticks], atol=1e-6)
