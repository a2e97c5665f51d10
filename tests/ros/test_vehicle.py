"""A model of a vehicle in the node: odometry in place of joint states, velocities in place of positions."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from astra_ros.msg import ActionSequence, PredictedFuture
from astra_ros.ros.client import action_spec
from astra_ros.ros.preview import contact_sheet
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import to_time
from astra_ros.ros.vehicle import VelocityBuffer
from astra_ros.srv import EvaluateActions
from astra_ros.types import FloatArray
from tests.recordings import AXES
from tests.ros.rig import HORIZON, NANOSECONDS, SENSOR, Rig, action_sequence, image

MS = 1_000_000
HELD = PredictedFuture.FLAG_HOLD_STILL
BASE_VELOCITY = ActionSequence.REPRESENTATION_BASE_VELOCITY
MakeRig = Callable[..., "VehicleRig"]


class VehicleRig(Rig):
    """odometry, commands: publishers of their types."""

    def __init__(
        self, bundle: str, odom: type = Odometry, cmd_vel: type | None = TwistStamped, **parameters: Any
    ) -> None:
        """cmd_vel: None: as the node takes it for `auto`."""
        types = {"odom_type": _name_of(odom), **({"cmd_vel_type": _name_of(cmd_vel)} if cmd_vel else {})}
        super().__init__(bundle, **types, **parameters)
        self.odometry = self.robot.create_publisher(odom, "odom", SENSOR)
        self.commands = self.robot.create_publisher(cmd_vel or odom, "cmd_vel", SENSOR)

    def activate_configured(self) -> None:
        assert self.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        has_one = self.node.resolve_topic_name("odom") == self.node.resolve_topic_name("cmd_vel")
        publishers = (*([] if has_one else [self.odometry]), self.commands, self.plan, self.goal)
        self.spin_until(lambda: all(one.get_subscription_count() for one in publishers))
        self.spin_until(lambda: self.node.count_subscribers(f"{self.node_name}/predicted_future"))

    def drive(self, velocity: tuple[float, float] = (0.4, -0.6), **picture: Any) -> PredictedFuture:
        """Two odometry messages around a picture, and its prediction."""
        stamp_ns = self.now_ns() - 100 * MS
        for offset_ms in (-10, 10):
            self.odometry.publish(odometry(stamp_ns + offset_ms * MS, velocity))
        self.image.publish(image(stamp_ns, **picture))
        return self.future_at(stamp_ns)

    def tell(self, message: Any) -> None:
        """A command that the node has taken."""
        before = int(self.counters().get("cmd_vel.received", 0))
        self.commands.publish(message)
        self.spin_until(lambda: int(self.counters().get("cmd_vel.received", 0)) > before)


def _name_of(message_type: type) -> str:
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"


def odometry(stamp_ns: int, velocity: tuple[float, float]) -> Odometry:
    message = Odometry()
    message.header.stamp = to_time(stamp_ns)
    message.twist.twist = twist(velocity)
    return message


def twist(velocity: tuple[float, float]) -> Twist:
    message = Twist()
    message.linear.x, message.angular.z = velocity
    return message


def stamped(velocity: tuple[float, float]) -> TwistStamped:
    return TwistStamped(twist=twist(velocity))


def plan(rows: np.ndarray, **fields: Any) -> ActionSequence:
    return action_sequence(rows=rows, **{"representation": BASE_VELOCITY, "names": list(AXES), **fields})


def rows_of(future: PredictedFuture) -> FloatArray:
    return np.array(future.actions.data, np.float32).reshape(future.actions.horizon, len(AXES))


@pytest.fixture
def make_rig(vehicle_bundle: Path) -> Iterator[MakeRig]:
    rigs: list[VehicleRig] = []

    def make(**parameters: Any) -> VehicleRig:
        rigs.append(VehicleRig(str(vehicle_bundle), **parameters))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> VehicleRig:
    rig = make_rig()
    rig.activate()
    return rig


def test_it_says_what_it_takes(rig: VehicleRig) -> None:
    info = rig.spin_until(lambda: rig.infos)[0]
    assert (info.action_modality, info.action_representation) == ("drive", BASE_VELOCITY)
    assert (info.action_names, info.action_units) == (list(AXES), ["m/s", "rad/s"])
    assert action_spec(info).representation == "rate"
    subscribed = {topic for topic, _ in rig.node.get_subscriber_names_and_types_by_node("world_model", "/")}
    assert {"/odom", "/cmd_vel"} <= subscribed
    assert not {"/joint_states", "/joint_trajectory"} & subscribed


def test_without_a_plan_it_drives_on_as_measured(rig: VehicleRig) -> None:
    future = rig.drive((0.4, -0.6))
    assert len(future.compressed_frames) == HORIZON
    assert future.flags & HELD
    np.testing.assert_allclose(rows_of(future), np.tile([0.4, -0.6], (HORIZON, 1)), atol=1e-6)
    assert (future.actions.representation, future.actions.names) == (BASE_VELOCITY, list(AXES))


def test_a_plan_is_averaged_over_the_models_steps(rig: VehicleRig) -> None:
    """Of half steps, one after the other."""
    rows = np.stack([np.linspace(0, 1, 2 * HORIZON), np.full(2 * HORIZON, 0.5)], axis=1)
    rig.plan.publish(plan(rows[:, ::-1], names=[*AXES[::-1]], step_dt=0.1))
    rig.spin_until(lambda: rig.counters().get("action_sequence.received"))
    future = rig.drive()
    assert not future.flags & HELD
    np.testing.assert_allclose(rows_of(future), rows.reshape(HORIZON, 2, 2).mean(axis=1), atol=1e-5)


def test_the_history_matters(rig: VehicleRig) -> None:
    """The same picture and plan after another velocity is another future."""
    rig.plan.publish(plan(np.full((HORIZON, 2), 0.1)))
    rig.spin_until(lambda: rig.counters().get("action_sequence.received"))
    frames = []
    for velocity in ((0.9, 0.0), (-0.9, 0.0)):
        rig.node._configured().forget()
        rig.plan.publish(plan(np.full((HORIZON, 2), 0.1)))
        rig.spin_for(0.2)
        frames.append(bytes(rig.drive(velocity, seed=3).compressed_frames[-1].data))
    assert frames[0] != frames[1]


@pytest.mark.parametrize(("kind", "make"), [(TwistStamped, stamped), (Twist, twist)])
def test_a_command_is_what_is_predicted_for_where_no_plan_is(
    make_rig: MakeRig, kind: type, make: Callable[..., Any]
) -> None:
    rig = make_rig(cmd_vel=kind)
    rig.activate()
    rig.tell(make((0.3, 1.5)))
    future = rig.drive()
    assert not future.flags & HELD
    assert future.flags & PredictedFuture.FLAG_PLAN_EXTENDED
    np.testing.assert_allclose(rows_of(future), np.tile([0.3, 1.5], (HORIZON, 1)), atol=1e-6)
    rig.plan.publish(plan(np.full((HORIZON, 2), 0.7)))
    rig.spin_until(lambda: rig.counters().get("action_sequence.received"))
    rig.tell(make((0.2, 0.2)))  # a controller sends while it follows the plan
    np.testing.assert_allclose(rows_of(rig.drive()), 0.7, atol=1e-6)


def test_a_vehicle_without_odometry_is_where_its_commands_bring_it(make_rig: MakeRig) -> None:
    rig = make_rig(odom=Twist)
    rig.activate()
    rig.image.publish(image(rig.now_ns()))
    rig.spin_until(lambda: rig.drops().get(Drop.NO_VELOCITY))
    rig.status(DiagnosticStatus.WARN, "no velocity received")
    rig.odometry.publish(twist((0.5, 0.0)))
    rig.spin_until(lambda: rig.counters().get("odom.received"))
    rig.spin_for(0.25)
    stamp_ns = rig.now_ns()
    rig.image.publish(image(stamp_ns))
    np.testing.assert_allclose(rows_of(rig.future_at(stamp_ns))[0], [0.5, 0.0], atol=1e-6)


@pytest.mark.parametrize(("kind", "make"), [(TwistStamped, stamped), (Twist, twist)])
def test_commands_alone_on_one_topic_as_the_documents_say(
    make_rig: MakeRig, kind: type, make: Callable[..., Any]
) -> None:
    """It is the history and the plan; without a stamp, or one that is not set, it counts from its reception."""
    rig = make_rig(odom=kind, cmd_vel=None, cli_args=["--ros-args", "-r", "odom:=/cmd_vel"])
    rig.configure_and_activate()
    assert not rig.odometry.get_subscription_count()
    rig.commands.publish(make((0.5, 0.0)))
    rig.spin_until(lambda: rig.counters().get("odom.received"))
    rig.spin_for(0.25)
    stamp_ns = rig.now_ns()
    rig.image.publish(image(stamp_ns))
    future = rig.future_at(stamp_ns)
    np.testing.assert_allclose(rows_of(future), np.tile([0.5, 0.0], (HORIZON, 1)), atol=1e-6)
    assert not future.flags & HELD


def test_the_preview_says_that_it_drives_on(rig: VehicleRig, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []

    def watched(*arguments: Any) -> Any:
        titles.append(arguments[3].title)
        return contact_sheet(*arguments)

    monkeypatch.setattr("astra_ros.ros.outputs.contact_sheet", watched)
    rig.node.set_parameters([Parameter("preview_always_on", value=True)])
    rig.drive()
    rig.spin_until(lambda: titles)
    assert titles == ["if the robot drives on (no plan)"]
    rig.spin_until(lambda: rig.counters()["predicting_for"] == "drive on")


def test_two_types_on_one_topic_fail_the_configuration(make_rig: MakeRig) -> None:
    rig = make_rig(cli_args=["--ros-args", "-r", "cmd_vel:=/image"])
    assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    rig.status(DiagnosticStatus.ERROR, "cmd_vel: expected a topic of its own, or one type for both")


def test_commands_are_not_taken_for_odometry(make_rig: MakeRig) -> None:
    rig = make_rig(cli_args=["--ros-args", "-r", "odom:=/cmd_vel"])
    assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    rig.status(DiagnosticStatus.ERROR, "odom_type: expected the type of the commands")


def test_a_prefix_of_joints_is_refused_by_its_name(make_rig: MakeRig) -> None:
    rig = make_rig(joint_prefix="left_")
    assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    rig.status(DiagnosticStatus.ERROR, "joint_prefix: expected none for a model of a vehicle")


def test_odometry_without_a_stamp_is_told(rig: VehicleRig) -> None:
    rig.odometry.publish(odometry(0, (0.1, 0.0)))
    rig.status(DiagnosticStatus.WARN, "header.stamp: expected the time of the measurement, found 0")


def test_of_two_commands_at_a_moment_the_later_holds() -> None:
    """Simulated time has coarse moments."""
    buffer = VelocityBuffer(0.2, is_measured=False)
    for speed in (0.5, 0.0):
        buffer.push(1000 * MS, np.array([speed, 0.0], np.float32))
    mean, _ = buffer.at(1200 * MS, 0)
    np.testing.assert_array_equal(mean, [0, 0])


def test_candidates_are_ranked_by_the_same_observation(rig: VehicleRig) -> None:
    rig.drive()
    client = rig.robot.create_client(EvaluateActions, "world_model/evaluate_actions")
    rig.spin_until(client.service_is_ready)
    speeds = (0.0, 0.5, 1.0, 3.0)
    candidates = [plan(np.full((4, 2), speed, np.float32)) for speed in speeds]
    asked = EvaluateActions.Request(
        candidates=candidates, top_k=4, frames=EvaluateActions.Request.FRAMES_LAST
    )
    answer = client.call_async(asked)
    rig.spin_until(answer.done)
    reply = answer.result()
    assert (reply.status, reply.message) == (reply.STATUS_OK, "")
    clipped = [bool(flags & PredictedFuture.FLAG_ACTION_CLIPPED) for flags in reply.flags]
    assert clipped == [False, False, False, True]
    assert len({bytes(future.compressed_frames[0].data) for future in reply.futures}) == 4


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"representation": ActionSequence.REPRESENTATION_JOINT_POSITION}, r"expected 7 \(rate, .*found 1"),
        ({"names": ["linear.x", "linear.y"]}, "missing angular.z"),
        ({"data": array("f", [np.nan] * 8)}, "expected finite numbers, found nan"),
    ],
)
def test_a_bad_plan_is_told(rig: VehicleRig, fields: dict[str, Any], line: str) -> None:
    rig.plan.publish(plan(np.zeros((4, 2)), **fields))
    status = rig.status(DiagnosticStatus.WARN)
    assert re.search(line, status.message), status.message
    assert rig.drops() == {Drop.BAD_PLAN: 1}


def test_bad_odometry_is_told_and_over_with_the_next(rig: VehicleRig) -> None:
    rig.odometry.publish(odometry(rig.now_ns(), (float("inf"), 0.0)))
    rig.status(DiagnosticStatus.WARN, "/odom: linear.x: expected a finite number, found inf")
    assert rig.drops()[Drop.BAD_VELOCITY] == 1
    rig.drive()
    rig.status(DiagnosticStatus.OK)


def test_odometry_that_is_late_is_told(make_rig: MakeRig) -> None:
    rig = make_rig(sync_slop_s=0.05)
    rig.activate()
    now_ns = rig.now_ns()
    rig.odometry.publish(odometry(now_ns - NANOSECONDS, (0.1, 0.0)))
    rig.spin_until(lambda: rig.counters().get("odom.received"))
    rig.image.publish(image(rig.now_ns()))
    rig.status(DiagnosticStatus.WARN, "expected a velocity within 0.05 s (sync_slop_s) of the picture")


def test_a_type_that_is_not_installed_fails_the_configuration(make_rig: MakeRig) -> None:
    rig = make_rig()
    ackermann = "ackermann_msgs/msg/AckermannDriveStamped"
    rig.node.set_parameters([Parameter("odom_type", value=ackermann)])
    assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    rig.status(DiagnosticStatus.ERROR, f"odom_type: {ackermann}: ")


def test_a_buffer_gives_the_mean_of_the_step() -> None:
    buffer = VelocityBuffer(0.2, is_measured=True)
    for ms in range(0, 1001, 20):
        buffer.push(ms * MS, np.array([ms / 1000, 1.0], np.float32))
    mean, skew_ns = buffer.at(995 * MS, 50 * MS)
    np.testing.assert_allclose(mean, [0.895, 1.0], atol=1e-3)
    assert skew_ns == 5 * MS
    assert buffer.covers(1000 * MS)
    assert not buffer.covers(1001 * MS)


def test_a_buffer_forgets_what_no_picture_can_need_and_what_is_of_another_time() -> None:
    buffer = VelocityBuffer(0.2, is_measured=True)
    for ms in range(0, 60_000, 10):
        buffer.push(ms * MS, np.zeros(2, np.float32))
    assert len(buffer._stamps_ns) < 400
    with pytest.raises(Refusal, match="one publisher"):
        buffer.push(59_900 * MS, np.zeros(2, np.float32))
    buffer.push(10 * MS, np.ones(2, np.float32))
    assert buffer._stamps_ns == [10 * MS]
