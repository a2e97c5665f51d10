"""Every bad input: one line that says what to do, a state in the diagnostics, and good inputs are served afterwards."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from trajectory_msgs.msg import JointTrajectory

from astra_ros.msg import ActionSequence
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros import diagnostics
from astra_ros.ros.conversions import to_jpeg, to_rgb
from astra_ros.types import NANOSECONDS
from tests.ros.rig import HORIZON, JOINTS, POSITIONS, Rig, action_sequence, image, joint_state

MakeRig = Callable[..., Rig]
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True)
class Case:
    """publish: what is wrong, from the rig and a stamp that is fine. cause: its counter. line: parts of what is said.

    consequence: a counter that follows from it, but no second line.
    """

    name: str
    publish: Callable[[Rig, int], None]
    cause: str
    line: list[str]
    parameters: dict[str, Any] = field(default_factory=dict)
    consequence: str = ""

    def __str__(self) -> str:
        return self.name


def bad_image(name: str, cause: str, line: list[str], *, offset_s: float = 0.0, **fields: Any) -> Case:
    def publish(rig: Rig, stamp_ns: int) -> None:
        rig.joints.publish(joint_state(stamp_ns))
        rig.image.publish(image(stamp_ns + round(offset_s * NANOSECONDS), **fields))

    return Case(name, publish, cause, ["/image: ", *line])


def bad_joints(
    name: str,
    line: list[str],
    names: tuple[str, ...],
    positions: list[float],
    cause: str = "bad_joint_state",
) -> Case:
    def publish(rig: Rig, stamp_ns: int) -> None:
        rig.joints.publish(joint_state(stamp_ns, names, positions))
        rig.image.publish(image(stamp_ns))

    return Case(name, publish, cause, ["/joint_states: ", *line], {"sync_slop_s": 0.2}, "no_joint_state")


def joint_missing(rig: Rig, stamp_ns: int) -> None:
    rig.joints.publish(joint_state(stamp_ns, (*JOINTS[:6], JOINTS[7]), SHOULDERS[:7]))
    rig.image.publish(image(stamp_ns))


def bad_stamp(name: str, cause: str, line: list[str], stamp_ns: Callable[[int], int]) -> Case:
    def publish(rig: Rig, now_ns: int) -> None:
        rig.joints.publish(joint_state(stamp_ns(now_ns)))
        rig.image.publish(image(now_ns))

    return Case(
        name, publish, cause, ["/joint_states: header.stamp", *line], {"sync_slop_s": 0.2}, "no_joint_state"
    )


def bad_plan(name: str, line: list[str], *, offset_s: float | None = None, **fields: Any) -> Case:
    def publish(rig: Rig, stamp_ns: int) -> None:
        stamp = 0 if offset_s is None else stamp_ns + round(offset_s * NANOSECONDS)
        rig.plan.publish(action_sequence(stamp, **fields))

    return Case(name, publish, "bad_action_sequence", ["/action_sequence: ", *line])


def joints_apart(offset_s: float) -> Callable[[Rig, int], None]:
    def publish(rig: Rig, stamp_ns: int) -> None:
        rig.joints.publish(joint_state(stamp_ns + round(offset_s * NANOSECONDS)))
        rig.spin_until(lambda: rig.counters().get("joint_states.received") == "1")
        rig.image.publish(image(stamp_ns))

    return publish


SHOULDERS = [float(position) for position in POSITIONS]
CASES = [
    bad_image("bayer", "bad_image", ["encoding", "'bayer_rggb8'", "DebayerNode"], encoding="bayer_rggb8"),
    bad_image("depth", "bad_image", ["encoding", "'32FC1'", "colour topic"], encoding="32FC1"),
    bad_image("no rows", "bad_image", ["height, width", "0 x 64"], height=0),
    bad_image("rows too short", "bad_image", ["step", "at least 192", "found 100"], step=100),
    bad_image("rows missing", "bad_image", ["data", "9216 bytes", "found 10"], data=array("B", bytes(10))),
    bad_image(
        "wrong width",
        "bad_image",
        ["step", "at least 300", "found 192"],
        data=image(0).data,
        width=100,
        step=192,
    ),
    bad_image(
        "stale", "stale", ["header.stamp", "30 s (max_observation_age_s)", "use_sim_time"], offset_s=-100.0
    ),
    bad_image(
        "from the future",
        "future_stamp",
        ["header.stamp", "future_tolerance_s", "synchronise"],
        offset_s=100.0,
    ),
    Case(
        "a joint missing",
        joint_missing,
        "no_joint_state",
        ["joint states of every joint", "found none of panda_joint7"],
        {"sync_slop_s": 0.2},
    ),
    bad_joints(
        "other joints",
        ["name", "found wheel_left, wheel_right"],
        ("wheel_left", "wheel_right"),
        [0.0, 0.0],
        "other_joints",
    ),
    bad_joints("no joints", ["name", "found none", "remap"], (), [], "other_joints"),
    bad_joints("no positions", ["position", "expected 8 values", "found 0"], JOINTS, []),
    bad_joints("too few positions", ["position", "expected 8 values", "found 7"], JOINTS, SHOULDERS[:7]),
    bad_joints("NaN", ["position", "nan", "'panda_joint3'"], JOINTS, [0.0, 0.0, math.nan, *[0.0] * 5]),
    Case(
        "joints too old",
        joints_apart(-1.0),
        "no_joint_state",
        ["within 0.05 s", "newest 1.000 s older"],
        {"sync_slop_s": 0.05},
    ),
    Case(
        "joints too new",
        joints_apart(30.0),
        "no_joint_state",
        ["within 0.05 s", "oldest 30.000 s newer"],
        {"sync_slop_s": 0.05, "future_tolerance_s": 60.0},
    ),
    Case(
        "no joints at all",
        lambda rig, stamp_ns: rig.image.publish(image(stamp_ns)),
        "no_joint_state",
        ["no joint state received"],
        {"sync_slop_s": 0.05},
    ),
    bad_stamp("joints without stamp", "stale", ["found 0", "make the driver stamp"], lambda _: 0),
    bad_stamp("stale joints", "stale", ["max_observation_age_s"], lambda now_ns: now_ns - 100 * NANOSECONDS),
    bad_stamp(
        "joints from the future", "future_stamp", ["synchronise"], lambda now_ns: now_ns + 100 * NANOSECONDS
    ),
    bad_plan("plan of the wrong width", ["names", "missing panda_finger_joint1"], names=list(JOINTS[:7])),
    bad_plan(
        "plan with a value too few",
        ["data", f"{HORIZON} * 8 = {8 * HORIZON} values", "found 31"],
        data=array("f", [0.0] * 31),
    ),
    bad_plan("plan with NaN", ["data", "nan", "row 1"], rows=np.array([[0.0] * 8, [math.nan] * 8])),
    bad_plan(
        "plan of velocities",
        ["representation", "found 2"],
        representation=ActionSequence.REPRESENTATION_JOINT_VELOCITY,
    ),
    bad_plan("plan that is over", ["header.stamp", "ago"], offset_s=-100.0),
    bad_plan("plan of another clock", ["header.stamp", "within 600 s", "from now"], offset_s=10_000.0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(make_rig: MakeRig, case: Case) -> None:
    rig = make_rig(**case.parameters)
    rig.activate()
    case.publish(rig, rig.now_ns())
    status = rig.status(WARN, case.line[0])
    for text in case.line:
        assert text in status.message
    assert "\n" not in status.message
    expected = {case.cause: 1, **({case.consequence: 1} if case.consequence else {})}
    rig.spin_until(lambda: rig.drops() == expected)
    rig.spin_until(lambda: rig.warnings)
    rig.plan.publish(action_sequence())
    assert rig.serve().compressed_frames
    rig.status(OK, "active")
    assert len(rig.warnings) == 1, rig.warnings
    assert case.line[0] in rig.warnings[0]


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda message: array("B", message.data[:40]), "40 bytes"),
        (lambda _message: array("B"), "0 bytes"),
    ],
    ids=["cut off", "empty"],
)
def test_bad_compressed_image(make_rig: MakeRig, spoil: Callable[[CompressedImage], Any], line: str) -> None:
    rig = make_rig(image_transport="compressed")
    camera = rig.robot.create_publisher(CompressedImage, "image/compressed", 10)
    rig.configure_and_activate()
    rig.spin_until(camera.get_subscription_count)
    good = jpeg(rig.now_ns())
    camera.publish(CompressedImage(header=good.header, format=good.format, data=spoil(good)))
    assert line in rig.status(WARN, "/image/compressed: data").message
    stamp_ns = rig.now_ns()
    rig.joints.publish(joint_state(stamp_ns))
    camera.publish(jpeg(stamp_ns))
    rig.future_at(stamp_ns)
    rig.status(OK)


def jpeg(stamp_ns: int) -> CompressedImage:
    picture = image(stamp_ns)
    return to_jpeg(to_rgb(picture), picture.header, 90)


def test_a_picture_seen_before_is_refused(rig: Rig) -> None:
    stamp_ns = rig.now_ns()
    rig.joints.publish(joint_state(stamp_ns))
    rig.image.publish(image(stamp_ns))
    rig.future_at(stamp_ns)
    rig.image.publish(image(stamp_ns - 1_000_000))
    assert "0.001 s older" in rig.status(WARN, "/image: header.stamp").message
    assert rig.drops() == {"out_of_order": 1}
    rig.serve()
    rig.status(OK)


def test_bad_input_while_good_input_flows_does_not_stop_it(rig: Rig) -> None:
    for _ in range(3):
        rig.plan.publish(action_sequence(horizon=3))
        rig.serve()
    rig.status(WARN, "/action_sequence")
    rig.spin_until(lambda: rig.drops() == {"bad_action_sequence": 3})
    assert len(rig.warnings) == 1


def test_another_driver_on_the_topic_of_the_joints_is_counted_and_no_problem(rig: Rig) -> None:
    rig.serve()
    rig.status(OK)
    rig.statuses.clear()
    for count in range(1, 4):
        rig.serve()
        rig.joints.publish(joint_state(rig.now_ns(), ("gripper",), [0.0]))
        rig.joints.publish(joint_state(0, ("gripper",), [0.0]))
        rig.spin_until(lambda: rig.drops() == {"other_joints": 2 * count})  # noqa: B023
    assert {status.level for status in rig.statuses} <= {OK}
    assert not rig.warnings


def test_a_problem_that_flaps_does_not_flood_the_diagnostics(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "CHANGE_PERIOD_S", 5.0)
    health = rig.node._diagnostics.health
    for _ in range(50):
        health.report("prediction", "flapping", "line")
        health.resolve("prediction")
    health.report("prediction", "flapping", "the last line")
    rig.status(WARN, "the last line")
    assert len([status for status in rig.statuses if status.message == "line"]) <= 1


def test_a_refused_plan_is_not_held_against_the_node_for_ever(make_rig: MakeRig) -> None:
    rig = make_rig(plan_timeout_s=0.5)
    rig.activate()
    rig.plan.publish(action_sequence(horizon=3))
    rig.status(WARN, "/action_sequence")
    rig.spin_until(lambda: rig.serve() and rig.statuses[-1].level == OK)


def test_a_refused_joint_state_does_not_hide_that_they_have_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(sync_slop_s=0.05)
    rig.activate()
    rig.joints.publish(joint_state(rig.now_ns(), JOINTS, [*SHOULDERS[:7], float("nan")]))
    rig.status(WARN, "/joint_states: position")

    def is_told() -> bool:
        rig.image.publish(image(rig.now_ns()))
        rig.spin_for(0.1)
        return "no joint state received" in rig.statuses[-1].message

    rig.spin_until(is_told)


def test_a_failing_prediction_is_reported_and_the_next_one_served(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(WorldModel, "predict", explode)
        stamp_ns = rig.now_ns()
        rig.joints.publish(joint_state(stamp_ns))
        rig.image.publish(image(stamp_ns))
        status = rig.status(ERROR)
    assert "RuntimeError: out of memory" in status.message
    assert "\n" not in status.message
    rig.spin_until(lambda: any("Traceback" in line for line in rig.warnings))
    assert rig.drops() == {"prediction_failed": 1}
    rig.serve()
    rig.status(OK)


def test_a_failure_that_stays_is_logged_as_seldom_as_its_line(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorldModel, "predict", explode)
    for count in range(1, 4):
        stamp_ns = rig.now_ns()
        rig.joints.publish(joint_state(stamp_ns))
        rig.image.publish(image(stamp_ns))
        rig.spin_until(lambda: rig.drops() == {"prediction_failed": count})  # noqa: B023
    rig.spin_until(lambda: any("Traceback" in line for line in rig.warnings))
    rig.spin_for(0.3)
    assert ["Traceback" in line for line in rig.warnings] == [False, True]


def explode(*_: object) -> None:
    raise RuntimeError("out of memory")


def test_a_silent_camera_is_reported_until_it_speaks(rig: Rig) -> None:
    assert "/image: expected pictures, found none" in rig.status(WARN).message
    assert "1 publishers" in rig.statuses[-1].message
    rig.serve()
    rig.status(OK)


def test_a_silent_camera_is_told_of_as_it_is_now_and_after_a_refusal_too(rig: Rig) -> None:
    rig.image.publish(image(rig.now_ns() - 100 * NANOSECONDS))
    rig.status(WARN, "/image: header.stamp")
    rig.status(WARN, "/image: expected pictures, found none")
    assert "1 publishers" in rig.statuses[-1].message
    rig.robot.destroy_publisher(rig.image)
    rig.status(WARN, "0 publishers")
    assert len([line for line in rig.warnings if "found none" in line]) <= 2


def test_incompatible_qos_is_reported_until_it_is_mended(make_rig: MakeRig) -> None:
    rig = make_rig(**{"qos_overrides./image.subscription.reliability": "reliable"})
    rig.robot.destroy_publisher(rig.image)
    rig.image = rig.robot.create_publisher(
        Image, "image", QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    )
    rig.configure_and_activate()
    line = rig.status(WARN, "RELIABILITY").message
    assert "/image: " in line
    assert "start the node with qos_overrides./image.subscription.reliability in its params_file" in line
    assert rig.spin_until(lambda: [warning for warning in rig.warnings if "RELIABILITY" in warning])
    rig.robot.destroy_publisher(rig.image)
    rig.status(WARN, "0 publishers; start the camera")
    rig.image = rig.robot.create_publisher(
        Image, "image", QoSProfile(depth=1, durability=DurabilityPolicy.VOLATILE)
    )
    rig.spin_until(rig.image.get_subscription_count)
    rig.serve()
    rig.status(OK)


def test_incompatible_qos_is_told_until_something_arrives(make_rig: MakeRig) -> None:
    """DDS tells of it once; the line outlives the time of a plan, and a deactivation."""
    rig = make_rig(plan_timeout_s=0.1)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    rig.robot.create_publisher(ActionSequence, "action_sequence", best_effort)
    rig.activate()
    rig.spin_until(lambda: rig.node._diagnostics.health.has_problem("action_sequence"))
    assert rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert rig.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    rig.spin_for(1.5)
    rig.serve()
    rig.statuses.clear()
    rig.status(WARN, "/action_sequence: expected a publisher whose QoS matches")
    rig.plan.publish(action_sequence())
    rig.spin_until(lambda: not rig.node._diagnostics.health.has_problem("action_sequence"))


def test_incompatible_qos_is_no_problem_any_more_once_nobody_publishes(make_rig: MakeRig) -> None:
    """As after `ros2 topic pub -1` of a latched topic."""
    rig = make_rig()

    def is_told() -> bool:
        return rig.node._diagnostics.health.has_problem("joint_trajectory")

    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = rig.robot.create_publisher(JointTrajectory, "joint_trajectory", best_effort)
    rig.activate()
    rig.spin_until(is_told)
    rig.robot.destroy_publisher(publisher)
    rig.spin_for(1.5)
    assert is_told()  # another one, which has said nothing yet, may be the one that was meant
    rig.robot.destroy_publisher(rig.trajectory)
    rig.spin_until(lambda: not is_told())


def test_nothing_is_served_while_inactive(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.node.trigger_configure()
    rig.spin_until(rig.image.get_subscription_count)
    rig.spin_until(rig.joints.get_subscription_count)
    rig.joints.publish(joint_state(rig.now_ns()))
    rig.image.publish(image(rig.now_ns()))
    rig.spin_until(lambda: rig.drops() == {"not_active": 2})
    assert not rig.futures
    assert rig.status(OK).message == "inactive"
