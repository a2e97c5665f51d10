"""Recordings of a robot that drives: its velocity takes the place of joint states."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from astra_ros.data.bag import BagError
from astra_ros.data.bag_messages import velocity_command
from astra_ros.data.episode import Episode, EpisodeTopics, read_episode
from astra_ros.data.importers import bags
from astra_ros.data.importers.source import import_source
from astra_ros.data.lerobot import Dataset
from astra_ros.data.normalisation import fit_action_spec
from tests.recordings import AXES, CAMERA, write_drive, write_recording

NUM_PICTURES = 30
TOPICS = EpisodeTopics(image=CAMERA, velocity="/odom")


def twist(stamp_ns: int, velocity: np.ndarray) -> Any:
    """Without a stamp."""
    return velocity_command(stamp_ns, velocity).twist


def record(folder: Path, **options: Any) -> Path:
    """Faster and faster, for three seconds."""
    return write_drive(folder, NUM_PICTURES / 10, accelerating, **options)


def accelerating(seconds: float) -> tuple[float, float]:
    return seconds, -2 * seconds


def read(folder: Path, topics: EpisodeTopics = TOPICS, axes: tuple[str, ...] = AXES) -> Episode:
    return read_episode(folder, axes, 32, topics)


def test_a_row_is_the_mean_velocity_since_the_picture_before(tmp_path: Path) -> None:
    found = read(record(tmp_path / "bag"))
    middle = 0.1 * np.arange(1, NUM_PICTURES) - 0.05
    np.testing.assert_allclose(found.measured[1:, 0], middle, atol=0.011)  # odometry ends before the last one
    np.testing.assert_allclose(found.measured[1:-1, 1], -2 * middle[:-1], atol=1e-4)
    np.testing.assert_array_equal(found.commanded, found.measured)


@pytest.mark.parametrize("command", [velocity_command, twist])
def test_commands_are_averaged_as_they_were_in_force(
    tmp_path: Path, command: Callable[[int, np.ndarray], Any]
) -> None:
    told = dict.fromkeys(range(250, 1000, 50), (0.5, 0.0)) | {1000: (0.1, 1.0)}
    found = read(record(tmp_path / "bag", commands=told, command=command))
    forward, turn = found.commanded.T
    assert forward[[2, 3, 4, 10, 11, 15]].tolist() == pytest.approx([0, 0.25, 0.5, 0.5, 0.1, 0.1])
    assert turn[[10, 11, 15, 16, 20]].tolist() == pytest.approx([0, 1, 1, 0, 0])  # 0.5 s after the last one


def test_without_odometry_the_commands_stand_for_it(tmp_path: Path) -> None:
    """Nothing comes while the robot stands, and that is no gap."""
    told = {1000: (0.4, 0.0), 1200: (0.2, 0.0)}
    folder = record(tmp_path / "bag", commands=told)
    found = read(folder, EpisodeTopics(image=CAMERA, velocity="/cmd_vel"))
    assert found.measured[[5, 11, 12, 13, 17, 18], 0].tolist() == pytest.approx([0, 0.4, 0.4, 0.2, 0.2, 0])
    np.testing.assert_array_equal(found.commanded, found.measured)


def test_a_recording_becomes_a_dataset_of_a_vehicle(tmp_path: Path) -> None:
    record(tmp_path / "bags/monday")
    source = bags.open_source([tmp_path / "bags"], bags.BagsConfig("rover", size=32, topics=TOPICS))
    schema = source.schema
    assert (schema.modality, schema.representation, schema.names) == ("drive", "rate", AXES)
    assert schema.units == ("m/s", "rad/s")
    assert list(import_source(source, tmp_path / "rover", 32, print))[-1].done == 1
    (episode,) = Dataset.open(tmp_path / "rover").stream(("monday",), (32, 32), print)
    spec = fit_action_spec([episode], schema, step_dt=0.2)
    assert spec.upper[0] == pytest.approx(2.85, abs=0.1)
    steps = spec.steps(episode.measured, np.array([10, 12]), 2)
    np.testing.assert_allclose(steps[:, 0], [0.9, 1.1], atol=1e-4)


def test_the_axes_that_are_asked_for(tmp_path: Path) -> None:
    record(tmp_path / "bags/monday")
    config = bags.BagsConfig("rover", ("angular.z", "linear.y"), size=32, topics=TOPICS)
    episode = bags.open_source([tmp_path / "bags"], config).episodes["monday"]()
    assert episode.measured[10].tolist() == pytest.approx([-1.9, 0.0], abs=1e-4)


@pytest.mark.parametrize(
    ("topics", "axes", "line"),
    [
        (EpisodeTopics(image=CAMERA, velocity=CAMERA), AXES, "expected nav_msgs/msg/Odometry or .*, found sensor_msgs"),
        (EpisodeTopics(image=CAMERA, velocity="/wheels"), AXES, "expected topic /wheels, .*: --velocity TOPIC"),
        (TOPICS, ("linear.x", "speed"), "expected linear.x, speed; missing speed, found linear.x, linear.y"),
        (
            EpisodeTopics(image=CAMERA, velocity="/odom", velocity_commands=CAMERA),
            AXES,
            "found sensor_msgs.*; import without them: --velocity-commands NONE",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, topics: EpisodeTopics, axes: tuple[str, ...], line: str
) -> None:
    with pytest.raises(BagError, match=line):
        read(record(tmp_path / "bag"), topics, axes)


def test_odometry_that_stops_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "bag", odometry_until_s=1.5)
    with pytest.raises(BagError, match=r"/odom: header.stamp: expected a velocity within 0.1 s"):
        read(folder)


def test_an_arms_topics_are_no_vehicles(tmp_path: Path) -> None:
    folder = write_recording(tmp_path / "bag", 1.0)
    with pytest.raises(BagError, match="joint_states: expected nav_msgs/msg/Odometry"):
        read(folder, EpisodeTopics(image=CAMERA, velocity="/joint_states"))


def test_a_model_of_rates_reads_the_odometry_unless_told_otherwise() -> None:
    assert EpisodeTopics().of("rate").measured == "/odom"
    assert EpisodeTopics(velocity="/cmd_vel").of("rate").measured == "/cmd_vel"
    assert EpisodeTopics().of("joint_position").measured == "/joint_states"


def test_one_message_that_is_no_number_is_left_out(tmp_path: Path) -> None:
    """As the node does, and as an arm's recording loses what is near it and no more."""
    told = dict.fromkeys(range(0, 2900, 50), (0.5, 0.0))
    sound = read(record(tmp_path / "sound", commands=told))
    broken = read(record(tmp_path / "broken", commands={**told, 500: (float("nan"), 0.0)}))
    np.testing.assert_allclose(broken.commanded, sound.commanded, atol=1e-6)


def test_a_part_in_which_nobody_commanded_is_a_vehicle_that_stands(tmp_path: Path) -> None:
    folder = record(tmp_path / "bag", commands={0: (0.4, 0.0), 2900: (0.4, 0.0)})
    found = read_episode(
        folder, AXES, 32, EpisodeTopics(image=CAMERA, velocity="/cmd_vel"), frames=range(10, 20)
    )
    np.testing.assert_array_equal(found.measured, 0)


@pytest.mark.parametrize("is_set", [True, False])
def test_commands_without_a_stamp_are_of_the_pictures_time(tmp_path: Path, *, is_set: bool) -> None:
    """Of a simulator, whose clock is another than the recorder's."""

    def unset(stamp_ns: int, velocity: np.ndarray) -> Any:
        return velocity_command(0, velocity) if is_set else twist(stamp_ns, velocity)

    told = dict.fromkeys(range(1000, 2000, 50), (0.5, 0.0))
    folder = record(tmp_path / "bag", commands=told, command=unset, received_later_s=1000.0)
    found = read(folder)
    np.testing.assert_allclose(found.commanded[[5, 10, 11, 19, 20], 0], [0, 0, 0.5, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.measured[5, 0], 0.45, atol=1e-3)


def test_a_single_picture_beside_the_odometry_is_refused(tmp_path: Path) -> None:
    folder = record(tmp_path / "bag", odometry_until_s=0.05)
    with pytest.raises(BagError, match="expected 2 pictures or more"):
        read_episode(folder, AXES, 32, TOPICS, frames=range(1))
