"""Counters, problems and what is logged about them."""

from __future__ import annotations

import threading
import time

import pytest

from astra_ros.ros import health as health_module
from astra_ros.ros.health import Health, Timing
from astra_ros.ros.refusal import Drop, Refusal


class Recorder:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changes = 0
        self.health = Health(lambda problem: self.lines.append(problem.line), self._count)

    def _count(self) -> None:
        self.changes += 1


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def test_a_problem_is_logged_once_counted_always_and_over_with_a_good_input(recorder: Recorder) -> None:
    health = recorder.health
    for k in range(5):
        health.refuse("image", Refusal(Drop.BAD_IMAGE, f"line {k}"))
    assert recorder.lines == ["line 0"]
    assert recorder.changes == 1
    snapshot = health.snapshot()
    assert snapshot.problem is not None
    assert snapshot.problem.line == "line 4"
    assert snapshot.values["drops.bad_image"] == "5"
    health.accept("image")
    assert health.snapshot().problem is None
    assert recorder.changes == 2


def test_a_problem_that_stays_is_logged_again_after_a_while(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "LOG_PERIOD_S", 0.0)
    for k in range(2):
        recorder.health.report("image", "silent", f"line {k}")
    assert recorder.lines == ["line 0", "line 1"]


def test_a_flickering_problem_does_not_flood_the_log(recorder: Recorder) -> None:
    for _ in range(20):
        recorder.health.report("image", "cause", "line")
        recorder.health.accept("image")
    assert recorder.lines == ["line"]


def test_a_consequence_stays_silent_while_its_reason_is_there(recorder: Recorder) -> None:
    health = recorder.health
    health.refuse("joint_states", Refusal(Drop.BAD_JOINT_STATE, "reason"))
    health.refuse("sync", Refusal(Drop.NO_JOINT_STATE, "consequence"), consequence_of="joint_states")
    assert recorder.lines == ["reason"]
    assert health.snapshot().values["drops.no_joint_state"] == "1"
    health.accept("joint_states")
    health.refuse("sync", Refusal(Drop.NO_JOINT_STATE, "consequence"), consequence_of="joint_states")
    assert recorder.lines == ["reason", "consequence"]


def test_other_joints_are_a_problem_only_while_those_of_the_model_are_missing(recorder: Recorder) -> None:
    health, other = recorder.health, Refusal(Drop.OTHER_JOINTS, "a gripper's")
    health.refuse("joint_states", other)
    assert recorder.lines == ["a gripper's"]
    for _ in range(3):
        health.accept("joint_states")
        health.refuse("joint_states", other)
        assert not health.has_problem("joint_states")
    assert health.snapshot().values["drops.other_joints"] == "4"
    assert recorder.changes == 2


def test_what_was_wrong_with_predictions_is_over_when_nobody_takes_them(recorder: Recorder) -> None:
    health = recorder.health
    health.report("prediction", "failed", "line", is_error=True)
    health.report("image", "silent", "other line")
    health.unwatched()
    assert health.snapshot().values["predicting_for"] == "nobody"
    assert not health.has_problem("prediction")
    assert health.has_problem("image")


def test_errors_outrank_warnings_and_the_latest_its_equals(recorder: Recorder) -> None:
    health = recorder.health
    health.report("prediction", "failed", "error", is_error=True)
    health.report("image", "silent", "older")
    health.report("sync", "none", "newer")
    assert health.snapshot().problem is not None
    assert [problem.line for problem in (health.snapshot().problem,) if problem] == ["error"]
    health.resolve("prediction")
    assert [problem.line for problem in (health.snapshot().problem,) if problem] == ["newer"]


def test_a_problem_expires_when_it_is_not_met_again(recorder: Recorder) -> None:
    recorder.health.report("action_sequence", "bad", "line")
    recorder.health.expire("action_sequence", age_s=60.0)
    assert recorder.health.has_problem("action_sequence")
    recorder.health.expire("action_sequence", age_s=-1.0)
    assert not recorder.health.has_problem("action_sequence")


def test_a_problem_that_stands_is_over_with_a_good_input_only(recorder: Recorder) -> None:
    health = recorder.health
    health.report("goal", "incompatible_qos", "nothing arrives", is_standing=True)
    health.refuse("goal", Refusal(Drop.BAD_GOAL, "no picture"))
    assert [one.line for one in (health.snapshot().problem,) if one] == ["no picture"]
    health.expire("goal", age_s=-1.0)
    health.resolve("goal")
    health.resolve_all(keep_standing=True)
    assert [one.line for one in (health.snapshot().problem,) if one] == ["nothing arrives"]
    health.accept("goal")
    assert health.snapshot().problem is None
    health.report("goal", "incompatible_qos", "nothing arrives", is_standing=True)
    health.resolve_all()
    assert not health.has_problem("goal")


def test_values_tell_rates_and_percentiles(recorder: Recorder) -> None:
    health = recorder.health
    assert health.snapshot().values["latency_p50_ms"] == ""
    assert health.snapshot().values["predicting_for"] == "nothing yet"
    for latency in (0.1, 0.2, 0.3):
        timing = Timing(
            observation_age=0.05, preprocess=0.01, inference=0.08, latency=latency, joint_skew=0.002
        )
        health.served(timing)
        health.accept("image")
    values = health.snapshot().values
    assert values["predictions"] == "3"
    assert values["predicting_for"] == "plan"
    assert (values["latency_p50_ms"], values["latency_p95_ms"]) == ("200.0", "290.0")
    assert values["joint_skew_p95_ms"] == "2.0"
    assert values["image.received"] == "3"
    assert float(values["image.rate_hz"]) > 0
    assert health.silence_s("image") < 60
    assert health.silence_s("joint_states") == float("inf")


def test_many_threads_may_write(recorder: Recorder) -> None:
    def write() -> None:
        for _ in range(500):
            recorder.health.count(Drop.SUPERSEDED)
            recorder.health.accept("image")

    threads = [threading.Thread(target=write) for _ in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values = recorder.health.snapshot().values
    assert (values["drops.superseded"], values["image.received"]) == ("2000", "2000")
    assert time.monotonic() - started < 60
