"""The simulated robot on wheels: its drives as recordings, and its task."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.bag import BagReader
from astra_ros.data.episode import Episode, EpisodeTopics, read_episode
from astra_ros.data.sim_client import SimClient
from tests.simulator.conftest import PYTHON, Start, output_of

AXES = ("linear.x", "angular.z")
SECONDS, SEED = 6.0, 6
FRAME_S = 0.1


@pytest.fixture(scope="module")
def recordings(
    simulate: Callable[..., subprocess.Popen[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The same seed twice, by two runs of the program."""
    folders = [tmp_path_factory.mktemp("sim") / name for name in ("first", "second")]
    options = ("--episodes", "1", "--first-seed", str(SEED), "--duration", str(SECONDS))
    for program in [simulate("rover", folder, *options) for folder in folders]:
        output_of(program)
    return folders[0] / f"episode_{SEED:06d}", folders[1] / f"episode_{SEED:06d}"


def read(recording: Path) -> Episode:
    return read_episode(recording, AXES, 128, EpisodeTopics(velocity="/odom"))


@pytest.fixture(scope="module")
def rover(start_in_simulator: Start, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimClient]:
    del start_in_simulator  # skips
    with SimClient(PYTHON, tmp_path_factory.mktemp("simulator") / "log", "rover") as client:
        yield client


def test_the_topics_of_a_real_robot_are_there_at_their_rates(recordings: tuple[Path, Path]) -> None:
    with BagReader(recordings[0]) as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
    assert counts == {
        "/camera/image_raw/compressed": SECONDS * 10,
        "/odom": SECONDS * 20,
        "/cmd_vel": SECONDS * 20,
        "/action_sequence": SECONDS * 5,
    }


def test_the_same_seed_records_the_same_drive(recordings: tuple[Path, Path]) -> None:
    first, second = map(read, recordings)
    np.testing.assert_array_equal(first.measured, second.measured)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.pixels.std() > 20


def test_its_odometry_is_where_it_went(recordings: tuple[Path, Path]) -> None:
    """Velocities as an import averages them add up to the way between two poses."""
    with BagReader(recordings[0]) as bag:
        poses = [bag.deserialize(one).pose.pose for one in bag.messages(["/odom"])]
    way = np.diff([(pose.position.x, pose.position.y) for pose in poses], axis=0)
    yaw = 2 * np.arctan2([pose.orientation.z for pose in poses], [pose.orientation.w for pose in poses])
    episode = read(recordings[0])
    assert np.hypot(*way.T).sum() == pytest.approx(np.abs(episode.measured[1:, 0]).sum() * FRAME_S, abs=0.1)
    assert np.hypot(*way.T).sum() > 0.5
    turned = np.unwrap(yaw)[-2] - yaw[0]  # the last picture is a control period before the last odometry
    assert turned == pytest.approx(episode.measured[1:, 1].sum() * FRAME_S, abs=0.12)


def test_it_follows_its_commands_as_fast_as_the_drive_can(recordings: tuple[Path, Path]) -> None:
    episode = read(recordings[0])
    lag = np.abs(episode.commanded - episode.measured)
    assert np.median(lag[:, 0]) < 0.05
    assert lag[:, 0].max() > 0.1  # where a command jumps


def test_a_plan_lists_what_is_commanded_next(recordings: tuple[Path, Path]) -> None:
    with BagReader(recordings[0]) as bag:
        plan = bag.deserialize(next(bag.messages(["/action_sequence"])))
        sent = [bag.deserialize(one).twist for one in bag.messages(["/cmd_vel"])]
    assert (plan.representation, list(plan.names)) == (7, list(AXES))
    commands = np.array([(one.linear.x, one.angular.z) for one in sent])[:40]
    expected = commands.reshape(10, 4, 2).mean(axis=1)
    np.testing.assert_allclose(np.reshape(plan.data, (10, 2)), expected, atol=1e-6)


@pytest.mark.slow
def test_what_was_probed_happens(rover: SimClient) -> None:
    assert rover.describe()["names"].tolist() == list(AXES)
    lived = rover.reset(task="go", seed=200_000)
    assert lived["is_possible"]
    assert (lived["now"] != lived["goal"]).any(axis=2).mean() > 0.3
    plans = rover.propose(count=16, noise_m=0.2, seed=1)["plans"]
    assert plans.shape == (16, lived["rows"], 2)
    probed = rover.probe(plans=plans)
    assert 0 < probed["is_success"].mean() < 1
    for index in (int(np.argmax(probed["is_success"])), int(np.argmin(probed["is_success"]))):
        rover.restart()
        happened = rover.execute(rows=plans[index])
        assert happened["is_success"] == probed["is_success"][index]
        np.testing.assert_array_equal(happened["now"], probed["pictures"][index])
        np.testing.assert_array_equal(happened["last"], [0, 0])  # it comes to a stand


@pytest.mark.slow
def test_an_exact_prior_succeeds_and_a_blind_one_does_not(rover: SimClient) -> None:
    for seed in range(200_000, 200_005):
        assert rover.reset(task="go", seed=seed)["is_possible"]
        exact, blind = (rover.propose(count=8, noise_m=noise, seed=2)["plans"] for noise in (0.0, 1.0))
        assert rover.probe(plans=exact)["is_success"].all()
        assert not rover.probe(plans=blind)["is_success"].all()


@pytest.mark.slow
def test_a_bumper_stops_it(rover: SimClient) -> None:
    rover.reset(task="go", seed=3)
    happened = rover.execute(rows=np.tile([0.6, 0.0], (60, 1)))
    assert happened["measured"][4:20, 0].max() == pytest.approx(0.6)
    np.testing.assert_array_equal(happened["last"], [0, 0])
