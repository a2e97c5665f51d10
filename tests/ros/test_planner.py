"""The planner node, beside a world model node and a robot."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from astra_ros.msg import Goal
from astra_ros.planning.sampling import shifted
from astra_ros.ros.client import WorldModelClient, WorldModelError, action_spec
from astra_ros.ros.declaration import ConfigError, read_config
from astra_ros.ros.planner import Planner, PlannerConfig
from astra_ros.ros.stamps import to_ns
from tests.ros.rig import JOINTS, POSITIONS, SENSOR, Rig, image, joint_state
from tests.ros.test_standing_goal import set_goal

PICTURE = Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=3))
HORIZON, STEP_NS = 4, 200_000_000


class PlannerRig:
    """A planner spun by threads of its own, as its program does. What blocks runs aside."""

    def __init__(self, rig: Rig, **parameters: Any) -> None:
        values = {"num_samples": 8, "iterations": 2, "horizon": HORIZON, **parameters}
        self.rig = rig
        self.planner = Planner(parameter_overrides=[Parameter(name, value=v) for name, v in values.items()])
        self.trajectories: list[JointTrajectory] = []
        rig.robot.create_subscription(JointTrajectory, "/joint_trajectory", self.trajectories.append, SENSOR)
        self._executor = MultiThreadedExecutor(4)
        self._executor.add_node(self.planner)
        self._threads = ThreadPoolExecutor(2)
        self._threads.submit(self._executor.spin)
        rig.spin_until(lambda: self.planner.count_publishers("/joint_states"))

    def run(self, work: Callable[[], Any]) -> Any:
        future = self._threads.submit(work)
        self.rig.spin_until(future.done)
        return future.result()

    def sense(self) -> None:
        """The robot says where it is."""
        before = self.planner._sensed
        self.rig.joints.publish(joint_state(self.rig.now_ns()))
        self.rig.spin_until(lambda: self.planner._sensed is not before)

    def plan(self) -> Any:
        self.sense()
        return self.run(self.planner.plan)

    def first_guess(self) -> np.ndarray:
        self.sense()
        config = read_config(self.planner, PlannerConfig)
        guess: np.ndarray = self.planner._first_guess(self.planner.model.spec(), config)
        return guess

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
    assert planned.cost == min(planned.history) <= planned.history[0]
    (trajectory,) = planner.rig.spin_until(lambda: planner.trajectories)
    assert tuple(trajectory.joint_names) == JOINTS
    # It begins where the search began: a robot that holds still meanwhile skips what has elapsed.
    assert before_ns <= to_ns(trajectory.header.stamp) <= before_ns + (seconds + 1) * 1e9
    assert [to_ns(point.time_from_start) for point in trajectory.points] == [
        (k + 1) * STEP_NS for k in range(HORIZON)
    ]
    rows = np.array([point.positions for point in trajectory.points])
    np.testing.assert_allclose(rows, planned.plan, atol=1e-6)
    info = planner.planner.model.info()
    assert (np.abs(np.diff(rows, axis=0)) <= 1.5 * np.array(info.action_step_std) + 1e-6).all()
    # What the world model itself says of it.
    reply = planner.run(lambda: planner.planner.model.ask(planned.plan[None], seed=0))
    assert -reply.scores[0] == pytest.approx(planned.cost, rel=1e-5)


def test_a_later_search_begins_at_what_is_left_of_a_plan_that_is_followed(
    make_planner: Callable[..., PlannerRig],
) -> None:
    planner = make_planner(horizon=10)
    planner.sense()
    still = np.tile(POSITIONS, (10, 1))
    followed = (still + 0.02 * np.arange(1, 11)[:, None]).astype(np.float32)
    planner.planner._last = (time.monotonic() - 2 * 0.2, followed)
    assert any(np.array_equal(planner.first_guess(), shifted(followed, k)) for k in (2, 3))
    planner.planner._last = (time.monotonic() - 2 * 0.2, followed + 2.0)
    np.testing.assert_allclose(planner.first_guess(), still, atol=1e-6)  # it did not follow
    planner.planner._last = (time.monotonic() - 60.0, followed)
    np.testing.assert_allclose(planner.first_guess(), still, atol=1e-6)  # it is over


def test_it_plans_when_asked_and_says_what_came_of_it(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    rig, client = planner.rig, planner.rig.robot.create_client(Trigger, "/planner/plan")
    rig.spin_until(client.service_is_ready)

    def ask() -> Trigger.Response:
        planner.sense()
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
    assert response.message.startswith("cost ")
    rig.spin_until(lambda: planner.trajectories)


def test_it_goes_on_planning_with_a_period(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner(num_samples=2, iterations=1)
    set_goal(planner.rig, PICTURE)
    planner.sense()
    planner.planner.set_parameters([Parameter("period_s", value=0.05)])

    def sensed_and_planned_twice() -> bool:
        planner.rig.joints.publish(joint_state(planner.rig.now_ns()))
        return len(planner.trajectories) >= 2

    planner.rig.spin_until(sensed_and_planned_twice)


def test_a_controllers_joints_alone_are_published(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner(joints=", ".join(JOINTS[1::-1]))
    set_goal(planner.rig, PICTURE)
    planned, _ = planner.plan()
    (trajectory,) = planner.rig.spin_until(lambda: planner.trajectories)
    assert tuple(trajectory.joint_names) == JOINTS[1::-1]
    np.testing.assert_allclose(trajectory.points[-1].positions, planned.plan[-1, 1::-1], atol=1e-6)
    planner.planner.set_parameters([Parameter("joints", value="wheel")])
    with pytest.raises(ConfigError, match=r"joints: expected some of .*, found wheel"):
        planner.plan()


def test_wrong_parameters_are_refused_and_the_node_lives(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    for name, value, line in (
        ("method", "foo", "expected one of cem, mppi"),
        ("world_model", "other", "start it again"),
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


def test_without_a_world_model_the_client_says_what_to_start(rig: Rig) -> None:
    client = WorldModelClient(rig.robot, "nobody")
    with pytest.raises(WorldModelError, match=r"nobody: expected ~/model_info .*ros2 launch astra_ros"):
        client.info(timeout_s=0.1)


def test_the_client_knows_the_models_actions(rig: Rig) -> None:
    spec = action_spec(rig.spin_until(lambda: rig.infos)[0])
    expected = rig.node._configured()._model.manifest.action
    assert spec.names == expected.names
    assert spec.representation == expected.representation
    for bound in ("lower", "upper", "delta_std"):
        np.testing.assert_allclose(getattr(spec, bound), getattr(expected, bound), rtol=1e-6)
