"""What the doctor concludes from what it saw."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from astra_ros.ros import gates
from astra_ros.ros.gates import Gate, Inspection, TopicFacts

HEALTHY = TopicFacts(
    name="/image",
    type="sensor_msgs/msg/Image",
    publishers=("/driver (reliable, volatile)",),
    node="/world_model (best_effort, volatile)",
    incompatible="",
    messages=90,
    rate_hz=30.0,
    age_s=0.01,
)
COMPRESSED = "sensor_msgs/msg/CompressedImage"
SILENT = replace(HEALTHY, messages=0, rate_hz=0.0)
SINGLE = replace(HEALTHY, messages=1, rate_hz=0.0)


@pytest.mark.parametrize(
    ("topic", "found", "fix"),
    [
        (None, "does not subscribe yet", "configure"),
        (replace(HEALTHY, publishers=()), "nobody publishes /image", "remap .*/front/image, /wrist/image"),
        (replace(HEALTHY, incompatible="RELIABILITY"), "RELIABILITY", r"qos_overrides\./image\.subscription"),
        (SILENT, "nothing came", "driver"),
        (SINGLE, "/image: 1 message", "^$"),
        (HEALTHY, "30.0 Hz", "^$"),
    ],
)
def test_an_input_fails_with_what_mends_it(topic: TopicFacts | None, found: str, fix: str) -> None:
    candidates = dict.fromkeys(["/front/image", "/wrist/image"], HEALTHY.type)
    gate = gates.input_gate("camera", topic, {**candidates, "/wrist/image/compressed": COMPRESSED})
    assert found in gate.found
    assert re.search(fix, gate.fix)
    assert "compressed" not in gate.fix


@pytest.mark.parametrize(
    ("wanted", "offered", "transport"),
    [(HEALTHY.type, COMPRESSED, "compressed"), (COMPRESSED, HEALTHY.type, "raw")],
)
def test_a_camera_of_the_other_transport_is_named_with_the_parameter(
    wanted: str, offered: str, transport: str
) -> None:
    topic = replace(HEALTHY, type=wanted, publishers=())
    gate = gates.input_gate("camera", topic, {"/wrist": offered})
    assert f"set image_transport:={transport} for /wrist, and remap image:=" in gate.fix


@pytest.mark.parametrize(
    ("taken", "sent", "fix"),
    [
        (
            HEALTHY.type,
            COMPRESSED,
            r"^set image_transport:=compressed, and remap image:= .* without /compressed$",
        ),
        (COMPRESSED, HEALTHY.type, r"^set image_transport:=raw, "),
        (
            "geometry_msgs/msg/TwistStamped",
            "geometry_msgs/msg/Twist",
            r"odom_type or cmd_vel_type.* geometry_msgs/msg/Twist$",
        ),
        ("sensor_msgs/msg/JointState", "std_msgs/msg/String", r"^remap"),
    ],
)
def test_another_type_is_no_matter_of_qos(taken: str, sent: str, fix: str) -> None:
    topic = replace(HEALTHY, type=taken, incompatible=f"sends {sent}", other_types=(sent,), messages=0)
    assert re.search(fix, gates.input_gate("camera", topic, {}).fix)


@pytest.mark.parametrize(
    ("state", "fix"),
    [
        ("unconfigured", "ros2 lifecycle set /a/world_model configure"),
        ("inactive", "ros2 lifecycle set /a/world_model activate"),
        ("active", ""),
        ("", "look at the node's log, and start it again"),
        ("finalized", "look at the node's log, and start it again"),
    ],
)
def test_a_state_names_its_next_step(state: str, fix: str) -> None:
    assert gates.state_gate("/a/world_model", state, None).fix == fix


def test_the_reason_of_a_failed_transition_is_told() -> None:
    status = DiagnosticStatus(level=DiagnosticStatus.ERROR, message="configure failed: no bundle")
    assert "configure failed: no bundle" in gates.state_gate("/world_model", "unconfigured", status).found
    assert gates.health_gate(status) == Gate("diagnostics", "ERROR", "configure failed: no bundle")


def test_plans_may_be_missing_but_not_mismatched() -> None:
    nobody, mismatched = replace(HEALTHY, publishers=()), replace(HEALTHY, incompatible="DURABILITY")
    for silent in ([], [nobody, nobody]):
        assert gates.plan_gate(silent) == Gate(
            "plan", "nobody publishes one: predictions are for holding still, or driving on"
        )
    assert gates.plan_gate([nobody, SILENT]) == Gate("plan", "/image: 0.0 Hz")
    assert gates.plan_gate([HEALTHY, mismatched]).fix


def test_what_the_robot_tells_of_itself() -> None:
    """Odometry is it, and not the commands beside it; without odometry they are."""
    odometry = replace(HEALTHY, name="/odom", type="nav_msgs/msg/Odometry", publishers=())
    command = replace(HEALTHY, name="/cmd_vel", type="geometry_msgs/msg/Twist")
    elsewhere = {"/wheels/odom": odometry.type, "/teleop": command.type}
    found = gates.robot_gate([command, odometry], elsewhere)
    assert (found.name, found.found) == ("velocity", "nobody publishes /odom (nav_msgs/msg/Odometry)")
    assert "/wheels/odom" in found.fix
    assert "/teleop" not in found.fix
    assert gates.robot_gate([command], elsewhere) == Gate("velocity", "/cmd_vel: 30.0 Hz")
    quiet = replace(command, messages=0, rate_hz=0.0)
    assert gates.robot_gate([quiet], {}) == Gate("velocity", "/cmd_vel: nobody commands anything")
    absent = replace(command, name="/unused", publishers=())
    assert gates.robot_gate([absent, command], {}).found.startswith("/cmd_vel")
    joints = replace(HEALTHY, name="/joint_states", type="sensor_msgs/msg/JointState")
    assert gates.robot_gate([joints], {}).name == "joint states"
    assert gates.robot_gate([], {}).fix == "configure the node first"


def test_one_prediction_is_enough() -> None:
    assert gates.output_gate(SINGLE) == Gate("predictions", "/image: 1 message")
    assert gates.output_gate(SILENT).fix


def test_the_first_failing_gate_is_the_one_to_mend() -> None:
    failing, later = Gate("camera", "none", "start it"), Gate("predictions", "0 Hz", "see above")
    found = Inspection("/world_model", "active", {}, (), (Gate("state", "active"), failing, later))
    assert found.first_failing() is failing
    assert replace(found, gates=()).first_failing() is None
