"""world_model.launch.py: what it declares and what it would start. test_launch_run.py runs it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.package.launch_file import LAUNCH_FILE, evaluate, parameters

# Of Fast DDS 2 and 3.
FASTDDS_PROFILE = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
DEMO_TOPICS = {
    *("/camera/image_raw", "/camera/image_raw/compressed"),
    *("/joint_states", "/odom", "/cmd_vel", "/action_sequence"),
}


@pytest.fixture(autouse=True)
def installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where FindPackageShare finds the package: pip puts it into the environment's prefix."""
    pytest.importorskip("play_launch", reason="evaluates launch files; pip install -r requirements/test.txt")
    monkeypatch.setenv("AMENT_PREFIX_PATH", sys.prefix)
    for variable in FASTDDS_PROFILE:
        monkeypatch.delenv(variable, raising=False)


def node(name: str, **arguments: str) -> dict[str, Any]:
    """The node of that executable among those that are started."""
    (found,) = (node for node in evaluate(**arguments)["nodes"] if node["executable"] == name)
    assert isinstance(found, dict)
    return found


def test_every_argument_has_a_default_and_a_description() -> None:
    declared = evaluate()["declared_arguments"]
    names = {argument["name"] for argument in declared}
    assert names >= {
        "namespace",
        "bundle",
        "backend",
        "params_file",
        "image",
        "image_transport",
        "joint_states",
    }
    assert names >= {
        "use_sim_time",
        "autostart",
        "log_level",
        "demo",
        "rviz",
        "bag",
        "rate",
        "fastdds_profile",
    }
    assert names >= {"action_sequence", "joint_trajectory", "goal"}
    assert all(argument["has_default"] and argument["description"].endswith(".") for argument in declared)


def test_without_arguments_starts_the_node_alone() -> None:
    (only,) = evaluate()["nodes"]
    assert (only["package"], only["executable"], only["name"]) == ("astra_ros", "world_model", "world_model")
    assert only["lifecycle"]


def test_files_that_are_named_are_installed() -> None:
    files = [path for node in evaluate(demo="true")["nodes"] for path in node["params_files"]]
    files += [parameters(node("bag_player", demo="true"))["bag"]]
    files += dict(node("world_model")["env_vars"]).values()
    files += [node("rviz2", demo="true")["arguments"][1]]
    assert [path for path in files if not Path(path).exists()] == []


def test_what_is_not_given_is_left_to_the_parameter_file() -> None:
    assert parameters(node("world_model")) == parameters(node("rviz2", rviz="true")) == {}
    arguments = {"bundle": "/b", "backend": "onnxruntime", "image_transport": "raw"}
    assert parameters(node("world_model", **arguments)) == arguments


def test_numbers_reach_the_node_as_numbers() -> None:
    given = {"num_threads": "4", "horizon": "16", "uncertainty_samples": "4", "ranking_steps": "1"}
    found = parameters(node("world_model", precision="fp32", **given))
    assert found == {"precision": "fp32", **{name: int(value) for name, value in given.items()}}


PROBE = """
import json, runpy
from launch import LaunchDescription

def generate_launch_description():
    typed = runpy.run_path({file!r})["typed"]
    json.dump([typed(name, text) for name, text in {given!r}], open({out!r}, "w"))
    return LaunchDescription([])
"""


def test_a_number_is_no_string_that_looks_like_one(tmp_path: Path) -> None:
    """launch_ros gives a Python string to the node as a string, and the node ends for a parameter of the wrong type."""
    numbers = [(name, "4") for name in ("num_threads", "horizon", "uncertainty_samples", "ranking_steps")]
    probe, out = tmp_path / "probe.launch.py", tmp_path / "typed.json"
    probe.write_text(PROBE.format(file=str(LAUNCH_FILE), given=[*numbers, ("bundle", "001")], out=str(out)))
    evaluate(probe)
    assert json.loads(out.read_text()) == [4, 4, 4, 4, "001"]


def left_to_the_parameter_file() -> set[str]:
    """Arguments that override a parameter of the node when they are given."""
    declared = evaluate()["declared_arguments"]
    return {one["name"] for one in declared if "as in params_file" in one["description"]}


def test_what_overrides_a_parameter_is_called_as_it_is() -> None:
    shipped = yaml.safe_load((LAUNCH_FILE.parents[1] / "config" / "world_model.yaml").read_text())
    names = left_to_the_parameter_file()
    assert len(names) == 11
    assert names - {"use_sim_time"} <= shipped["/**"]["ros__parameters"].keys()


@pytest.mark.parametrize("name", ["world_model", "rviz2"])
@pytest.mark.parametrize(("given", "expected"), [("true", True), ("false", False)])
def test_a_clock_that_is_given_overrides_the_parameter_file(name: str, given: str, expected: bool) -> None:
    assert parameters(node(name, rviz="true", use_sim_time=given)) == {"use_sim_time": expected}


@pytest.mark.parametrize("variable", FASTDDS_PROFILE)
def test_a_fast_dds_profile_of_the_user_is_kept(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "/mine.xml")
    assert dict(node("world_model")["env_vars"]) == dict.fromkeys(FASTDDS_PROFILE, "/mine.xml")


def test_every_input_can_be_remapped() -> None:
    topics = (
        *("image", "image_2", "image_3", "joint_states", "odom", "cmd_vel"),
        *("action_sequence", "joint_trajectory", "goal"),
    )
    wanted = {topic: f"/arm/{topic}" for topic in topics}
    assert dict(node("world_model", **wanted)["remappings"]) == wanted


# The evaluator does not tell of transitions: this launch file writes down what they aim at.
TARGET = """
from pathlib import Path
from runpy import run_path
from launch import LaunchDescription
from launch.actions import OpaqueFunction

def write_target(context):
    _, transition = run_path({launch_file!r})["world_model"](context)
    Path({target!r}).write_text(repr(transition))

def generate_launch_description():
    return LaunchDescription([OpaqueFunction(function=write_target)])
"""


@pytest.mark.parametrize(
    ("pushed", "namespace", "name"),
    [
        ([], "", "/world_model"),
        ([], "robot", "/robot/world_model"),
        (["/fleet"], "", "/fleet/world_model"),
        (["/fleet"], "robot", "/fleet/robot/world_model"),
        (["/fleet"], "/robot", "/robot/world_model"),
    ],
)
def test_transitions_find_the_node_in_a_pushed_namespace(
    pushed: list[str], namespace: str, name: str, tmp_path: Path
) -> None:
    (started,) = evaluate(LAUNCH_FILE, pushed, namespace=namespace)["nodes"]
    assert str(Path(started["namespace"], "world_model")) == name
    probe, target = tmp_path / "probe.launch.py", tmp_path / "target"
    probe.write_text(TARGET.format(launch_file=str(LAUNCH_FILE), target=str(target)))
    given = dict.fromkeys(("demo", *left_to_the_parameter_file()), "")
    evaluate(probe, pushed, namespace=namespace, autostart="true", **given)
    assert [str(Path("/", found)) for found in re.findall('"(.+)"', target.read_text())] == [name]


def test_demo_plays_onto_the_topics_that_the_node_listens_to() -> None:
    arguments = {"demo": "true", "namespace": "robot", "image": "eye", "joint_states": "arm/joints"}
    listens = dict(node("world_model", **arguments)["remappings"])
    plays = dict(node("bag_player", **arguments)["remappings"])
    assert plays.keys() == DEMO_TOPICS
    assert {plays[f"/{name}"] for name in ("joint_states", "action_sequence")} == {
        "arm/joints",
        "action_sequence",
    }
    assert plays["/camera/image_raw"] == listens["image"] == "eye"
    assert plays["/camera/image_raw/compressed"] == "eye/compressed"
    assert {node(name, **arguments)["namespace"] for name in ("world_model", "bag_player", "rviz2")} == {
        "/robot"
    }


def test_demo_plays_a_recording_without_plans(tmp_path: Path) -> None:
    recorded = [
        {"topic_metadata": {"name": name}} for name in ("/camera/image_raw/compressed", "/joint_states")
    ]
    metadata = {"rosbag2_bagfile_information": {"topics_with_message_count": recorded}}
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    played = [
        parameters(node("bag_player", demo="true", **bag))["topics"] for bag in ({"bag": str(tmp_path)}, {})
    ]
    assert played[0] == ["/camera/image_raw/compressed", "/joint_states"]
    assert played[1] == [*played[0], "/action_sequence"]


def test_demo_plays_a_vehicle(tmp_path: Path) -> None:
    names = ("/cmd_vel", "/odom", "/camera/image_raw/compressed", "/tf")
    recorded = [{"topic_metadata": {"name": name}} for name in names]
    metadata = {"rosbag2_bagfile_information": {"topics_with_message_count": recorded}}
    (tmp_path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    player = node("bag_player", demo="true", bag=str(tmp_path), odom="wheels")
    assert parameters(player)["topics"] == ["/camera/image_raw/compressed", "/odom", "/cmd_vel"]
    assert dict(player["remappings"])["/odom"] == "wheels"


@pytest.mark.parametrize(("asked", "node_reads", "is_decompressed"), [({}, "compressed", False), ({"image_transport": "raw"}, "raw", True)])  # fmt: skip
def test_demo_sends_images_as_the_node_reads_them(
    asked: dict[str, str], node_reads: str, is_decompressed: bool
) -> None:
    assert parameters(node("world_model", demo="true", **asked))["image_transport"] == node_reads
    assert parameters(node("bag_player", demo="true", **asked))["decompress"] is is_decompressed


@pytest.mark.parametrize(
    ("use_sim_time", "restamp", "clock_hz"), [("", True, 0.0), ("false", True, 0.0), ("true", False, 100.0)]
)
def test_demo_has_one_clock(use_sim_time: str, restamp: bool, clock_hz: float) -> None:
    played = parameters(node("bag_player", demo="true", use_sim_time=use_sim_time))
    assert (played["restamp"], played["clock_hz"]) == (restamp, clock_hz)
    for follower in (
        "world_model",
        "rviz2",
    ):  # whatever a parameter file says, which the player does not read
        assert (
            parameters(node(follower, demo="true", use_sim_time=use_sim_time))["use_sim_time"] is not restamp
        )
