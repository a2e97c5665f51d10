"""The planner node, beside a world model node and a robot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builtin_interfaces.msg import Duration
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from astra_ros.actions.spec import ActionSpec
from astra_ros.msg import Goal, ModelInfo
from astra_ros.planning.cem import CemConfig
from astra_ros.planning.motion import Motion
from astra_ros.planning.mppi import MppiConfig
from astra_ros.ros.calm_executor import CalmExecutor
from astra_ros.ros.client import WorldModelClient, WorldModelError, action_spec
from astra_ros.ros.declaration import ConfigError
from astra_ros.ros.planner import Planner
from astra_ros.ros.search import PlannerConfig
from astra_ros.ros.stamps import to_ns
from astra_ros.srv import EvaluateActions
from astra_ros.types import NANOSECONDS
from tests.ros.rig import JOINTS, LATCHED, POSITIONS, SENSOR, Rig, image, joint_state
from tests.ros.test_standing_goal import set_goal

PICTURE = Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=3))
HORIZON, STEP_NS = 4, 200_000_000
MAX_STEP = 0.15  # 1.5 usual changes of the bundle's joints


class PlannerRig:
    """A planner spun by threads of its own, as its program does. What blocks runs aside."""

    def __init__(self, rig: Rig, **parameters: Any) -> None:
        values = {"num_samples": 8, "iterations": 2, "horizon": HORIZON, **parameters}
        self.rig = rig
        self.planner = Planner(parameter_overrides=[Parameter(name, value=v) for name, v in values.items()])
        self.trajectories: list[JointTrajectory] = []
        rig.robot.create_subscription(JointTrajectory, "/joint_trajectory", self.trajectories.append, SENSOR)
        self._executor = CalmExecutor(4)
        self._executor.add_node(self.planner)
        self._threads = ThreadPoolExecutor(2)
        self._threads.submit(self._executor.spin)
        rig.spin_until(lambda: self.planner.count_publishers("/joint_states"))

    def run(self, work: Callable[[], Any]) -> Any:
        future = self._threads.submit(work)
        self.rig.spin_until(future.done)
        return future.result()

    def sense(self, positions: np.ndarray = POSITIONS) -> None:
        """The robot says where it is."""
        before = self.planner._sensed
        self._tell(positions)
        self.rig.spin_until(lambda: self.planner._sensed is not before)

    @contextmanager
    def sensing(self, positions: np.ndarray = POSITIONS) -> Iterator[None]:
        """The robot goes on saying where it is."""
        self.sense(positions)
        timer = self.rig.robot.create_timer(0.1, lambda: self._tell(positions))
        try:
            yield
        finally:
            self.rig.robot.destroy_timer(timer)

    def plan(self, positions: np.ndarray = POSITIONS) -> Any:
        with self.sensing(positions):
            return self.run(self.planner.plan)

    def carry_out(self, points: np.ndarray, rows_ago: float, step_ns: int = STEP_NS) -> Motion:
        """What the robot was last told, so many of the model's rows ago. points: (1 + horizon, a)."""
        self.sense()  # the first joint states tell which robot it is, and what another one was told is forgotten
        begins_ns = self.planner.get_clock().now().nanoseconds - round(rows_ago * STEP_NS)
        motion = Motion(begins_ns, step_ns, points.astype(np.float32))
        self.planner._search._last = motion
        return motion

    def newest_trajectory(self) -> JointTrajectory:
        newest: JointTrajectory = self.rig.spin_until(lambda: self.trajectories)[-1]
        return newest

    def _tell(self, positions: np.ndarray) -> None:
        self.rig.joints.publish(joint_state(self.rig.now_ns(), positions=positions.astype(float).tolist()))

    def close(self) -> None:
        self._executor.shutdown()
        self._threads.shutdown()
        self.planner.destroy_node()


@pytest.fixture
def make_planner(rig: Rig) -> Iterator[Callable[..., PlannerRig]]:
    """Of an active world model that has an observation."""
    made: list[PlannerRig] = []

    def make(**parameters: Any) -> PlannerRig:
        made.append(PlannerRig(rig, **parameters))
        rig.serve()
        made[-1].run(made[-1].planner.model.info)
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_the_published_trajectory_is_the_best_that_was_found(
    make_planner: Callable[..., PlannerRig], method: str
) -> None:
    planner = make_planner(method=method)
    set_goal(planner.rig, PICTURE)
    before_ns = planner.planner.get_clock().now().nanoseconds
    planned, seconds = planner.plan()
    assert seconds > 0
    assert planned.cost == planned.history[-1] <= planned.history[0] + 1e-6
    (trajectory,) = planner.rig.spin_until(lambda: planner.trajectories)
    assert tuple(trajectory.joint_names) == JOINTS
    # It begins when the search has ended: a controller would skip what has elapsed, and a robot that stood would jump.
    late_s = (to_ns(trajectory.header.stamp) - before_ns) / 1e9
    assert 0.9 * seconds < late_s < seconds + 1
    assert [to_ns(point.time_from_start) for point in trajectory.points] == [
        (k + 1) * STEP_NS for k in range(HORIZON)
    ]
    rows = np.array([point.positions for point in trajectory.points])
    np.testing.assert_allclose(rows, planned.plan, atol=1e-6)
    info = planner.planner.model.info()
    steps = np.diff(rows, axis=0, prepend=POSITIONS[None])
    assert (np.abs(steps) <= 1.5 * np.array(info.action_step_std) + 1e-6).all()
    # What the world model itself says of it.
    reply = planner.run(lambda: planner.planner.model.ask(planned.plan[None], seed=0))
    assert -reply.scores[0] == pytest.approx(planned.cost, rel=1e-5)


SLOW = POSITIONS + 0.01 * np.arange(11)[:, None]


def test_a_later_search_goes_on_from_a_plan_that_is_followed(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner(horizon=10, num_samples=4, iterations=1)
    set_goal(planner.rig, PICTURE)
    search = planner.planner._search
    search._iteration_ns = 4 * STEP_NS
    motion = planner.carry_out(SLOW, rows_ago=2.3)
    planned, _ = planner.plan()
    trajectory = planner.newest_trajectory()
    elapsed = (to_ns(trajectory.header.stamp) - motion.begins_ns) / STEP_NS
    assert elapsed in (2, 3)  # the clock of the plan before goes on
    # What the robot does while the search lasts, the row on its way when it ends, and one to spare.
    rows = np.array([point.positions for point in trajectory.points])
    np.testing.assert_allclose(rows[:6], motion.since(int(elapsed)).points[1:7], atol=1e-6)
    now_ns = planner.planner.get_clock().now().nanoseconds
    assert search._last is not None
    np.testing.assert_array_equal(search._last.points[1:], planned.plan)
    np.testing.assert_allclose(search._last.at(now_ns), motion.at(now_ns), atol=1e-6)


def test_a_moving_robot_gets_as_many_iterations_as_fit_into_half_of_its_plan(
    make_planner: Callable[..., PlannerRig],
) -> None:
    planner = make_planner(horizon=10, num_samples=4, iterations=5)
    set_goal(planner.rig, PICTURE)
    planner.planner._search._iteration_ns = STEP_NS
    planner.carry_out(SLOW, rows_ago=0.1)
    planned, _ = planner.plan()
    assert len(planned.history) in (2, 3)  # 3 rows and the two to spare are half of 10
    at_rest, _ = planner.plan(POSITIONS - 0.3)
    assert len(at_rest.history) == 5


@pytest.mark.parametrize(("method", "search_s"), [("cem", 0.7), ("cem", 1.4), ("mppi", 1.4), ("cem", 2.8)])
def test_continuous_planning_goes_on_from_a_moving_plan_however_long_a_whole_search_takes(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch, method: str, search_s: float
) -> None:
    """With the default settings, on a clock that only the searches move; the robot is where its last plan has it."""
    planner, config = make_planner(), PlannerConfig(method=method)
    set_goal(planner.rig, PICTURE)
    model, search, clock_ns = planner.planner.model, planner.planner._search, [10**12]
    ask = model.ask

    def slowly(plans: np.ndarray, **fields: Any) -> Any:
        clock_ns[0] += round(search_s / config.iterations / config.num_samples * len(plans) * NANOSECONDS)
        return ask(plans, **fields)

    def position() -> np.ndarray:
        return search._last.at(clock_ns[0]) if search._last else POSITIONS

    monkeypatch.setattr(search, "_now_ns", lambda: clock_ns[0])
    monkeypatch.setattr(search, "_positions", position)
    monkeypatch.setattr(model, "ask", slowly)
    ends_ns = 0
    for _ in range(5):
        _, begins_ns = planner.run(lambda: search.run(model.spec(), config))
        assert not ends_ns or begins_ns < clock_ns[0] < ends_ns  # amid the one before
        ends_ns = begins_ns + config.horizon * STEP_NS


@pytest.mark.parametrize(("method", "asked", "rows"), [("propose", 1, 3), ("cem", 5, 7)])
def test_a_moving_robot_keeps_no_more_of_its_plan_than_the_search_takes(
    make_planner: Callable[..., PlannerRig],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    asked: int,
    rows: int,
) -> None:
    """Proposals are asked for once, whatever `iterations` says."""
    planner = make_planner()
    search, points = planner.planner._search, np.tile(POSITIONS, (17, 1))
    monkeypatch.setattr(search, "_iteration_ns", STEP_NS)
    monkeypatch.setattr(search, "_began_ns", STEP_NS // 10)
    config = PlannerConfig(method=method, horizon=16)
    assert search._time_for(Motion(0, STEP_NS, points.astype(np.float32)), config) == (asked, rows)


@pytest.mark.parametrize("method", ["cem", "mppi"])
def test_a_plan_begins_where_a_robot_stands_when_the_search_has_ended(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """It was moved meanwhile, by less than a step, away from where the plan goes."""
    planner = make_planner(method=method, cem_initial_std=1.0, mppi_std=1.0)
    set_goal(planner.rig, PICTURE)
    search = planner.planner._search
    where = POSITIONS.astype(np.float32)
    there, _ = planner.plan(where)
    moved = where - np.float32(0.9 * MAX_STEP) * np.sign(there.plan[0] - where)
    sensed = iter([where, moved])
    monkeypatch.setattr(search, "_positions", lambda: next(sensed))
    monkeypatch.setattr(search, "_num_searches", 0)
    search.forget()
    found, _ = planner.plan()
    steps = np.abs(np.diff(found.plan, axis=0, prepend=moved[None]))
    assert steps.max() <= MAX_STEP + 1e-5
    assert (np.abs(there.plan[0] - moved) > MAX_STEP).any()  # what would have been published
    assert search._last is not None
    np.testing.assert_array_equal(search._last.points[0], moved)


def ago(points: np.ndarray, rows: float) -> dict[str, Any]:
    return {"points": points, "rows_ago": rows}


@pytest.mark.parametrize(
    "last",
    [ago(SLOW + 0.2, 2.3), ago(SLOW, 12.0), ago(SLOW, -3.0), {**ago(SLOW, 2.3), "step_ns": 2 * STEP_NS}],
    ids=["astray", "over", "clock set back", "of another model's step"],
)
def test_a_plan_that_is_not_followed_any_more_is_forgotten(
    make_planner: Callable[..., PlannerRig], last: dict[str, Any]
) -> None:
    planner = make_planner(horizon=10, num_samples=4, iterations=1)
    set_goal(planner.rig, PICTURE)
    planner.carry_out(**last)
    before_ns = planner.planner.get_clock().now().nanoseconds
    planner.plan()
    trajectory = planner.newest_trajectory()
    assert to_ns(trajectory.header.stamp) > before_ns
    assert (np.abs(np.array(trajectory.points[0].positions) - POSITIONS) <= MAX_STEP + 1e-6).all()


def test_a_search_that_outlasts_the_plan_before_is_refused(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner(horizon=10, iterations=1000)
    set_goal(planner.rig, PICTURE)
    planner.carry_out(SLOW, rows_ago=0.5)
    with pytest.raises(
        WorldModelError,
        match=r"search: .* 2 rows of the last plan, .*lower num_samples or rank by fewer steps \(ranking_steps:=1 of",
    ):
        planner.plan()
    # So long an iteration need not be tried again.
    planner.planner._search._iteration_ns = 9 * STEP_NS
    planner.carry_out(SLOW, rows_ago=0.5)
    with pytest.raises(WorldModelError, match=r"horizon: expected more than 11 rows, .* 1.80 s, found 10"):
        planner.plan()
    assert not planner.trajectories


def test_a_robot_that_moved_meanwhile_gets_no_plan(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner()
    set_goal(planner.rig, PICTURE)
    sensed = iter([POSITIONS, POSITIONS + 0.2 * np.eye(len(JOINTS), dtype=np.float32)[2]])
    monkeypatch.setattr(planner.planner._search, "_positions", lambda: next(sensed))
    with pytest.raises(
        WorldModelError, match=rf"joint_states: expected {JOINTS[2]} within max_step \(0.15\) of"
    ):
        planner.plan()
    assert not planner.trajectories


def test_a_robot_outside_the_trained_range_comes_back_in_small_steps_or_not_at_all(
    make_planner: Callable[..., PlannerRig],
) -> None:
    planner = make_planner()
    set_goal(planner.rig, PICTURE)
    outside = POSITIONS.copy()
    outside[1] = 2.1
    planned, _ = planner.plan(outside)
    assert (np.abs(planned.plan[0] - outside) <= MAX_STEP + 1e-6).all()
    outside[1] = 2.2
    with pytest.raises(
        WorldModelError,
        match=rf"joint_states: expected {JOINTS[1]} within max_step \(0.15\) of the trained range -2 to 2, found 2.2",
    ):
        planner.plan(outside)


def test_a_joint_that_stood_still_in_training_may_be_off_by_a_sensors_noise() -> None:
    zero, one = (0.0, 0.0), (1.0, 1.0)
    usual = (0.2, 0.0002)
    spec = ActionSpec(
        "arm", "arm", "joint_position", ("a", "b"), ("rad",) * 2, 0.2, zero, one, usual, zero, one
    )
    assert PlannerConfig(max_step=1.5).limit(spec) == pytest.approx([0.3, 0.006])


def test_it_plans_when_asked_and_says_what_came_of_it(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    rig, client = planner.rig, planner.rig.robot.create_client(Trigger, "/planner/plan")
    rig.spin_until(client.service_is_ready)

    def ask() -> Trigger.Response:
        with planner.sensing():
            future = client.call_async(Trigger.Request())
            rig.spin_until(future.done)
        response: Any = future.result()
        return response

    response = ask()
    assert not response.success
    assert "set a goal (~/set_goal)" in response.message
    assert not planner.trajectories
    set_goal(rig, PICTURE)
    response = ask()
    assert response.success
    assert response.message.startswith("cem: cost ")
    rig.spin_until(lambda: planner.trajectories)


def test_it_goes_on_planning_with_a_period(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner(num_samples=4, iterations=1)
    set_goal(planner.rig, PICTURE)
    planner.sense()
    planner.planner.set_parameters([Parameter("period_s", value=0.05)])

    def sensed_and_planned_twice() -> bool:
        planner.rig.joints.publish(joint_state(planner.rig.now_ns()))
        return len(planner.trajectories) >= 2

    planner.rig.spin_until(sensed_and_planned_twice)


def test_the_period_begins_anew_with_a_plan_that_was_asked_for(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner(num_samples=4, iterations=1)
    set_goal(planner.rig, PICTURE)
    planner.sense()
    monkeypatch.setattr(planner.planner, "_ended_s", 0.0)
    planner.plan()
    assert time.monotonic() - planner.planner._ended_s < 10.0


def test_a_controllers_joints_alone_are_moved_and_published(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner(joints=", ".join(JOINTS[1::-1]))
    set_goal(planner.rig, PICTURE)
    model, asked = planner.planner.model, []
    ask = model.ask

    def recorded(plans: np.ndarray, **fields: Any) -> Any:
        asked.append(plans)
        return ask(plans, **fields)

    monkeypatch.setattr(model, "ask", recorded)
    planned, _ = planner.plan()
    trajectory = planner.newest_trajectory()
    assert tuple(trajectory.joint_names) == JOINTS[1::-1]
    np.testing.assert_allclose(trajectory.points[-1].positions, planned.plan[-1, 1::-1], atol=1e-6)
    for plans in (*asked, planned.plan[None]):
        still = np.broadcast_to(POSITIONS[2:], (*plans.shape[:2], len(JOINTS) - 2))
        np.testing.assert_allclose(plans[..., 2:], still, atol=1e-6)
    planner.planner.set_parameters([Parameter("joints", value="wheel")])
    with pytest.raises(ConfigError, match=r"joints: expected some of .*, found wheel"):
        planner.plan()


def test_joints_that_others_move_do_not_lead_astray(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner(horizon=10, num_samples=4, iterations=1, joints=", ".join(JOINTS[:2]))
    set_goal(planner.rig, PICTURE)
    planner.planner._search._iteration_ns = 4 * STEP_NS
    motion = planner.carry_out(SLOW, rows_ago=2.3)
    moved = POSITIONS.copy()
    moved[2:] = 0.3
    planned, _ = planner.plan(moved)
    assert (to_ns(planner.newest_trajectory().header.stamp) - motion.begins_ns) / STEP_NS in (2, 3)
    np.testing.assert_allclose(planned.plan[:, 2:], 0.3, atol=1e-6)


@pytest.mark.parametrize(
    "knobs",
    [{"cem_initial_std": 0.0002, "cem_min_std": 0.0001}, {"method": "mppi", "mppi_std": 0.0002}],
    ids=["cem", "mppi"],
)
def test_the_optimisers_knobs_are_parameters(
    make_planner: Callable[..., PlannerRig], knobs: dict[str, Any]
) -> None:
    """A deviation of almost nothing leaves the first guess, to hold still."""
    planner = make_planner(**knobs)
    set_goal(planner.rig, PICTURE)
    planned, _ = planner.plan()
    np.testing.assert_allclose(planned.plan, np.tile(POSITIONS, (HORIZON, 1)), atol=0.01)


def test_the_parameters_defaults_are_the_optimisers() -> None:
    config = PlannerConfig()
    assert config.cem() == CemConfig(config.num_samples, config.iterations, num_elites=4)
    assert config.mppi() == MppiConfig(config.num_samples, config.iterations)


def test_wrong_parameters_are_refused_and_the_node_lives(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    for name, value, line in (
        ("method", "foo", "expected one of auto, propose, refine, cem, mppi"),
        ("world_model", "other", "start it again"),
        ("cem_elites", 9, "1 <= cem_elites <= num_samples = 8, found 2, 9"),
        ("cem_min_std", 0.5, "expected 0 < cem_min_std <= cem_initial_std"),
    ):
        (result,) = planner.planner.set_parameters([Parameter(name, value=value)])
        assert not result.successful
        assert line in result.reason
    with pytest.raises(ConfigError, match="method: expected one of"):
        Planner(parameter_overrides=[Parameter("method", value="foo")])


def test_what_the_world_model_refuses_is_told(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    set_goal(planner.rig, PICTURE)
    assert planner.rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    with pytest.raises(WorldModelError, match="the node is not active"):
        planner.plan()
    assert not planner.trajectories


def test_a_question_that_came_to_nothing_says_why(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    set_goal(planner.rig, PICTURE)
    model = planner.planner.model
    reply = planner.run(lambda: model.ask(np.tile(POSITIONS, (2, HORIZON, 1)), deadline=Duration(nanosec=1)))
    with pytest.raises(WorldModelError, match=r"found nothing evaluated: the deadline passed") as caught:
        model.costs_in(reply)
    assert caught.value.status == EvaluateActions.Response.STATUS_PARTIAL


def test_without_recent_joint_states_there_is_no_plan(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    planner.planner._sensed = None
    with pytest.raises(
        WorldModelError, match="/joint_states: expected joint states of the last 1 s, found none"
    ):
        planner.run(planner.planner.plan)
    planner.sense()
    time.sleep(1.1)
    with pytest.raises(WorldModelError, match="found none"):
        planner.run(planner.planner.plan)


def test_another_driver_on_the_topic_of_the_joints_is_no_problem_while_the_arms_come(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner, lines = make_planner(), list[str]()
    log = SimpleNamespace(warning=lambda line, **_: lines.append(line))
    monkeypatch.setattr(planner.planner, "get_logger", lambda: log)
    stray = joint_state(planner.rig.now_ns(), ("gripper",), [0.0])
    planner.sense()
    planner.planner._on_joint_state(stray)
    assert not lines
    time.sleep(1.1)
    planner.planner._on_joint_state(stray)
    assert "expected panda_joint1, " in lines.pop()


def test_the_joints_may_come_from_several_drivers_and_each_must_go_on(
    make_planner: Callable[..., PlannerRig],
) -> None:
    planner = make_planner()
    sensed, now_ns = planner.planner._on_joint_state, planner.rig.now_ns()
    time.sleep(1.1)
    sensed(joint_state(now_ns, JOINTS[:7], [float(joint) for joint in range(7)]))
    with pytest.raises(WorldModelError, match="found none of panda_finger_joint1; start the robot's driver"):
        planner.planner._positions()
    sensed(joint_state(now_ns, JOINTS[7:], [7.0]))
    np.testing.assert_array_equal(planner.planner._positions(), np.arange(8))


def test_joints_that_come_one_message_after_the_other_are_all_taken(
    make_planner: Callable[..., PlannerRig],
) -> None:
    """Of one driver that publishes the arm's and the gripper's back to back; the first must not wait in vain for its turn."""
    planner = make_planner()
    sensing, taken = planner.planner._on_joint_state, list[Any]()

    def busy(message: Any) -> None:
        time.sleep(0.02)
        sensing(message)
        taken.append(message)

    subscription = next(one for one in planner.planner.subscriptions if one.topic_name == "/joint_states")
    subscription.callback = busy
    now_ns = planner.rig.now_ns()
    for column, joint in enumerate(JOINTS):
        planner.rig.joints.publish(joint_state(now_ns, (joint,), [float(column)]))
    planner.rig.spin_until(lambda: len(taken) == len(JOINTS))
    np.testing.assert_array_equal(planner.planner._positions(), np.arange(8))


def test_a_planner_that_is_told_to_stop_plans_no_more_by_itself(
    make_planner: Callable[..., PlannerRig],
) -> None:
    planner = make_planner(period_s=0.1)
    set_goal(planner.rig, PICTURE)
    with planner.sensing():
        planner.rig.spin_until(lambda: planner.trajectories)
        asking = planner.rig.robot.create_client(Trigger, "/planner/stop")
        assert asking.wait_for_service(10.0)
        answer = asking.call_async(Trigger.Request())
        planner.rig.spin_until(answer.done)
        assert answer.result().success
        assert "drove nothing; stop an arm by its controller" in answer.result().message
        planner.rig.spin_for(0.5)  # a search that ran
        planner.trajectories.clear()
        planner.rig.spin_for(1.0)
        assert not planner.trajectories


def during_a_search(
    planner: PlannerRig, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]
) -> None:
    """Towards a goal, whenever the model is asked."""
    set_goal(planner.rig, PICTURE)
    model = planner.planner.model
    ask = model.ask

    def asked(plans: np.ndarray, **fields: Any) -> Any:
        happens()
        return ask(plans, **fields)

    monkeypatch.setattr(model, "ask", asked)


def test_a_search_that_is_stopped_leads_to_nothing(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner()
    during_a_search(planner, monkeypatch, planner.planner.stop)
    with pytest.raises(WorldModelError, match="~/stop: expected none during the search, found one"):
        planner.plan()
    planner.rig.spin_for(0.3)
    assert not planner.trajectories


def test_joint_states_that_stop_during_the_search_leave_no_plan(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner()
    during_a_search(planner, monkeypatch, lambda: time.sleep(1.1))
    planner.sense()
    with pytest.raises(WorldModelError, match="expected joint states of the last 1 s, found none"):
        planner.run(planner.planner.plan)
    assert not planner.trajectories


def test_a_clock_that_jumps_back_by_less_than_the_search_takes_is_noticed(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the clock is ten seconds after the one before, but for one, which is five seconds earlier."""
    planner = make_planner(horizon=10, num_samples=4, iterations=3)
    set_goal(planner.rig, PICTURE)
    search, looks = planner.planner._search, count()
    began_ns, seconds = search._now_ns(), [0, 10, 20, 15, 25, 35]
    monkeypatch.setattr(search, "_now_ns", lambda: began_ns + seconds[next(looks)] * NANOSECONDS)
    with pytest.raises(WorldModelError, match=r"clock: .* found one that jumped back by 5\.00 s or more"):
        planner.plan()
    assert not planner.trajectories


@pytest.mark.parametrize("is_moving", [False, True], ids=["from rest", "amid a plan"])
def test_a_clock_that_jumps_back_during_the_search_leaves_no_plan_and_the_next_one_is_sound(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch, is_moving: bool
) -> None:
    planner = make_planner(horizon=10, num_samples=4, iterations=1)
    set_goal(planner.rig, PICTURE)
    if is_moving:
        planner.carry_out(SLOW, rows_ago=0.5)
    search, times = planner.planner._search, count()
    now_ns = search._now_ns
    with monkeypatch.context() as patch:
        patch.setattr(search, "_now_ns", lambda: now_ns() - (600 * NANOSECONDS if next(times) else 0))
        with pytest.raises(WorldModelError, match=r"clock: .* found one that jumped back by .*; plan again"):
            planner.plan()
    assert not planner.trajectories
    for _ in range(2):
        before_ns = now_ns()
        planner.plan()
        assert abs(to_ns(planner.newest_trajectory().header.stamp) - before_ns) < 20 * NANOSECONDS


def test_without_a_world_model_the_client_says_what_to_start(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = WorldModelClient(rig.robot, "nobody")
    with pytest.raises(WorldModelError, match=r"nobody: expected ~/model_info .*ros2 launch astra_ros"):
        client.info(timeout_s=0.1)
    monkeypatch.setattr(client._service, "wait_for_service", lambda _timeout_s: False)
    with pytest.raises(
        WorldModelError, match=r"nobody/evaluate_actions, found none; start .*ros2 launch astra_ros"
    ):
        client._call(client._service, EvaluateActions.Request(), 0.0)


def test_the_client_knows_the_models_actions(rig: Rig) -> None:
    spec = action_spec(rig.spin_until(lambda: rig.infos)[0])
    expected = rig.node._configured()._model.manifest.action
    assert spec.names == expected.names
    assert spec.representation == expected.representation
    for bound in ("lower", "upper", "delta_std"):
        np.testing.assert_allclose(getattr(spec, bound), getattr(expected, bound), rtol=1e-6)


def test_the_client_takes_a_joint_that_never_moved(rig: Rig) -> None:
    info = rig.spin_until(lambda: rig.infos)[0]
    info.action_lower[0] = info.action_upper[0]
    spec = action_spec(info)
    assert spec.lower[0] == spec.upper[0]
    assert spec.std[0] > 0


def test_without_a_deadline_an_answer_may_take_as_long_as_its_node_is_there(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("astra_ros.ros.client._PATIENCE_S", 0.2)

    async def ponder(_request: Any, response: Any) -> Any:
        await Future()
        return response

    service = rig.robot.create_service(EvaluateActions, "ponderer/evaluate_actions", ponder)
    client = WorldModelClient(rig.robot, "ponderer")
    with ThreadPoolExecutor(1) as threads:

        def ask(deadline_s: float) -> Any:
            return threads.submit(client._call, client._service, EvaluateActions.Request(), deadline_s)

        hurried = ask(0.3)
        rig.spin_until(hurried.done)
        with pytest.raises(
            WorldModelError, match=r"ponderer: expected an answer within 0.5 s, found none; look at"
        ):
            hurried.result()
        patient = ask(0.0)
        rig.spin_for(1.5)
        assert not patient.done()
        rig.robot.destroy_service(service)
        rig.spin_until(patient.done)
        with pytest.raises(WorldModelError, match="ponderer: expected an answer, found the node gone"):
            patient.result()


def test_an_answer_is_not_waited_for_once_its_node_is_configured_anew(rig: Rig) -> None:
    """Killed and started again before DDS notices, it is never gone; where simulated time stands still, all stamps are equal."""

    async def ponder(_request: Any, response: Any) -> Any:
        await Future()
        return response

    service = rig.robot.create_service(EvaluateActions, "ponderer/evaluate_actions", ponder)
    info = rig.robot.create_publisher(ModelInfo, "ponderer/model_info", LATCHED)
    info.publish(ModelInfo())
    client = WorldModelClient(rig.robot, "ponderer")
    rig.spin_until(client._informed.is_set)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(client._call, client._service, EvaluateActions.Request(), 0.0)
        try:
            rig.spin_for(1.0)
            assert not asked.done()
            info.publish(ModelInfo(uncertainty_interval=[0.5, 2.0]))  # another uncertainty_samples was set
            rig.spin_until(lambda: client.info().uncertainty_interval)
            rig.spin_for(0.5)
            assert not asked.done()
            info.publish(ModelInfo(uncertainty_interval=[0.5, 2.0]))
            rig.spin_until(asked.done)
        finally:
            rig.robot.destroy_service(service)
        with pytest.raises(
            WorldModelError, match=r"ponderer: .* found the node configured anew .*; ask again"
        ):
            asked.result()
