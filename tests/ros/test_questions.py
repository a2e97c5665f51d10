"""Questions about candidates: over the service and the action, beside the live stream."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Queue
from threading import Event
from typing import Any, TypeAlias, cast

import numpy as np
import onnxruntime
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Duration
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from rcl_interfaces.srv import GetParameters
from rclpy.action.client import ActionClient
from rclpy.action.server import RCLError
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from astra_ros.action import PredictFutures
from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.ort import OrtBackend
from astra_ros.msg import ActionSequence, Goal, PredictedFuture
from astra_ros.planning.evaluation import Evaluation, Question
from astra_ros.planning.goals import Goal as LatentGoal
from astra_ros.planning.goals import codec_distance
from astra_ros.planning.refine import RefineConfig
from astra_ros.rollout.candidates import Candidates
from astra_ros.rollout.chunks import roll_out
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros import services
from astra_ros.ros.client import WorldModelClient, WorldModelError
from astra_ros.ros.conversions import to_jpeg
from astra_ros.ros.evaluator import Evaluator
from astra_ros.ros.inbox import Frame
from astra_ros.ros.live import Match
from astra_ros.ros.moveit import rank_plans
from astra_ros.ros.parameters import MAX_CANDIDATES
from astra_ros.ros.planner import to_trajectory
from astra_ros.ros.plans import read_plan
from astra_ros.ros.queries import Query, QueryRefusal, Status, horizon_of, read_query
from astra_ros.ros.services import _NOT_ACTIVE
from astra_ros.ros.stamps import to_duration, to_ns
from astra_ros.ros.tickets import Progress, Ticket, Tickets
from astra_ros.ros.tickets import Reply as TicketReply
from astra_ros.ros.worker import Worker
from astra_ros.srv import EvaluateActions
from astra_ros.types import Observation
from tests.bundle_fixture import LATENT
from tests.ros.rig import HORIZON, POSITIONS, TIMEOUT_S, Rig, action_sequence, image

MakeRig = Callable[..., Rig]
Reply: TypeAlias = EvaluateActions.Response
PLANTED = 6
STEP_NS = 200_000_000


def candidates(count: int, horizon: int = HORIZON) -> list[ActionSequence]:
    """Slow movements in random directions, inside the trained range."""
    rng = np.random.default_rng(0)
    steps = 0.4 / horizon * rng.standard_normal((count, 1, len(POSITIONS)))
    rows = 0.5 * POSITIONS + steps * np.arange(1, horizon + 1)[:, None]
    return [numbered(action_sequence(rows=one), index) for index, one in enumerate(rows)]


def numbered(message: ActionSequence, number: int) -> ActionSequence:
    message.id.uuid = np.full(16, number % 256, np.uint8)
    return message


def request(count: int = 3, horizon: int = HORIZON, **fields: Any) -> EvaluateActions.Request:
    return EvaluateActions.Request(
        **{"candidates": candidates(count, horizon), "seed": 0, **fields},
    )


def long_request(**fields: Any) -> EvaluateActions.Request:
    """Takes far longer than what a test does meanwhile."""
    return request(200, 100, **fields)


class Asker:
    """A client of the service and of the action, in the robot's node."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.service = rig.robot.create_client(EvaluateActions, "world_model/evaluate_actions")
        self.action = ActionClient(rig.robot, PredictFutures, "world_model/predict_futures")
        self.feedback: list[PredictFutures.Feedback] = []
        rig.spin_until(self.service.service_is_ready)
        rig.spin_until(self.action.server_is_ready)

    def ask(self, question: EvaluateActions.Request) -> Reply:
        return self.result(self.service.call_async(question))

    def start(self, question: EvaluateActions.Request) -> Any:
        """The handle of an accepted goal."""
        goal = PredictFutures.Goal(
            **{field: getattr(question, field) for field in question.get_fields_and_field_types()}
        )
        return self.result(
            self.action.send_goal_async(goal, lambda message: self.feedback.append(message.feedback))
        )

    def result(self, future: Future) -> Any:
        self.rig.spin_until(future.done)
        return future.result()


@pytest.fixture
def asker(rig: Rig) -> Iterator[Asker]:
    """Of an active node that has an observation."""
    rig.serve()
    asker = Asker(rig)
    yield asker
    asker.action.destroy()


def open_questions(rig: Rig) -> bool:
    worker = rig.node._configured()._worker
    assert worker
    return bool(worker._tickets)


def observe(model: WorldModel, stamp_ns: int) -> None:
    """What rig.serve() shows the node."""
    pixels = np.frombuffer(image(stamp_ns).data, np.uint8).reshape(48, 64, 3)
    model.observe(Observation(stamp_ns, pixels, POSITIONS))


def test_the_candidate_that_leads_to_the_goal_is_best(make_rig: MakeRig, untrained_bundle: Path) -> None:
    """The node's answer is the library's, bit for bit, in the same runtime."""
    rig = make_rig(backend="onnxruntime", goal_frames=1)
    rig.activate()
    rig.serve()
    asker = Asker(rig)
    reference = asker.ask(request(10))
    rows = np.stack([np.array(one.data, np.float32).reshape(HORIZON, -1) for one in request(10).candidates])
    with WorldModel.load(untrained_bundle, "onnxruntime") as model:
        observe(model, to_ns(reference.observation_stamp))
        past, evaluator = model.past(to_ns(reference.observation_stamp)), Candidates(model.backend)
        planted = _answer(Evaluation(evaluator, past, Question(rows[[PLANTED]]))).futures[0].latents[-1]
        question = Question(rows, codec_distance(model.backend, LatentGoal(planted)))
        expected = _answer(Evaluation(evaluator, past, question))
    embedding = Goal(type=Goal.TYPE_EMBEDDING, embedding=array("f", planted.ravel()))
    reply = asker.ask(request(10, goal=embedding, top_k=2))
    assert (reply.status, reply.message) == (Reply.STATUS_OK, "")
    assert reply.ranking[0] == PLANTED
    assert reply.ranking.tolist() == expected.ranking.tolist()
    np.testing.assert_array_equal(reply.scores, expected.scores)
    np.testing.assert_array_equal(reply.final_goal_distance, -np.array(reply.scores))
    assert all(reply.evaluated)
    assert np.isnan(reply.uncertainty).all()
    best = reply.futures[0]
    assert best.id.uuid.tolist() == [PLANTED] * 16
    assert best.score == reply.scores[PLANTED]
    assert len(best.goal_distance) == HORIZON
    assert best.goal_distance[-1] == reply.final_goal_distance[PLANTED]
    assert not len(best.frames)
    assert not len(best.compressed_frames)


def _answer(evaluation: Evaluation) -> Any:
    for _ in evaluation.run():
        pass
    return evaluation.answer()


def test_frames_are_those_of_the_live_stream(asker: Asker) -> None:
    plan = action_sequence()
    asker.rig.plan.publish(plan)
    asker.rig.spin_until(lambda: "action_sequence.received" in asker.rig.counters())
    live = asker.rig.serve()
    asked = request(candidates=[plan], frames=EvaluateActions.Request.FRAMES_ALL)
    (future,) = asker.ask(asked).futures
    assert future.actions == live.actions
    assert [bytes(one.data) for one in future.compressed_frames] == [
        bytes(one.data) for one in live.compressed_frames
    ]
    assert [one.header for one in future.compressed_frames] == [one.header for one in live.compressed_frames]
    assert to_ns(future.total_latency) > to_ns(future.inference_time) > 0


def test_the_last_frame_alone_and_raw(asker: Asker) -> None:
    last = EvaluateActions.Request.FRAMES_LAST
    reply = asker.ask(request(3, frames=last, compressed=False, top_k=10))
    assert len(reply.futures) == 3
    for future in reply.futures:
        (frame,) = future.frames
        assert to_ns(frame.header.stamp) == to_ns(reply.observation_stamp) + HORIZON * STEP_NS
        assert (frame.height, frame.width) == (48, 64)


def test_without_a_goal_there_are_futures_but_no_scores(asker: Asker) -> None:
    reply = asker.ask(request(3))
    assert np.isnan(reply.scores).all()
    assert reply.ranking.tolist() == [0, 1, 2]
    assert np.isnan(reply.futures[0].score)
    assert not len(reply.futures[0].goal_distance)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (200, 100)])
def test_a_picture_is_a_goal_whatever_its_size(asker: Asker, height: int, width: int) -> None:
    picture = image(1, height=height, width=width)
    pixels = np.frombuffer(picture.data, np.uint8).reshape(height, width, 3)
    raw = asker.ask(request(goal=Goal(type=Goal.TYPE_IMAGE, image=picture)))
    jpeg = to_jpeg(pixels, picture.header, 100)
    compressed = asker.ask(request(goal=Goal(type=Goal.TYPE_COMPRESSED_IMAGE, compressed_image=jpeg)))
    assert np.isfinite(raw.scores).all()
    np.testing.assert_allclose(compressed.scores, raw.scores, rtol=0.2)


def test_a_random_seed_is_reported(asker: Asker) -> None:
    first, second = (asker.ask(request(1, seed=-1)).futures[0] for _ in range(2))
    assert first.seed != second.seed
    assert min(first.seed, second.seed) >= 0


def test_plans_of_different_lengths_are_compared_at_the_end_of_the_longest(asker: Asker) -> None:
    short, long = candidates(1, 3)[0], candidates(1, 9)[0]
    futures = asker.ask(request(candidates=[short, long], top_k=2)).futures
    assert [future.actions.horizon for future in futures] == [9, 9]
    assert [future.flags for future in futures] == [PredictedFuture.FLAG_PLAN_EXTENDED, 0]


def test_what_is_said_of_each_candidate_needs_no_future(asker: Asker) -> None:
    short, long, far = candidates(1, 3)[0], candidates(1, 9)[0], action_sequence(rows=np.full((9, 8), 9.0))
    reply = asker.ask(request(candidates=[short, long, far], top_k=0))
    assert reply.flags.tolist() == [
        PredictedFuture.FLAG_PLAN_EXTENDED,
        0,
        PredictedFuture.FLAG_ACTION_CLIPPED,
    ]


def test_a_plan_that_is_over_when_its_turn_comes_is_refused(untrained_bundle: Path) -> None:
    manifest, sent_ns = load_bundle(untrained_bundle).manifest, 100_000_000_000
    brief = action_sequence(sent_ns, rows=np.tile(POSITIONS, (2, 1)))
    plans = [read_plan(one, manifest.action, 2.0, sent_ns) for one in (*candidates(1), brief)]
    assert horizon_of(plans, sent_ns + STEP_NS, manifest) == HORIZON
    with pytest.raises(
        QueryRefusal,
        match=r"candidates\[1\].header.stamp: .* not over when its turn comes, .* 0.300 s before the observation",
    ) as caught:
        horizon_of(plans, sent_ns + 2 * STEP_NS + 300_000_000, manifest)
    assert caught.value.status is Status.REJECTED


def test_uncertainty_is_asked_for_by_parameters(make_rig: MakeRig) -> None:
    rig = make_rig(uncertainty_samples=3)
    rig.activate()
    rig.serve()
    asker, goal = Asker(rig), Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=3))
    off_the_hot_path = asker.ask(request(goal=goal, top_k=1))
    best = off_the_hot_path.ranking[0]
    assert np.isfinite(off_the_hot_path.uncertainty).tolist() == [index == best for index in range(3)]
    assert len(off_the_hot_path.futures[0].frame_uncertainty) == HORIZON
    rig.node.set_parameters([Parameter("uncertainty_weight", value=2.0)])
    weighted = asker.ask(request(goal=goal))
    rig.node.set_parameters([Parameter("uncertainty_weight", value=0.0)])
    expected = np.array(asker.ask(request(goal=goal)).scores) - 2 * np.array(weighted.uncertainty)
    np.testing.assert_allclose(weighted.scores, expected, rtol=1e-5)


@pytest.mark.parametrize("goal_frames", [1, 2])
def test_a_goal_may_have_to_be_kept(asker: Asker, goal_frames: int) -> None:
    asker.rig.node.set_parameters([Parameter("goal_frames", value=goal_frames)])
    reply = asker.ask(request(goal=Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=3)), top_k=3))
    for index, future in zip(reply.ranking, reply.futures, strict=True):
        last = np.array(future.goal_distance)[-goal_frames:]
        assert reply.scores[index] == pytest.approx(-last.mean(), rel=1e-5)
        assert reply.final_goal_distance[index] == last[-1]


def test_candidates_may_be_ranked_by_fewer_steps(asker: Asker) -> None:
    goal = Goal(type=Goal.TYPE_IMAGE, image=image(1, seed=3))
    asked = request(goal=goal, top_k=3, frames=EvaluateActions.Request.FRAMES_ALL)
    whole = asker.ask(asked)
    asker.rig.node.set_parameters([Parameter("ranking_steps", value=1)])
    quick = asker.ask(asked)
    assert (np.array(quick.scores) != np.array(whole.scores)).all()
    frames = {tuple(one.actions.data): one.compressed_frames for one in whole.futures}
    for one in quick.futures:
        assert one.compressed_frames == frames[tuple(one.actions.data)]
    asked.denoising_steps = 2
    assert asker.ask(asked).scores == whole.scores
    both = [Parameter("uncertainty_samples", value=3), Parameter("uncertainty_weight", value=2.0)]
    answer = asker.rig.node.set_parameters_atomically(both)
    assert not answer.successful
    assert "ranking_steps: expected 0 where uncertainty is part of the score, found 1" in answer.reason


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no candidates": ({"candidates": []}, Reply.STATUS_REJECTED, "candidates: expected at least 1"),
    "too many": (
        {"candidates": [ActionSequence()] * MAX_CANDIDATES},
        Reply.STATUS_REJECTED,
        f"expected at most 256 (max_candidates), found {MAX_CANDIDATES}",
    ),
    "ragged": (
        {"candidates": [action_sequence(), action_sequence(data=array("f", [1.0]))]},
        Reply.STATUS_REJECTED,
        "candidates[1].data: expected horizon * len(names)",
    ),
    "not a number": (
        {"candidates": [action_sequence(rows=np.full((2, 8), np.nan))]},
        Reply.STATUS_REJECTED,
        "candidates[0].data: expected finite numbers",
    ),
    "wrong names": (
        {"candidates": [action_sequence(names=list("abcdefgh"))]},
        Reply.STATUS_REJECTED,
        "candidates[0].names: expected panda_joint1",
    ),
    "wrong representation": (
        {"candidates": [action_sequence(representation=ActionSequence.REPRESENTATION_EE_POSE)]},
        Reply.STATUS_REJECTED,
        "candidates[0].representation",
    ),
    "too far": (
        {"candidates": [action_sequence(), action_sequence(rows=np.tile(POSITIONS, (101, 1)))]},
        Reply.STATUS_REJECTED,
        "candidates[1].horizon: expected an end within 100 frames",
    ),
    "too many futures": ({"top_k": 17}, Reply.STATUS_REJECTED, "top_k: expected at most 16"),
    "frames": ({"frames": 3}, Reply.STATUS_REJECTED, "frames: expected one of"),
    "seed": ({"seed": -2}, Reply.STATUS_REJECTED, "seed: expected 0 or more"),
    "negative deadline": (
        {"deadline": Duration(sec=-1)},
        Reply.STATUS_REJECTED,
        "deadline: expected a duration of 0 (none) or more, found -1 s",
    ),
    "denoising steps": (
        {"denoising_steps": 7},
        Reply.STATUS_NOT_SUPPORTED,
        "denoising_steps: expected 0 or 2",
    ),
    "text": ({"goal": Goal(type=Goal.TYPE_TEXT, text="tidy up")}, Reply.STATUS_NOT_SUPPORTED, "goal.type"),
    "unknown goal": ({"goal": Goal(type=9)}, Reply.STATUS_REJECTED, "goal.type"),
    "no picture": (
        {"goal": Goal(type=Goal.TYPE_IMAGE)},
        Reply.STATUS_REJECTED,
        "goal.image: ",
    ),
    "depth picture": (
        {"goal": Goal(type=Goal.TYPE_IMAGE, image=image(1, encoding="32FC1"))},
        Reply.STATUS_REJECTED,
        "goal.image: encoding",
    ),
    "no JPEG": (
        {"goal": Goal(type=Goal.TYPE_COMPRESSED_IMAGE)},
        Reply.STATUS_REJECTED,
        "goal.compressed_image: ",
    ),
    "embedding size": (
        {"goal": Goal(type=Goal.TYPE_EMBEDDING, embedding=array("f", [1.0]))},
        Reply.STATUS_REJECTED,
        f"goal.embedding: expected {np.prod(LATENT)} numbers",
    ),
    "embedding number": (
        {"goal": Goal(type=Goal.TYPE_EMBEDDING, embedding=array("f", [np.inf] * int(np.prod(LATENT))))},
        Reply.STATUS_REJECTED,
        "goal.embedding: expected finite",
    ),
}


def test_what_is_wrong_has_a_status_and_a_line(asker: Asker) -> None:
    for name, (fields, status, text) in REFUSED.items():
        reply = asker.ask(request(**fields))
        assert (reply.status, text in reply.message) == (status, True), (name, reply.message)
        assert "\n" not in reply.message
        assert not len(reply.ranking)
        assert not reply.futures
    assert asker.ask(request()).status == Reply.STATUS_OK


def test_more_candidates_than_the_interface_allows_are_refused_where_they_are_sent(asker: Asker) -> None:
    """A million would keep the executor from pictures while they are read; as many as allowed do not."""
    oversized = request()
    oversized._candidates = [ActionSequence()] * (
        MAX_CANDIDATES + 1
    )  # past a check that few programs have on
    with pytest.raises(RCLError, match="failed to send request"):
        asker.service.call_async(oversized)
    most = asker.service.call_async(request(candidates=[ActionSequence()] * MAX_CANDIDATES))
    since_s = time.monotonic()
    asker.rig.serve()
    assert time.monotonic() - since_s < 2.0
    assert asker.result(most).status == Reply.STATUS_REJECTED
    client = WorldModelClient(asker.rig.robot)
    with pytest.raises(WorldModelError, match=r"plans: expected at most 4096 .*, found 4097; ask in several"):
        client.ask(np.zeros((MAX_CANDIDATES + 1, 1, len(POSITIONS)), np.float32))


def test_plans_of_an_arm_without_its_gripper_are_ranked(asker: Asker) -> None:
    """As messages of ros2_control, which MoveIt's plans hold, by the client in one call."""
    client = WorldModelClient(asker.rig.robot)
    asker.rig.spin_until(client._informed.is_set)
    *arm, gripper = client.info().action_names
    duration = Duration(nanosec=2 * STEP_NS)
    plans = [
        JointTrajectory(
            joint_names=arm,
            points=[
                JointTrajectoryPoint(positions=(scale * POSITIONS[:-1]).tolist(), time_from_start=duration)
            ],
        )
        for scale in (0.4, 0.8, 0.6)
    ]
    goal = Goal(type=Goal.TYPE_EMBEDDING, embedding=array("f", np.zeros(np.prod(LATENT))))
    measured = dict(zip((*arm, gripper), POSITIONS.tolist(), strict=True))
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(client.rank, plans, goal, measured=measured, seed=0)
        asker.rig.spin_until(asked.done)
    reply = asked.result()
    scores = np.array(reply.scores)
    assert np.isfinite(scores).all()
    assert list(reply.ranking) == np.argsort(-scores, kind="stable").tolist()
    alone = asker.ask(rank_plans(plans[1:2], client.info(), goal, measured=measured, seed=0))
    np.testing.assert_allclose(alone.scores, scores[1:2], rtol=1e-5)

    few = RefineConfig(num_samples=4, iterations=1, num_elites=2)
    with ThreadPoolExecutor(1) as threads:
        refining = threads.submit(client.refine, plans, goal, measured=measured, config=few)
        asker.rig.spin_until(refining.done)
    found = refining.result()
    assert found.cost <= -scores.max() * (1 + 1e-5)
    better = to_trajectory(found.plan, client.spec())
    assert list(better.joint_names) == [*arm, gripper]
    assert all(point.positions[-1] == pytest.approx(POSITIONS[-1]) for point in better.points)


def test_the_best_of_plans_without_scores_is_none(asker: Asker) -> None:
    """Whoever carries out the first of `ranking` must not be given the first of the request."""
    client = WorldModelClient(asker.rig.robot)
    asker.rig.spin_until(client._informed.is_set)
    duration = Duration(nanosec=STEP_NS)
    plan = JointTrajectory(
        joint_names=client.info().action_names,
        points=[JointTrajectoryPoint(positions=POSITIONS.tolist(), time_from_start=duration)],
    )
    with ThreadPoolExecutor(1) as threads:
        for deadline, line in ((0.0, "expected scores, found none; set a goal"), (1e-9, "nothing evaluated")):
            asked = threads.submit(partial(client.rank, [plan, plan], deadline=deadline))
            asker.rig.spin_until(asked.done)
            with pytest.raises(WorldModelError, match=line):
                asked.result()


def test_no_futures_is_a_sound_wish(asker: Asker) -> None:
    reply = asker.ask(request(top_k=0))
    assert (reply.status, len(reply.ranking), len(reply.futures)) == (Reply.STATUS_OK, 3, 0)


def test_before_the_first_observation(rig: Rig) -> None:
    reply = Asker(rig).ask(request())
    assert reply.status == Reply.STATUS_STALE_OBSERVATION
    assert "found none yet" in reply.message


def test_after_the_camera_has_stopped(make_rig: MakeRig) -> None:
    rig = make_rig(max_observation_age_s=1.0)
    rig.activate()
    rig.serve()
    rig.spin_for(1.1)
    reply = Asker(rig).ask(request())
    assert reply.status == Reply.STATUS_STALE_OBSERVATION
    assert "expected an age of at most 1 s" in reply.message


def test_the_deadline_brings_the_best_so_far(asker: Asker) -> None:
    """Time for a few batches of the 32 that it would take, on however slow a machine."""
    goal = Goal(type=Goal.TYPE_IMAGE, image=image(1))
    asker.ask(request(8, 40, goal=goal))
    one_batch = asker.ask(request(8, 40, goal=goal))
    allowed_s = 6 * to_ns(one_batch.total_latency) / 1e9
    asker.rig.serve()
    reply = asker.ask(request(256, 40, goal=goal, deadline=to_duration(allowed_s)))
    assert reply.status == Reply.STATUS_PARTIAL
    assert "deadline" in reply.message
    assert to_ns(reply.total_latency) / 1e9 < allowed_s + to_ns(one_batch.total_latency) / 1e9
    done = np.array(reply.evaluated)
    assert 0 < done.sum() < 256
    assert len(reply.ranking) == done.sum()
    np.testing.assert_array_equal(np.isfinite(reply.scores), done)
    assert len(reply.futures) == 1


def watch_openings(monkeypatch: pytest.MonkeyPatch, events: list[str], seconds: float = 0.0) -> None:
    """Every graph for candidates that is opened from now on is an event, and takes so long."""
    open_session = OrtBackend._open_session

    def watched(backend: OrtBackend, path: Path) -> Any:
        if path.stem.endswith("_x8"):
            events.append("graph")
            time.sleep(seconds)
        return open_session(backend, path)

    monkeypatch.setattr(OrtBackend, "_open_session", watched)


def test_the_first_question_keeps_its_deadline_while_its_graphs_are_opened(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three graphs of two seconds each: there is time for one, and the next question goes on from there."""
    events: list[str] = []
    watch_openings(monkeypatch, events, 2.0)
    reply = asker.ask(request(deadline=to_duration(2.5)))
    assert (reply.status, events) == (Reply.STATUS_PARTIAL, ["graph"])
    assert asker.ask(request()).status == Reply.STATUS_OK
    assert events == ["graph"] * 3


def test_pictures_are_served_while_the_first_question_opens_its_graphs(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    watch_openings(monkeypatch, events, 1.0)
    monkeypatch.setattr(WorldModel, "predict", recorded(WorldModel.predict, events, "picture"))
    question = asker.service.call_async(request())
    asker.rig.spin_until(lambda: "graph" in events)
    asker.rig.serve()
    assert asker.result(question).status == Reply.STATUS_OK
    assert events.index("picture") < 3


def test_graphs_that_configure_has_opened_wait_for_questions(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    watch_openings(monkeypatch, events)
    rig = make_rig(prepare_candidates=True)
    rig.activate()
    assert events == ["graph"] * 3
    rig.serve()
    assert Asker(rig).ask(request()).status == Reply.STATUS_OK
    assert len(events) == 3


def test_the_deadline_holds_for_the_frames_of_the_first_reply_too(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight futures of ten frames would take four seconds to decode; there is time for some."""
    decode = OrtBackend.decode

    def slowly(backend: OrtBackend, latents: Any) -> Any:
        time.sleep(0.05 * len(latents))
        return decode(backend, latents)

    monkeypatch.setattr(OrtBackend, "decode", slowly)
    rig = make_rig(prepare_candidates=True)
    rig.activate()
    assert rig.node._configured()._evaluator._frame_s >= 0.05
    rig.serve()
    asker, all_frames = Asker(rig), EvaluateActions.Request.FRAMES_ALL
    reply = asker.ask(request(8, frames=all_frames, top_k=8, deadline=to_duration(2.0)))
    assert reply.status == Reply.STATUS_PARTIAL
    assert "before all frames were decoded" in reply.message
    assert to_ns(reply.total_latency) / 1e9 < 2.5
    assert all(reply.evaluated)
    assert 0 < len(reply.futures) < 8


def test_a_decoding_that_took_long_once_is_forgotten(asker: Asker) -> None:
    asker.rig.node._configured()._evaluator._frame_s = 10.0
    last = EvaluateActions.Request.FRAMES_LAST
    replies = [asker.ask(request(frames=last, top_k=1, deadline=to_duration(3.0))) for _ in range(4)]
    assert (replies[0].status, len(replies[0].futures)) == (Reply.STATUS_PARTIAL, 0)
    assert (replies[-1].status, len(replies[-1].futures)) == (Reply.STATUS_OK, 1)


@pytest.mark.parametrize("count", [200, 8], ids=["amid the candidates", "before the frames"])
def test_a_deadline_that_passes_while_pictures_come_first_is_answered_at_once(
    asker: Asker, count: int
) -> None:
    """Without frames; how long they take to decode is not doubted."""
    asker.ask(request())  # the graphs are open
    session, stamp_ns = asker.rig.node._configured(), asker.rig.now_ns()
    assert asker.rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    model, evaluator = session._model, session._evaluator  # are the test's from here on
    observe(model, stamp_ns)
    match = Match(Frame(stamp_ns, "camera", np.zeros((48, 64, 3), np.uint8), 0.0, 0.0), POSITIONS, 0)
    asked = request(count, deadline=to_duration(3.0), frames=EvaluateActions.Request.FRAMES_LAST)
    query = read_query(asked, model.manifest, session.config, stamp_ns)
    replies, progress, frame_s = list[Any](), list[Progress](), evaluator._frame_s
    pieces = evaluator.answer(Ticket(query, replies.append, progress.append), match, session.config)
    while not progress:
        next(pieces)
    assert query.deadline_s
    time.sleep(max(query.deadline_s - time.monotonic(), 0.0))
    assert list(pieces) == []
    (reply,) = replies
    assert (reply.status, reply.futures) == (Status.PARTIAL, ())
    assert reply.answer.evaluated.sum() == 8
    assert evaluator._frame_s == frame_s


def test_a_deadline_that_passes_in_the_queue_is_kept_too(asker: Asker) -> None:
    long = asker.service.call_async(long_request())
    reply = asker.ask(request(deadline=to_duration(0.3)))
    assert not long.done()
    assert reply.status == Reply.STATUS_PARTIAL
    assert "while other questions or a live prediction came first" in reply.message
    assert reply.evaluated == [False] * 3
    assert reply.flags.tolist() == [0] * 3
    assert np.isnan(reply.scores).all()


class Beside:
    """Questions and pictures for a worker whose live predictions take half a second a chunk, at least three of them."""

    def __init__(self, asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rig = asker.rig
        self.events: list[str] = []
        self.replies: Queue[Any] = Queue()
        self.at_end: Callable[[], Any] = lambda: None

        def slowly(*args: Any) -> Iterator[Any]:
            for chunk in roll_out(*args):
                self.events.append("live chunk")
                time.sleep(0.5)
                yield chunk
            self.events.append("live end")
            self.at_end()

        monkeypatch.setattr("astra_ros.rollout.world_model.roll_out", slowly)

    @property
    def worker(self) -> Worker:
        worker = self.rig.node._configured()._worker
        assert worker
        return worker

    def show_a_picture(self) -> int:
        """Its stamp."""
        stamp_ns = self.rig.now_ns()
        self.worker.add_measured(stamp_ns, POSITIONS)
        self.worker.add_frame(
            Frame(stamp_ns, "camera", np.zeros((48, 64, 3), np.uint8), time.monotonic(), 0.0)
        )
        return stamp_ns

    def ask(self, asked: EvaluateActions.Request, **fields: Any) -> Ticket:
        session = self.rig.node._configured()
        query = read_query(asked, session._model.manifest, session.config, self.rig.now_ns())
        ticket = Ticket(query, self._on_reply, **fields)
        self.worker.ask(ticket)
        return ticket

    def reply_to(self, ticket: Ticket) -> Any:
        """And how late it is."""
        reply, came_s = self.replies.get(timeout=TIMEOUT_S)
        assert ticket.query.deadline_s
        return reply, came_s - ticket.query.deadline_s

    def _on_reply(self, reply: Any) -> None:
        self.events.append("reply")
        self.replies.put((reply, time.monotonic()))


@pytest.fixture
def beside(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> Beside:
    asker.ask(request())  # the graphs are open
    return Beside(asker, monkeypatch)


def test_a_question_that_comes_during_a_live_prediction_has_its_reply_in_time(beside: Beside) -> None:
    beside.show_a_picture()
    beside.rig.spin_until(lambda: "live chunk" in beside.events)
    reply, late_s = beside.reply_to(beside.ask(request(deadline=to_duration(0.3))))
    assert "live end" not in beside.events
    assert late_s < 1.0  # a chunk of the live prediction
    assert reply.status is Status.PARTIAL
    assert "a live prediction came first" in reply.message
    assert not reply.answer.evaluated.any()


def test_a_live_prediction_that_outlasts_a_deadline_leaves_the_best_so_far(beside: Beside) -> None:
    """That it would last so long was not known."""
    asked = long_request(deadline=to_duration(0.6), frames=EvaluateActions.Request.FRAMES_LAST)
    ticket = beside.ask(asked, report=lambda _progress: beside.events or beside.show_a_picture())
    reply, late_s = beside.reply_to(ticket)
    assert "live chunk" in beside.events
    assert "live end" not in beside.events
    assert late_s < 1.0
    assert (reply.status, "during a live prediction" in reply.message) == (Status.PARTIAL, True)
    assert 0 < reply.answer.evaluated.sum() < 200


def test_a_question_begins_from_a_picture_that_came_during_a_live_prediction(beside: Beside) -> None:
    """That took longer than a picture may be old; the new one is predicted from afterwards."""
    stamps_ns: list[int] = []

    def show_one_more() -> None:
        if len(stamps_ns) == 1:
            stamps_ns.append(beside.show_a_picture())

    beside.at_end = show_one_more
    beside.rig.node.set_parameters([Parameter("max_observation_age_s", value=1.0)])
    stamps_ns.append(beside.show_a_picture())
    beside.rig.spin_until(lambda: "live chunk" in beside.events)
    beside.ask(request())
    reply, _ = beside.replies.get(timeout=TIMEOUT_S)
    assert (reply.status, reply.message) == (Status.OK, "")
    assert reply.observation_ns == stamps_ns[1]
    beside.rig.spin_until(lambda: beside.events.count("live end") == 2)
    assert beside.rig.future_at(stamps_ns[1])
    assert beside.rig.drops() == {}


def test_a_live_prediction_that_does_not_fit_before_a_deadline_comes_after_it(beside: Beside) -> None:
    beside.show_a_picture()
    beside.rig.spin_until(lambda: beside.worker._live.took_s > 1)
    beside.events.clear()
    shown: list[int] = []

    def show_once(_progress: Any) -> None:
        if not shown:
            shown.append(1)
            beside.show_a_picture()

    ticket = beside.ask(long_request(deadline=to_duration(1.0)), report=show_once)
    reply, late_s = beside.reply_to(ticket)
    assert late_s < 0.3
    assert (reply.status, "live" in reply.message) == (Status.PARTIAL, False)
    assert shown
    beside.rig.spin_until(lambda: "live end" in beside.events)
    assert beside.events[0] == "reply"


def test_all_else_is_served_while_a_question_is_answered(asker: Asker) -> None:
    """The live stream, parameters, and a second client, whose question waits for its turn."""
    rig = asker.rig
    long = asker.service.call_async(long_request())
    second = asker.service.call_async(request())
    parameters = rig.robot.create_client(GetParameters, "world_model/get_parameters")
    for seed in range(5):
        rig.serve(seed=seed)
        asker.result(parameters.call_async(GetParameters.Request(names=["seed"])))
    assert not long.done()
    assert not second.done()
    assert asker.result(long).status == Reply.STATUS_OK
    assert asker.result(second).status == Reply.STATUS_OK


def test_a_picture_waits_for_no_more_than_one_chunk_of_a_question(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the live stream keeps its rate, however long the question is."""
    events: list[str] = []
    for owner, method, name in (
        (Worker, "add_frame", "input"),
        (Worker, "add_measured", "input"),
        (Tickets, "advance", "chunk"),
        (WorldModel, "predict", "picture"),
    ):
        monkeypatch.setattr(owner, method, recorded(getattr(owner, method), events, name))
    long = asker.service.call_async(long_request())
    asker.rig.spin_until(lambda: "chunk" in events)
    for seed in range(8):
        asker.rig.serve(seed=seed)
    assert not long.done()
    before_pictures = " ".join(events).split("picture")[:-1]
    assert len(before_pictures) == 8
    assert max(before.split("input")[-1].count("chunk") for before in before_pictures) <= 1
    assert events.count("chunk") >= 8


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("FRAMES_NONE", ["scores", "future", "reply", "picture"]),
        ("FRAMES_LAST", ["scores", "picture", "future", "reply", "picture"]),
    ],
)
def test_a_finished_reply_does_not_wait_for_pictures(
    asker: Asker, monkeypatch: pytest.MonkeyPatch, frames: str, expected: list[str]
) -> None:
    """One comes when the scores are made, and when a future is."""
    session, events = asker.rig.node._configured(), list[str]()
    worker = session._worker
    assert worker

    def followed(method: Callable[..., Any], name: str) -> Callable[..., Any]:
        def follow(*args: Any) -> Any:
            found = method(*args)
            events.append(name)
            stamp_ns = asker.rig.now_ns()
            pixels = np.zeros((48, 64, 3), np.uint8)
            worker.add_measured(stamp_ns, POSITIONS)
            worker.add_frame(Frame(stamp_ns, "camera", pixels, time.monotonic(), 0.0))
            return found

        return follow

    monkeypatch.setattr(Evaluation, "_record", followed(Evaluation._record, "scores"))
    monkeypatch.setattr(Evaluator, "_message", followed(Evaluator._message, "future"))
    monkeypatch.setattr(WorldModel, "predict", recorded(WorldModel.predict, events, "picture"))
    asked = request(frames=getattr(EvaluateActions.Request, frames))
    query = read_query(asked, session._model.manifest, session.config, asker.rig.now_ns())
    worker.ask(Ticket(query, lambda _reply: events.append("reply")))
    asker.rig.spin_until(lambda: len(events) >= len(expected))
    assert events == expected


def recorded(method: Callable[..., Any], events: list[str], name: str) -> Callable[..., Any]:
    def record(*args: Any) -> Any:
        events.append(name)
        return method(*args)

    return record


def test_the_action_reports_and_succeeds(asker: Asker) -> None:
    goal = Goal(type=Goal.TYPE_IMAGE, image=image(1))
    handle = asker.start(request(20, goal=goal))
    reply = asker.result(handle.get_result_async())
    assert reply.status == GoalStatus.STATUS_SUCCEEDED
    expected = asker.ask(request(20, goal=goal))
    assert reply.result.ranking.tolist() == expected.ranking.tolist()
    assert [one.candidates_done for one in asker.feedback] == [8, 16, 20]
    assert {one.candidates_total for one in asker.feedback} == {20}
    assert asker.feedback[-1].best_index == expected.ranking[0]
    assert asker.feedback[-1].best_score == expected.scores[expected.ranking[0]]


def test_a_cancelled_goal_has_the_best_so_far(asker: Asker) -> None:
    handle = asker.start(long_request())
    asker.rig.spin_until(lambda: asker.feedback)
    asker.result(handle.cancel_goal_async())
    reply = asker.result(handle.get_result_async())
    assert reply.status == GoalStatus.STATUS_CANCELED
    assert (reply.result.status, reply.result.message) == (Reply.STATUS_PARTIAL, "cancelled by the client")
    assert 8 <= sum(reply.result.evaluated) < 200


def test_what_is_cancelled_while_its_frames_are_decoded_has_those_of_the_best(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_go_on = Event(), Event()
    make_message = Evaluator._message

    def patiently(*args: Any) -> PredictedFuture:
        has_begun.set()
        assert may_go_on.wait(TIMEOUT_S)
        return make_message(*args)

    monkeypatch.setattr(Evaluator, "_message", patiently)
    handle = asker.start(request(8, frames=EvaluateActions.Request.FRAMES_LAST, top_k=8))
    asker.rig.spin_until(has_begun.is_set)
    asker.result(handle.cancel_goal_async())
    may_go_on.set()
    reply = asker.result(handle.get_result_async())
    assert reply.status == GoalStatus.STATUS_CANCELED
    assert (reply.result.status, reply.result.message) == (Reply.STATUS_PARTIAL, "cancelled by the client")
    assert len(reply.result.futures) == 1


def test_the_first_reason_to_end_stays() -> None:
    ticket = Ticket(cast("Query", None), lambda _reply: None)
    ticket.end_early(Status.STALE_OBSERVATION, "forgotten")
    ticket.end_early(Status.PARTIAL, "preempted")
    assert ticket.ending == (Status.STALE_OBSERVATION, "forgotten")


def test_a_newer_question_takes_the_place_of_those_that_wait() -> None:
    """By the policy to preempt: the one under way ends with the best so far, the others are told that they never began."""
    replies: dict[str, list[TicketReply]] = {name: [] for name in ("first", "second", "third")}
    query = Query(
        (), None, 0, 0, compressed=False, denoising_steps=0, seed=0, received_s=0.0, deadline_s=None
    )
    asked = {name: Ticket(query, said.append) for name, said in replies.items()}

    def answer(ticket: Ticket) -> Iterator[None]:
        yield
        assert ticket.ending is not None
        ticket.reply(TicketReply(*ticket.ending))

    tickets = Tickets(answer)
    tickets.submit(asked["first"], "preempt")
    tickets.advance()
    tickets.submit(asked["second"], "queue")
    tickets.submit(asked["third"], "preempt")
    (superseded,) = replies["second"]
    assert (superseded.status, "newer question" in superseded.message) == (Status.BUSY, True)
    tickets.advance()
    (ended,) = replies["first"]
    assert (ended.status, "newer question" in ended.message) == (Status.PARTIAL, True)
    assert not replies["third"]
    assert tickets


def test_what_waits_can_be_cancelled_too(asker: Asker) -> None:
    first, second = asker.start(long_request()), asker.start(long_request())
    asker.result(second.cancel_goal_async())
    assert asker.result(second.get_result_async()).status == GoalStatus.STATUS_CANCELED
    asker.result(first.cancel_goal_async())
    assert asker.result(first.get_result_async()).status == GoalStatus.STATUS_CANCELED


def test_a_wrong_goal_is_aborted_and_says_why(asker: Asker) -> None:
    reply = asker.result(asker.start(request(seed=-2)).get_result_async())
    assert reply.status == GoalStatus.STATUS_ABORTED
    assert "seed" in reply.result.message


def test_busy_is_said_when_the_policy_is_to_reject(asker: Asker) -> None:
    asker.rig.node.set_parameters([Parameter("preemption", value="reject")])
    long = asker.start(long_request())
    reply = asker.ask(request())
    assert reply.status == Reply.STATUS_BUSY
    assert "preemption" in reply.message
    asker.result(long.cancel_goal_async())
    asker.result(long.get_result_async())
    assert asker.ask(request()).status == Reply.STATUS_OK


def test_a_newer_question_ends_the_older_when_the_policy_is_to_preempt(asker: Asker) -> None:
    asker.rig.node.set_parameters([Parameter("preemption", value="preempt")])
    handle = asker.start(long_request())
    asker.rig.spin_until(lambda: asker.feedback)
    assert asker.ask(request()).status == Reply.STATUS_OK
    older = asker.result(handle.get_result_async()).result
    assert older.status == Reply.STATUS_PARTIAL
    assert "newer question" in older.message
    assert sum(older.evaluated)


def test_the_queue_is_bounded(asker: Asker) -> None:
    handle = asker.start(long_request())
    asker.rig.spin_until(lambda: asker.feedback)  # it has left the queue
    waiting = [asker.service.call_async(request(1)) for _ in range(9)]
    asker.rig.spin_until(lambda: sum(one.done() for one in waiting))
    (refused,) = (one.result() for one in waiting if one.done())
    assert refused.status == Reply.STATUS_BUSY
    asker.result(handle.cancel_goal_async())
    assert [asker.result(one).status for one in waiting].count(Reply.STATUS_OK) == 8


def test_a_client_that_vanishes_leaves_nothing_behind(asker: Asker) -> None:
    rig = asker.rig
    leaver = rclpy.create_node("leaver")
    client = leaver.create_client(EvaluateActions, f"{rig.node_name}/evaluate_actions")
    action = ActionClient(leaver, PredictFutures, f"{rig.node_name}/predict_futures")
    rig.spin_until(lambda: client.service_is_ready() and action.server_is_ready())
    client.call_async(request(32, 100))
    action.send_goal_async(PredictFutures.Goal(candidates=candidates(8)))
    rig.spin_until(lambda: open_questions(rig))
    action.destroy()
    leaver.destroy_node()
    assert asker.ask(request()).status == Reply.STATUS_OK
    rig.spin_until(lambda: not open_questions(rig))


def test_reset_ends_the_question(asker: Asker) -> None:
    reset = asker.rig.robot.create_client(Trigger, "world_model/reset")
    long = asker.service.call_async(long_request())
    asker.rig.spin_until(lambda: open_questions(asker.rig))
    asker.result(reset.call_async(Trigger.Request()))
    reply = asker.result(long)
    assert reply.status == Reply.STATUS_STALE_OBSERVATION
    assert asker.ask(request()).status == Reply.STATUS_STALE_OBSERVATION
    asker.rig.serve()
    assert asker.ask(request()).status == Reply.STATUS_OK


def test_a_question_that_begins_while_the_history_is_forgotten_does_not_use_it(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = asker.rig.node._configured()
    worker = session._worker
    assert worker
    query = read_query(request(), session._model.manifest, session.config, asker.rig.now_ns())
    replies: Queue[Any] = Queue()
    statuses: list[int] = []

    def ask(*_: object) -> None:
        worker.ask(Ticket(query, replies.put))
        statuses.append(replies.get(timeout=TIMEOUT_S).status)

    monkeypatch.setattr(Tickets, "end_current", ask)
    worker.forget()
    assert statuses == [Reply.STATUS_STALE_OBSERVATION]


def test_deactivation_answers_whoever_waits(asker: Asker) -> None:
    questions = [asker.service.call_async(long_request()) for _ in range(2)]
    handle = asker.start(long_request())
    asker.rig.spin_until(lambda: asker.feedback or open_questions(asker.rig))
    assert asker.rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    replies = [asker.result(one) for one in questions]
    assert {reply.status for reply in replies} == {Reply.STATUS_NOT_ACTIVE}
    assert asker.result(handle.get_result_async()).status == GoalStatus.STATUS_ABORTED
    assert asker.ask(request()).message == _NOT_ACTIVE


def test_shutdown_answers_whoever_waits_and_then_frees_everything(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[bool] = []
    question, handle = asker.service.call_async(long_request()), asker.start(long_request())
    result, rig = handle.get_result_async(), asker.rig
    rig.spin_until(lambda: open_questions(rig))
    rig.spin_for(0.3)
    monkeypatch.setattr(WorldModel, "close", lambda _model: closed.append(True))
    assert rig.node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    assert asker.result(question).status == Reply.STATUS_NOT_ACTIVE
    assert asker.result(result).status == GoalStatus.STATUS_ABORTED
    rig.spin_until(lambda: closed)


def test_a_result_is_sent_in_the_step_that_ends_its_goal(
    asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not later: a lifecycle manager sends cleanup as soon as deactivate has answered."""
    rig, server, sent = asker.rig, services._PatientActionServer, list[bool]()
    send, execute = server._send_result_response, server._execute_goal

    def note(*arguments: Any) -> None:
        send(*arguments)
        sent.append(True)

    async def end(*arguments: Any) -> None:
        await execute(*arguments)
        ended.append(bool(sent))

    ended = list[bool]()
    monkeypatch.setattr(server, "_send_result_response", note)
    monkeypatch.setattr(server, "_execute_goal", end)
    result = asker.start(long_request()).get_result_async()
    waiting = rig.node._configured()._services._predict_futures._result_futures
    rig.spin_until(lambda: any(future._callbacks for future in waiting.values()))
    assert rig.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert asker.result(result).status == GoalStatus.STATUS_ABORTED
    assert ended == [True]


def test_a_goal_distance_that_fails_costs_one_question(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.activate()
    rig.serve()
    asker, session = Asker(rig), rig.node._configured()
    rig.node.trigger_deactivate()
    session._evaluator._distance_to = lambda _goal: lambda futures: futures[0]
    rig.node.trigger_activate()
    rig.serve()
    reply = asker.ask(request(goal=Goal(type=Goal.TYPE_IMAGE, image=image(1))))
    assert reply.status == Reply.STATUS_ERROR
    assert "mend the plug-in" in reply.message
    assert asker.ask(request()).status == Reply.STATUS_OK


def test_an_unknown_goal_distance_fails_the_configuration(make_rig: MakeRig) -> None:
    rig = make_rig(goal_distance="lpips")
    assert rig.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "expected one of codec, perceptual, found 'lpips'" in rig.spin_until(lambda: rig.warnings)[0]


def test_what_compares_pictures_has_as_many_threads_as_the_network(
    make_rig: MakeRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder that knows a picture's mean colour."""
    sides = [make_tensor_value_info(*one) for one in (("pixels", 1, (1, 3, 48, 64)), ("features", 1, (1, 3)))]
    nodes = [
        make_node("GlobalAveragePool", ["pixels"], ["mean"]),
        make_node("Flatten", ["mean"], ["features"]),
    ]
    model = make_model(
        make_graph(nodes, "encoder", sides[:1], sides[1:]), opset_imports=[make_opsetid("", 18)], ir_version=9
    )
    file = tmp_path / "encoder.onnx"
    file.write_bytes(model.SerializeToString())
    num_threads, open_session = {}, onnxruntime.InferenceSession

    def watched(
        path: Path, options: onnxruntime.SessionOptions, **others: Any
    ) -> onnxruntime.InferenceSession:
        num_threads[Path(path).name] = options.intra_op_num_threads
        return open_session(path, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    rig = make_rig(goal_distance="perceptual", goal_encoder=str(file), num_threads=3)
    assert rig.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert num_threads["encoder.onnx"] == num_threads["encode.onnx"] == 3


def test_model_info_says_how_many_go_together(rig: Rig) -> None:
    assert rig.spin_until(lambda: rig.infos)[0].max_batch == 8
