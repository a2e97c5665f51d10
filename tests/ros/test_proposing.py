"""~/propose_actions, and who begins at what it answers: the client and the planner node."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn

from astra_ros.msg import ActionSequence, Goal
from astra_ros.ros.client import WorldModelError
from astra_ros.ros.live import LiveStream
from astra_ros.ros.proposing import ProposalQuery, ProposalReply, ProposalTicket, ProposalTickets
from astra_ros.ros.queries import Status
from astra_ros.ros.stamps import to_ns
from astra_ros.srv import EvaluateActions, ProposeActions
from tests.ros.rig import JOINTS, Rig, image
from tests.ros.test_planner import PICTURE, PlannerRig
from tests.ros.test_services import call
from tests.ros.test_standing_goal import set_goal

ROWS, COUNT = 6, 12


@pytest.fixture
def proposing(make_rig: Callable[..., Rig], proposing_bundle: Path) -> Rig:
    """An active node that has proposals."""
    rig = make_rig(bundle=str(proposing_bundle))
    rig.activate()
    return rig


@contextmanager
def planning(rig: Rig, **parameters: Any) -> Iterator[PlannerRig]:
    planner = PlannerRig(rig, **parameters)
    try:
        planner.run(planner.planner.model.info)  # a joint state that comes before it says nothing
        yield planner
    finally:
        planner.close()


def propose(rig: Rig, **fields: Any) -> ProposeActions.Response:
    request = ProposeActions.Request(**{"goal": PICTURE, "rows": ROWS, **fields})
    response: ProposeActions.Response = call(rig, ProposeActions, "propose_actions", request)
    return response


def rows_of(plan: ActionSequence) -> np.ndarray:
    return np.array(plan.data, np.float32).reshape(plan.horizon, len(plan.names))


def test_it_proposes_from_the_newest_picture_and_what_it_proposes_can_be_asked_about(proposing: Rig) -> None:
    future = proposing.serve()
    found = propose(proposing)
    assert (found.status, found.message) == (Status.OK, "")
    assert to_ns(found.observation_stamp) == to_ns(future.header.stamp)
    assert len(found.candidates) == len(found.probabilities) == COUNT
    assert (np.diff(found.probabilities) <= 0).all()
    for index, plan in enumerate(found.candidates):
        assert (tuple(plan.names), plan.horizon, to_ns(plan.header.stamp)) == (JOINTS, ROWS, 0)
        assert plan.id.uuid[0] == index
    judged = call(
        proposing,
        EvaluateActions,
        "evaluate_actions",
        EvaluateActions.Request(candidates=found.candidates, goal=PICTURE),
    )
    assert judged.status == Status.OK
    assert sorted(judged.ranking) == list(range(COUNT))
    # Inside the trained range: nothing was clipped.
    assert set(judged.flags) == {0}


def test_the_likeliest_so_many_and_the_standing_goal(proposing: Rig) -> None:
    proposing.serve()
    whole = propose(proposing)
    few = propose(proposing, count=3)
    assert [rows_of(one).tolist() for one in few.candidates] == [
        rows_of(one).tolist() for one in whole.candidates[:3]
    ]
    set_goal(proposing, PICTURE)
    standing = propose(proposing, goal=Goal())
    assert standing.probabilities == whole.probabilities
    other = propose(proposing, goal=Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=4)))
    assert other.probabilities != whole.probabilities
    embedded = propose(proposing, goal=Goal(type=Goal.TYPE_EMBEDDING, embedding=[0.5] * 192))
    assert embedded.status == Status.OK


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"rows": 0}, Status.REJECTED, r"rows: expected 1 to 20 \(ModelInfo.max_proposal_rows\), found 0"),
        ({"rows": 21}, Status.REJECTED, r"rows: expected 1 to 20 .*, found 21"),
        ({"count": 13}, Status.REJECTED, r"count: expected 0 to 12 \(ModelInfo.max_proposals\), found 13"),
        (
            {"goal": Goal()},
            Status.REJECTED,
            r"goal: expected one, or a standing one, found none; .*astra goal",
        ),
        ({"goal": Goal(type=Goal.TYPE_TEXT, text="up")}, Status.NOT_SUPPORTED, r"TYPE_TEXT"),
        (
            {"goal": Goal(type=Goal.TYPE_EMBEDDING, embedding=[1.0])},
            Status.REJECTED,
            r"goal.embedding: .* 192 num",
        ),
    ],
)
def test_what_is_wrong_is_named(proposing: Rig, fields: dict[str, Any], status: Status, message: str) -> None:
    proposing.serve()
    found = propose(proposing, **fields)
    assert found.status == status
    assert re.search(message, found.message), found.message
    assert not found.candidates
    assert propose(proposing).status == Status.OK


def test_without_a_picture_or_a_recent_one_there_is_nothing_to_begin_at(
    make_rig: Callable[..., Rig], proposing_bundle: Path
) -> None:
    rig = make_rig(bundle=str(proposing_bundle), max_observation_age_s=0.5)
    rig.activate()
    found = propose(rig)
    assert found.status == Status.STALE_OBSERVATION
    assert "found none yet" in found.message
    rig.serve()
    rig.spin_for(0.7)
    found = propose(rig)
    assert found.status == Status.STALE_OBSERVATION
    assert "expected an age of at most 0.5 s" in found.message


def test_a_bundle_that_was_taught_none_says_how(rig: Rig) -> None:
    rig.serve()
    found = propose(rig)
    assert found.status == Status.NOT_SUPPORTED
    assert "python -m export.proposals" in found.message
    info = rig.spin_until(lambda: rig.infos)[-1]
    assert (info.max_proposals, info.max_proposal_rows) == (0, 0)


def test_an_inactive_node_says_so_and_one_that_is_deactivated_answers_nobody_later(
    make_rig: Callable[..., Rig], proposing_bundle: Path
) -> None:
    rig = make_rig(bundle=str(proposing_bundle))
    assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    found = propose(rig)
    assert (found.status, "not active" in found.message) == (Status.NOT_ACTIVE, True)
    rig.activate_configured()
    rig.serve()
    assert propose(rig).status == Status.OK
    assert rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert propose(rig).status == Status.NOT_ACTIVE


def test_no_more_wait_than_can_be_answered_soon_and_who_waits_at_the_end_is_told() -> None:
    replies: list[tuple[int, ProposalReply]] = []
    tickets = ProposalTickets()

    def submit(number: int) -> None:
        query = ProposalQuery(None, ROWS, COUNT)
        tickets.submit(ProposalTicket(query, lambda reply: replies.append((number, reply))))

    for number in range(10):
        submit(number)
    assert [(number, reply.status) for number, reply in replies] == [(8, Status.BUSY), (9, Status.BUSY)]
    first = tickets.take()
    assert first is not None
    first.reply(ProposalReply(Status.OK))
    tickets.close(Status.NOT_ACTIVE, "over")
    submit(10)
    assert [number for number, _ in replies[2:]] == [0, 1, 2, 3, 4, 5, 6, 7, 10]
    assert {reply.status for number, reply in replies if 0 < number < 8 or number == 10} == {
        Status.NOT_ACTIVE
    }
    assert not tickets


def test_an_answer_comes_between_two_chunks_of_a_live_prediction(
    proposing: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prediction waits after its first chunk until somebody has been answered."""
    proposing.serve()
    answered = Event()
    between = LiveStream.serve

    def slow(live: LiveStream) -> None:
        deadline_s = time.monotonic() + 10
        while not answered.is_set() and time.monotonic() < deadline_s:
            live._between_chunks()
            time.sleep(0.01)
        between(live)

    monkeypatch.setattr(LiveStream, "serve", slow)
    proposing.image.publish(image(proposing.now_ns()))
    assert propose(proposing).status == Status.OK
    answered.set()


def test_a_planner_mixes_what_the_model_proposes_and_is_never_worse_than_holding_still(
    proposing: Rig,
) -> None:
    set_goal(proposing, PICTURE)
    proposing.serve()
    with planning(proposing, method="refine", num_samples=9, iterations=3, horizon=ROWS) as planner:
        model = planner.planner.model
        asked: list[np.ndarray] = []
        ask = model.ask

        def recorded(plans: np.ndarray, **fields: Any) -> Any:
            asked.append(plans.copy())
            return ask(plans, **fields)

        model.ask = recorded  # type: ignore[method-assign, assignment]
        planned, _ = planner.plan()
        proposed = planner.run(lambda: model.propose(ROWS, count=8)).plans
        assert [len(plans) for plans in asked] == [9, 9, 9]
        still = asked[0][0]
        np.testing.assert_array_equal(still, np.broadcast_to(still[0], still.shape))
        # As proposed, but for jumps.
        limit = 1.5 * np.array(model.info().action_step_std)
        before = np.concatenate([np.broadcast_to(still[0], (8, 1, len(JOINTS))), asked[0][1:, :-1]], axis=1)
        allowed = np.clip(proposed, before - limit, before + limit)
        np.testing.assert_allclose(asked[0][1:], allowed, atol=1e-5)
        held = -planner.run(lambda: ask(still[None], seed=0)).scores[0]
        assert planned.cost == planned.history[-1] <= planned.history[0] <= held + 1e-6
        (trajectory,) = proposing.spin_until(lambda: planner.trajectories)
        assert len(trajectory.points) == ROWS
        for plans in (*asked, planned.plan[None]):
            steps = np.abs(
                np.diff(plans, axis=1, prepend=np.broadcast_to(still[0], (len(plans), 1, len(JOINTS))))
            )
            assert (steps <= limit + 1e-5).all()


def test_a_planner_takes_a_near_and_likely_one_unless_told_otherwise(proposing: Rig) -> None:
    set_goal(proposing, PICTURE)
    proposing.serve()
    with planning(proposing, num_samples=8, horizon=ROWS, max_step=100.0) as planner:
        model = planner.planner.model
        planned, _ = planner.plan()
        proposed = planner.run(lambda: model.propose(ROWS, count=8))
        costs = planner.run(lambda: model.costs(seed=0)(proposed.plans))
        best = int(np.argmin(costs / proposed.probabilities))
        np.testing.assert_allclose(planned.plan, proposed.plans[best], atol=1e-5)
        assert planned.cost == pytest.approx(float(costs[best]), rel=1e-5)


def test_a_moving_robot_begins_at_proposals_behind_the_rows_that_it_is_carrying_out(proposing: Rig) -> None:
    set_goal(proposing, PICTURE)
    proposing.serve()
    with planning(proposing, num_samples=8, iterations=3, horizon=16) as planner:
        points = np.linspace(0, 0.1, 17)[:, None] + np.linspace(-1.0, 1.0, len(JOINTS)).astype(np.float32)
        motion = planner.carry_out(points, rows_ago=0.5)
        planner.planner._search._iteration_ns = 300_000_000  # so that a busy machine has the time
        planned, _ = planner.plan(points[1])
        limit = 1.5 * np.array(planner.planner.model.info().action_step_std)
        assert (np.abs(np.diff(planned.plan, axis=0)) <= limit + 1e-5).all()
        begun = motion.points[1:]
        same = int(np.argmin(np.isclose(planned.plan, begun, atol=1e-6).all(axis=1)))
        assert 0 < same <= 8  # the rows on their way are kept; then something that was proposed, or going on


def test_a_search_that_cannot_use_proposals_is_free_or_says_why(proposing: Rig) -> None:
    set_goal(proposing, PICTURE)
    proposing.serve()
    with planning(proposing, num_samples=8, iterations=1, horizon=24) as planner:
        assert len(planner.plan()[0].plan) == 24  # cem: proposals have 20 rows at most
    refine = {"method": "refine", "num_samples": 8, "iterations": 1, "horizon": 24}
    refused = pytest.raises(WorldModelError, match=r"rows: expected 1 to 20")
    with planning(proposing, **refine) as planner, refused:
        planner.plan()


def test_the_client_plans_in_one_call(proposing: Rig) -> None:
    proposing.serve()
    with planning(proposing) as planner:
        model = planner.planner.model
        planned = planner.run(lambda: model.plan(ROWS, PICTURE))
        proposed = planner.run(lambda: model.propose(ROWS, PICTURE))
        costs = planner.run(lambda: model.costs(PICTURE, 0)(proposed.plans))
        best = int(np.argmin(costs / proposed.probabilities))
        np.testing.assert_allclose(planned.plan, proposed.plans[best], atol=1e-6)
        assert planned.cost == pytest.approx(float(costs[best]), rel=1e-5)
        with pytest.raises(WorldModelError, match="count: expected"):
            planner.run(lambda: model.propose(ROWS, PICTURE, count=99))
