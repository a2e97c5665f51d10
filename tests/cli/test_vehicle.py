"""A robot that drives, through the programs: from bags to a dataset, a plan, an evaluation and a demo."""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path

import pytest

from astra_ros.cli import demo
from astra_ros.cli.main import main
from astra_ros.data.bag_messages import velocity_command
from astra_ros.data.lerobot import Dataset
from tests.recordings import AXES, COMMANDS, ODOMETRY, write_drive

SECONDS = 8.0


def weaving(seconds: float) -> tuple[float, float]:
    return 0.3, math.sin(seconds)


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bags")
    told = {ms: weaving(ms / 1000 + 0.1) for ms in range(0, round(1000 * SECONDS), 50)}
    for name in ("monday", "tuesday"):
        write_drive(folder / name, SECONDS, weaving, commands=told)
    return folder


def importing(bags: Path, out: Path, *words: str) -> list[str]:
    return ["data", "import", "bags", str(bags), "--out", str(out), "--size", "48", "64", *words]


@pytest.fixture(scope="module")
def dataset(bags: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data") / "rover"
    assert main(importing(bags, out, "--velocity", ODOMETRY)) == 0
    return out


def test_bags_become_a_dataset_and_more_of_them_are_added(dataset: Path, bags: Path) -> None:
    schema = Dataset.open(dataset).schema
    assert (schema.modality, schema.names, schema.units) == ("drive", AXES, ("m/s", "rad/s"))
    write_drive(bags / "wednesday", 3.0, weaving)
    assert main(importing(bags, dataset, "--velocity", ODOMETRY)) == 0
    assert len(Dataset.open(dataset).episode_names) == 3


def test_other_axes_than_the_datasets_are_refused(
    dataset: Path, bags: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--velocity", ODOMETRY, "--axes", "linear.x", "linear.y"]
    assert main(importing(bags, dataset, *words)) == 1
    assert "linear.y" in capsys.readouterr().err


def test_a_bundle_is_evaluated_on_bags(bags: Path, vehicle_bundle: Path, tmp_path: Path) -> None:
    """Whose odometry it finds by itself."""
    file = tmp_path / "held_out.json"
    words = [str(vehicle_bundle), "--test", "held_out", "--data", str(bags), "--horizon", "4"]
    assert main(["evaluate", *words, "--json", str(file)]) == 0
    assert json.loads(file.read_text())


@pytest.mark.parametrize("source", ["bag", "dataset"])
def test_a_plan_begins_at_standing_still(
    bags: Path, dataset: Path, vehicle_bundle: Path, tmp_path: Path, source: str
) -> None:
    recording = bags / "monday" if source == "bag" else dataset / "monday"
    words = [
        str(vehicle_bundle),
        "--recording",
        str(recording),
        "--at",
        "2",
        "--goal",
        "+1",
        "--horizon",
        "5",
    ]
    knobs = ["--samples", "4", "--iterations", "1", "--backend", "onnxruntime"]
    assert main(["plan", *words, *knobs, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["names"] == list(AXES)
    distances = found["final_goal_distance"]
    assert distances["plan"] <= distances["hold_still"]
    assert distances["recorded_actions"] is not None


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.parametrize("topic", [ODOMETRY, COMMANDS])
def test_a_demo_is_predicted_for_what_was_commanded(
    bags: Path, vehicle_bundle: Path, tmp_path: Path, topic: str
) -> None:
    words = [
        "--bag",
        str(bags / "monday"),
        "--bundle",
        str(vehicle_bundle),
        "--velocity",
        topic,
        "--duration",
        "3",
    ]
    assert main(["demo", *words, "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["predictions"] > 5
    if topic == ODOMETRY:
        assert found["predictions_without_plan"] < 3


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("/wheels", "--velocity: expected a topic of type nav_msgs/msg/Odometry or .*, found /wheels"),
        ("/camera/image_raw/compressed", "--velocity: expected a topic of type .*CompressedImage"),
    ],
)
def test_a_demo_without_a_velocity_is_refused(
    bags: Path,
    vehicle_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    topic: str,
    line: str,
) -> None:
    words = ["--bag", str(bags / "monday"), "--bundle", str(vehicle_bundle), "--velocity", topic]
    assert main(["demo", *words, "--out", str(tmp_path)]) == 1
    assert re.search(line, capsys.readouterr().err)


def test_a_bag_of_unstamped_commands_alone(vehicle_bundle: Path, tmp_path: Path) -> None:
    def unstamped(stamp_ns: int, velocity: object) -> object:
        return velocity_command(stamp_ns, velocity).twist  # type: ignore[arg-type]

    told = dict.fromkeys(range(500, 4000, 100), (0.2, 0.1))
    write_drive(tmp_path / "bags/one", 5.0, weaving, commands=told, command=unstamped, odometry_until_s=0.0)
    out = tmp_path / "cars"
    assert (
        main(["data", "import", "bags", str(tmp_path / "bags"), "--velocity", COMMANDS, "--out", str(out)])
        == 0
    )
    (episode,) = Dataset.open(out).stream(("one",), (48, 64), print)
    assert episode.measured[20].tolist() == pytest.approx([0.2, 0.1])
    assert episode.measured[-1].tolist() == [0, 0]


def test_a_dataset_knows_that_it_is_a_vehicles(
    dataset: Path, bags: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(importing(bags, dataset)) == 0
    assert "joint_states" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--velocity", ODOMETRY, "--joints", "wheel"], "--joints: expected none for a vehicle"),
        (["--velocity", ODOMETRY, "--units", "km/h"], "--units: expected none for a vehicle"),
        (["--axes", "linear.x"], "--axes: expected none for joint states"),
    ],
)
def test_options_of_the_other_kind_are_refused(
    bags: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert main(importing(bags, tmp_path / "new", *words)) == 1
    assert line in capsys.readouterr().err


def test_a_demo_takes_commands_that_the_model_understands(vehicle_bundle: Path, tmp_path: Path) -> None:
    types = {
        "/camera": "sensor_msgs/msg/CompressedImage",
        "/nav/ackermann_cmd": "ackermann_msgs/msg/AckermannDriveStamped",
        "/other": "geometry_msgs/msg/Twist",
        "/cmd_vel": "geometry_msgs/msg/TwistStamped",
        "/odom": "nav_msgs/msg/Odometry",
    }
    arguments = argparse.Namespace(velocity="/odom")
    found = demo._vehicle_inputs(arguments, tmp_path, types, AXES)
    assert found["remaps"] == {"odom": "/odom", "cmd_vel": "/cmd_vel"}
    assert found["parameters"] == {"odom_type": types["/odom"], "cmd_vel_type": types["/cmd_vel"]}
    arguments = argparse.Namespace(velocity="/other")
    found = demo._vehicle_inputs(arguments, tmp_path, types, AXES)
    assert found["remaps"] == {"odom": "/other", "cmd_vel": "/other"}
    planned = {**types, "/plans": "astra_ros/msg/ActionSequence"}
    found = demo._vehicle_inputs(arguments, tmp_path, planned, AXES)
    assert found["remaps"] == {"odom": "/other", "action_sequence": "/plans"}
