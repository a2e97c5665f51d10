"""The planner node, beside a world model node and a robot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from astra_ros.msg import Goal
from astra_ros.ros.client import WorldModelClient, WorldModelError, action_spec
from astra_ros.ros.planner import Planner
from astra_ros.ros.stamps import to_ns
from tests.ros.rig import JOINTS, POSITIONS, SENSOR, Rig, image, joint_state
from tests.ros.test_questions import Asker, request
from tests.ros.test_standing_goal import set_goal

PICTURE = Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=3))
HORIZON, STEP_NS = 4, 200_000_000


class PlannerRig:
    """A planner spun by the rig. What blocks runs aside."""

    def __init__(self, rig: Rig, **parameters: Any) -> None:
        values = {"num_samples": 8, "iterations": 2, "horizon": HORIZON, **parameters}
        self.rig = rig
        self.planner = Planner(parameter_overrides=[Parameter(name, value=v) for name, v in values.items()])
        self.trajectories: list[JointTrajectory] = []
        rig.robot.create_subscription(JointTrajectory, "/joint_trajectory", self.trajectories.append, SENSOR)
        rig._executor.add_node(self.planner)
        self._aside = ThreadPoolExecutor(1)
        rig.spin_until(lambda: self.planner.count_publishers("/joint_states"))

    def run(self, work: Callable[[], Any]) -> Any:
        future = self._aside.submit(work)
        self.rig.spin_until(future.done)
        return future.result()

    def close(self) -> None:
        self._aside.shutdown()
        self.rig._executor.remove_node(self.planner)
        self.planner.destroy_node()


@pytest.fixture
def make_planner(rig: Rig) -> Iterator[Callable[..., PlannerRig]]:
    """Of an active world model that has an observation."""
    made: list[PlannerRig] = []

    def make(**parameters: Any) -> PlannerRig:
        made.append(PlannerRig(rig, **parameters))
        rig.serve()
        made[-1].run(made[-1].planner._model.info)
        rig.joints.publish(joint_state(rig.now_ns()))
        rig.spin_until(lambda: made[-1].planner._positions is not None)
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
    planned, seconds = planner.run(planner.planner.plan)
    assert seconds > 0
    assert planned.cost == min(planned.history) <= planned.history[0]
    (trajectory,) = planner.rig.spin_until(lambda: planner.trajectories)
    assert tuple(trajectory.joint_names) == JOINTS
    assert [to_ns(point.time_from_start) for point in trajectory.points] == [
        (k + 1) * STEP_NS for k in range(HORIZON)
    ]
    rows = np.array([point.positions for point in trajectory.points])
    np.testing.assert_allclose(rows, planned.plan, atol=1e-6)
    info = planner.planner._model.info()
    assert (np.abs(np.diff(rows, axis=0)) <= 1.5 * np.array(info.action_step_std) + 1e-6).all()
    # What the world model itself says of it.
    reply = planner.run(lambda: planner.planner._model.ask(planned.plan[None], seed=0))
    assert -reply.scores[0] == pytest.approx(planned.cost, rel=1e-5)


def test_a_later_search_begins_at_what_is_left_of_the_last_plan(
    make_planner: Callable[..., PlannerRig], monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = make_planner(horizon=100)
    set_goal(planner.rig, PICTURE)
    first, _ = planner.run(planner.planner.plan)
    spec = planner.planner._model.spec()
    config = planner.planner.get_parameter("horizon").value
    guess = planner.run(lambda: planner.planner._first_guess(spec, _config(planner.planner)))
    assert guess.shape == (config, len(JOINTS))
    assert any(np.array_equal(guess[: 100 - k], first.plan[k:]) for k in range(100))
    planner.planner.set_parameters([Parameter("horizon", value=HORIZON)])
    held = planner.run(lambda: planner.planner._first_guess(spec, _config(planner.planner)))
    np.testing.assert_allclose(held, np.tile(POSITIONS, (HORIZON, 1)), atol=1e-6)


def _config(planner: Planner) -> Any:
    from astra_ros.ros.declaration import read_config
    from astra_ros.ros.planner import PlannerConfig

    return read_config(planner, PlannerConfig)


def test_it_plans_when_asked_and_says_what_came_of_it(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    client = planner.rig.robot.create_client(Trigger, "/planner/plan")
    planner.rig.spin_until(client.service_is_ready)

    def ask() -> Trigger.Response:
        # Its callback blocks, so it must not run in the thread that spins.
        response = Trigger.Response()
        return planner.run(lambda: planner.planner._on_plan(Trigger.Request(), response))

    response = ask()
    assert not response.success
    assert "set a goal (~/set_goal)" in response.message
    assert not planner.trajectories
    set_goal(planner.rig, PICTURE)
    response = ask()
    assert response.success
    assert response.message.startswith("cost ")
    planner.rig.spin_until(lambda: planner.trajectories)


def test_what_the_world_model_refuses_is_told(make_planner: Callable[..., PlannerRig]) -> None:
    planner = make_planner()
    set_goal(planner.rig, PICTURE)
    assert planner.rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    with pytest.raises(WorldModelError, match="the node is not active"):
        planner.run(planner.planner.plan)
    assert not planner.trajectories


def test_without_joint_states_there_is_no_plan(rig: Rig) -> None:
    planner = PlannerRig(rig)
    try:
        planner.run(planner.planner._model.info)
        with pytest.raises(WorldModelError, match="/joint_states: expected joint states, found none yet"):
            planner.run(planner.planner.plan)
    finally:
        planner.close()


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
    assert Asker(rig).ask(request()).status in (0, 5)
