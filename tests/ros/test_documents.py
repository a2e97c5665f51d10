"""docs/ros_interface.md and config/world_model.yaml say what the node does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import yaml
from rclpy.node import Node
from rclpy.qos import QoSProfile

from astra_ros.msg import Goal
from astra_ros.ros.declaration import describe
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.refusal import Drop
from astra_ros.ros.search import PlannerConfig
from tests.ros.rig import JOINTS, POSITIONS, Rig, action_sequence, trajectory

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ros_interface.md"
# What rclpy itself brings.
BUILT_IN = re.compile(r"/parameter_events|/rosout|.*/transition_event|.*/_action/.*|/clock")

BUILT_IN_SERVICE = re.compile(r"(lifecycle_msgs|rcl_interfaces|type_description_interfaces)/srv/")
SEND_GOAL = "/_action/send_goal"


def parameter_rows(config: type[NodeConfig | PlannerConfig] = NodeConfig) -> Iterator[str]:
    for parameter in fields(config):
        default = json.dumps(parameter.default)
        when = "next prediction" if parameter.metadata["is_live"] else "configure"
        limits, description = describe(parameter.metadata["limits"]), parameter.metadata["description"]
        yield f"| `{parameter.name}` | `{default}` | {limits} | {when} | {description} |"


def rows_after(heading: str, page: Path = PAGE) -> list[list[str]]:
    """Cells of the table rows in a section of the page."""
    section = page.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]


def test_parameters() -> None:
    documented = [f"| {' | '.join(cells)} |" for cells in rows_after("Parameters")]
    expected = [re.sub(r"\s+", " ", row) for row in parameter_rows()]
    assert [re.sub(r"\s+", " ", row) for row in documented] == expected, "\n".join(parameter_rows())


def test_parameters_of_the_planner() -> None:
    """All take effect at the next search, but for the one that only a start reads."""
    page = ROOT / "docs" / "planning.md"
    documented = [cells for cells in rows_after("The node `planner`", page) if len(cells) == 4]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in parameter_rows(PlannerConfig)]
    expected = [[name, default, limits, text] for name, default, limits, _, text in rows]
    assert documented == expected, "\n".join(f"| {' | '.join(cells)} |" for cells in expected)


def test_parameter_file_holds_the_defaults() -> None:
    document = yaml.safe_load((ROOT / "config" / "world_model.yaml").read_text())
    expected = {parameter.name: parameter.default for parameter in fields(NodeConfig)}
    assert document == {"/**": {"ros__parameters": expected}}


def test_every_parameter_is_described(make_rig: Callable[..., Rig]) -> None:
    node = make_rig().node
    for parameter in fields(NodeConfig):
        descriptor = node.describe_parameter(parameter.name)
        assert descriptor.description.endswith(".")
        assert "Takes effect" in descriptor.additional_constraints
        is_number = type(parameter.default) in (int, float)
        assert bool(descriptor.integer_range or descriptor.floating_point_range) == is_number, parameter.name


def test_topics(rig: Rig) -> None:
    documented = {
        (rig.node.resolve_topic_name(name.strip("`")), kind.strip("`"), *rest)
        for name, kind, *rest in rows_after("Topics")
    }
    assert set(endpoints(rig.robot, rig)) == documented


def endpoints(robot: Node, rig: Rig) -> Iterator[tuple[str, ...]]:
    name, namespace = rig.node.get_name(), rig.node.get_namespace()
    for direction, find_names, find_ends in (
        ("in", robot.get_subscriber_names_and_types_by_node, robot.get_subscriptions_info_by_topic),
        ("out", robot.get_publisher_names_and_types_by_node, robot.get_publishers_info_by_topic),
    ):
        for topic, kinds in find_names(name, namespace):
            if BUILT_IN.fullmatch(topic):
                continue
            ours = next(end for end in find_ends(topic) if end.node_name == name)
            qos: QoSProfile = ours.qos_profile
            yield topic, kinds[0], direction, words(qos.reliability.name), words(qos.durability.name)


def words(name: str) -> str:
    return name.lower().replace("_", " ")


def test_services_and_actions(rig: Rig) -> None:
    documented = {
        (rig.node.resolve_topic_name(name.strip("`")), kind.strip("`"))
        for name, kind, _ in rows_after("Services and actions")
    }
    served = rig.node.get_service_names_and_types_by_node("world_model", "/")
    found = {(name, kind) for name, (kind,) in served if not BUILT_IN_SERVICE.match(kind)}
    # Of an action's three services one has its name.
    actions = {(name, kind) for name, kind in found if "/_action/" in name}
    sent = {
        (name.removesuffix(SEND_GOAL), kind.removesuffix("_SendGoal"))
        for name, kind in actions
        if name.endswith(SEND_GOAL)
    }
    assert (found - actions) | sent == documented


def test_diagnostics_keys(rig: Rig) -> None:
    documented = {key for cells in rows_after("Diagnostics") for key in re.findall(r"`([\w.]+)`", cells[0])}
    rig.serve()
    rig.plan.publish(action_sequence())
    rig.trajectory.publish(trajectory([(1.0, POSITIONS.tolist())], JOINTS))
    rig.goal.publish(Goal())
    received = {f"{source}.received" for source in ("action_sequence", "joint_trajectory", "goal")}
    rig.spin_until(lambda: received <= set(rig.counters()))
    rig.statuses.clear()
    status = rig.spin_until(lambda: rig.statuses and rig.statuses[-1])
    assert {pair.key for pair in status.values} == documented
    assert {f"drops.{cause}" for cause in Drop} <= documented
