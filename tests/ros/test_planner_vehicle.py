"""The planner node beside a model of a vehicle: its plans are driven, as commands on cmd_vel."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from astra_ros.msg import ActionSequence
from astra_ros.ros.client import WorldModelError
from astra_ros.ros.declaration import ConfigError
from astra_ros.ros.driver import SETTLING_S, Driver
from astra_ros.ros.stamps import to_ns
from astra_ros.types import NANOSECONDS
from tests.recordings import AXES
from tests.ros.rig import SENSOR
from tests.ros.test_planner import HORIZON, PICTURE, STEP_NS, PlannerRig
from tests.ros.test_process import finish, start_node
from tests.ros.test_standing_goal import set_goal
from tests.ros.test_vehicle import BASE_VELOCITY, VehicleRig

MakePlanner = Callable[..., PlannerRig]


@pytest.fixture
def make_planner(vehicle_bundle: Path) -> Iterator[MakePlanner]:
    """Of an active world model of a vehicle that has an observation and a goal. cmd_vel: type that it listens to."""
    made: list[Any] = []

    def make(cmd_vel: type = TwistStamped, **parameters: Any) -> PlannerRig:
        made.append(VehicleRig(str(vehicle_bundle), cmd_vel=cmd_vel))
        rig: VehicleRig = made[-1]
        rig.activate()
        set_goal(rig, PICTURE)
        rig.drive()
        made.append(PlannerRig(rig, **parameters))
        made[-1].run(made[-1].planner.model.info)
        planner: PlannerRig = made[-1]
        return planner

    yield make
    for one in reversed(made):
        one.close()


def told(message: Any) -> tuple[float, float]:
    twist = message.twist if isinstance(message, TwistStamped) else message
    return float(twist.linear.x), float(twist.angular.z)


def drive(planner: PlannerRig, kind: type) -> tuple[np.ndarray, list[tuple[int, Any]], list[ActionSequence]]:
    """The plan; the commands and when [ns] each came, until they end; and the sequences."""
    commands: list[tuple[int, Any]] = []
    sequences: list[ActionSequence] = []
    robot = planner.rig.robot
    robot.create_subscription(
        kind, "cmd_vel", lambda one: commands.append((time.monotonic_ns(), one)), SENSOR
    )
    robot.create_subscription(ActionSequence, "action_sequence", sequences.append, SENSOR)
    planned, _ = planner.run(planner.planner.plan)
    planner.rig.spin_until(lambda: commands and told(commands[-1][1]) == (0.0, 0.0))
    planner.rig.spin_for(0.3)
    return planned.plan, commands, sequences


@pytest.mark.parametrize("kind", [TwistStamped, Twist])
def test_a_plan_is_driven_row_by_row_and_ends_with_a_stop(make_planner: MakePlanner, kind: type) -> None:
    plan, commands, sequences = drive(make_planner(kind), kind)
    assert plan.shape == (HORIZON, len(AXES))
    levels = [np.array(velocity) for velocity, _ in groupby(told(message) for _, message in commands)]
    np.testing.assert_allclose(levels, [*plan, np.zeros(len(AXES))], atol=1e-6)
    # Then it says nothing: somebody else may drive.
    assert [told(message) for _, message in commands].count((0.0, 0.0)) == 1
    lasted_s = (commands[-1][0] - commands[0][0]) / NANOSECONDS
    assert lasted_s == pytest.approx(HORIZON * STEP_NS / NANOSECONDS, abs=0.3)
    gaps_s = np.diff([at for at, _ in commands]) / NANOSECONDS
    assert gaps_s.max() < 0.45  # a drive stops by itself after half a second
    (sequence,) = sequences
    assert sequence.representation == BASE_VELOCITY
    np.testing.assert_allclose(np.array(sequence.data).reshape(plan.shape), plan, atol=1e-6)
    if kind is TwistStamped:
        assert to_ns(commands[0][1].header.stamp) >= to_ns(sequence.header.stamp)


def test_a_plan_waits_for_the_one_before(make_planner: MakePlanner) -> None:
    planner = make_planner(horizon=10)
    planner.run(planner.planner.plan)
    with pytest.raises(
        WorldModelError, match=r"cmd_vel: expected the last plan to be over, found [12]\.\d+ s"
    ):
        planner.run(planner.planner.plan)
    planner.rig.spin_until(lambda: not planner.planner._driver.left_s)
    planner.run(planner.planner.plan)


def test_it_drives_on_with_a_period_one_plan_after_the_other(make_planner: MakePlanner) -> None:
    planner = make_planner(period_s=0.1)
    sequences: list[ActionSequence] = []
    planner.rig.robot.create_subscription(ActionSequence, "action_sequence", sequences.append, SENSOR)
    planner.rig.spin_until(lambda: len(sequences) >= 2)
    first, second = (to_ns(one.header.stamp) for one in sequences[:2])
    # The vehicle stands for a moment in between, so that the picture from which it goes on shows where.
    assert second - first >= HORIZON * STEP_NS + SETTLING_S * NANOSECONDS


def test_it_is_stopped_amid_a_plan(make_planner: MakePlanner) -> None:
    planner = make_planner(horizon=20, period_s=0.1)
    commands: list[Any] = []
    planner.rig.robot.create_subscription(TwistStamped, "cmd_vel", commands.append, SENSOR)
    planner.rig.spin_until(lambda: commands and told(commands[-1]) != (0.0, 0.0))
    asking = planner.rig.robot.create_client(Trigger, "/planner/stop")
    assert asking.wait_for_service(10.0)
    answer = asking.call_async(Trigger.Request())
    planner.rig.spin_until(answer.done)
    assert answer.result().message.startswith("stopped the vehicle; plans no more by itself")
    planner.rig.spin_until(lambda: told(commands[-1]) == (0.0, 0.0))
    num_told = len(commands)
    planner.rig.spin_for(1.5)
    assert len(commands) == num_told
    assert not planner.planner.stop()  # there is nothing to stop any more


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_planner_that_is_ended_stops_the_vehicle(make_planner: MakePlanner, number: signal.Signals) -> None:
    rig, commands = make_planner().rig, list[Any]()
    rig.robot.create_subscription(TwistStamped, "cmd_vel", commands.append, SENSOR)
    settings = {"horizon": 20, "num_samples": 8, "period_s": 0.1, "method": "cem"}
    words = [word for name, value in settings.items() for word in ("-p", f"{name}:={value}")]
    process = start_node("-r", "__node:=driving", *words, module="planner")
    try:
        rig.spin_until(lambda: commands and told(commands[-1]) != (0.0, 0.0))
    finally:
        code, errors = finish(process, number)
    assert code == 0, errors
    rig.spin_until(lambda: told(commands[-1]) == (0.0, 0.0))


def test_a_drive_begins_when_somebody_listens(make_planner: MakePlanner) -> None:
    """Commands of the first rows are not lost on one that is only being found."""
    driver: Driver = make_planner().planner._driver
    found_ns: list[int] = []

    def count() -> int:
        found_ns.append(driver._now_ns())
        return len(found_ns) // 4

    publisher = SimpleNamespace(get_subscription_count=count, publish=lambda _message: None)
    driver._publisher = "geometry_msgs/msg/TwistStamped", publisher
    began_ns = driver.begin(AXES, np.zeros((1, 2), np.float32), STEP_NS, lambda: None)
    assert len(found_ns) == 4
    assert began_ns >= found_ns[-1]


def test_a_stop_that_comes_while_a_drive_waits_for_listeners_is_obeyed(make_planner: MakePlanner) -> None:
    planner = make_planner().planner
    driver, began = planner._driver, planner._num_stops

    def count() -> int:
        assert not planner.stop()  # there is nothing to stop yet
        return 1

    driver._publisher = "geometry_msgs/msg/TwistStamped", SimpleNamespace(get_subscription_count=count)
    with pytest.raises(WorldModelError, match="~/stop: expected none during the search, found one"):
        driver.begin(AXES, np.ones((1, 2), np.float32), STEP_NS, lambda: planner._require_not_stopped(began))
    assert driver._drive is None


def test_what_no_command_can_say_is_refused_before_anything_moves(make_planner: MakePlanner) -> None:
    planner = make_planner(joints="wheel")
    with pytest.raises(
        ConfigError, match=r"joints: expected none for a model of linear\.x, angular\.z, found wheel"
    ):
        planner.run(planner.planner.plan)
    change = [
        Parameter("joints", value=""),
        Parameter("cmd_vel_type", value="ackermann_msgs/msg/AckermannDrive"),
    ]
    assert planner.planner.set_parameters_atomically(change).successful
    with pytest.raises(ConfigError, match=r"cmd_vel_type: expected a type with linear\.x, angular\.z"):
        planner.run(planner.planner.plan)
    assert not planner.planner._driver.left_s


def test_listeners_of_two_types_are_named(make_planner: MakePlanner, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are of two processes: DDS has one type per topic in each."""
    planner = make_planner()
    types = ("geometry_msgs/msg/Twist", "geometry_msgs/msg/TwistStamped")
    listening = [SimpleNamespace(topic_type=one) for one in types]
    monkeypatch.setattr(planner.planner, "get_subscriptions_info_by_topic", lambda _topic: listening)
    expected = (
        "/cmd_vel: expected listeners of one type, found those of geometry_msgs/msg/Twist and geometry_msgs"
    )
    with pytest.raises(ConfigError, match=expected):
        planner.run(planner.planner.plan)


def test_a_clock_that_jumps_back_stops_the_vehicle(make_planner: MakePlanner) -> None:
    planner = make_planner(horizon=20)
    driver: Driver = planner.planner._driver
    commands: list[Any] = []
    planner.rig.robot.create_subscription(TwistStamped, "cmd_vel", commands.append, SENSOR)
    planner.run(planner.planner.plan)
    planner.rig.spin_until(lambda: commands)
    assert told(commands[0]) != (0.0, 0.0)
    began_ns = driver._drive.begins_ns if driver._drive else 0
    driver._now_ns = lambda: began_ns - NANOSECONDS  # type: ignore[method-assign]
    planner.rig.spin_until(lambda: told(commands[-1]) == (0.0, 0.0))
    assert driver._drive is None
