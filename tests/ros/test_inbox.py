"""What callbacks leave and the worker takes: order, patience and forgetting. Pictures and joint states alone, no node."""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Timer

import numpy as np
import pytest

from astra_ros.actions.spec import ActionSpec
from astra_ros.ros.inbox import Frame, Inbox
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import Plan
from astra_ros.ros.refusal import Refusal
from astra_ros.types import FloatArray

MS = 1_000_000
HERE: FloatArray = np.array([0.5], np.float32)
SPEC = ActionSpec(
    "one", "arm", "joint_position", ("a",), ("m",), 0.2, (0.0,), (1.0,), (1.0,), (-1.0,), (1.0,)
)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(SPEC, NodeConfig(sync_slop_s=0.2))


def frame(stamp_ns: int) -> Frame:
    return Frame(stamp_ns, "camera", np.zeros((2, 2, 3), np.uint8), time.monotonic(), 0.0)


def stamps(inbox: Inbox) -> list[int]:
    return [one.stamp_ns for one in inbox.take().frames]


def test_a_picture_waits_for_the_joint_state_after_it(inbox: Inbox) -> None:
    inbox.add_measured(80 * MS, HERE)
    inbox.add_frame(frame(100 * MS))
    assert stamps(inbox) == []
    inbox.add_measured(120 * MS, HERE + 1)
    assert inbox.wait(lambda: False)
    assert stamps(inbox) == [100 * MS]
    found = inbox.measured_at(100 * MS)
    assert found is not None
    np.testing.assert_allclose(found[0], HERE + 0.5)
    assert found[1] == 20 * MS


def test_it_does_not_wait_longer_than_the_slop(inbox: Inbox) -> None:
    inbox.add_frame(frame(100 * MS))
    began_s = time.monotonic()
    assert inbox.wait(lambda: False)
    assert 0.1 < time.monotonic() - began_s < 5
    assert stamps(inbox) == [100 * MS]
    with pytest.raises(Refusal, match="joint"):
        inbox.measured_at(100 * MS)


def test_other_work_and_the_end_are_not_waited_past(inbox: Inbox) -> None:
    assert inbox.wait(lambda: True)
    work: list[int] = []

    def find_work() -> None:
        work.append(1)
        inbox.wake()

    Timer(0.05, find_work).start()
    assert inbox.wait(lambda: bool(work))
    Timer(0.05, inbox.stop).start()
    assert not inbox.wait(lambda: False)
    assert inbox.is_stopping


def test_pictures_come_in_order_and_too_many_lose_the_oldest(inbox: Inbox) -> None:
    kept = [inbox.add_frame(frame(number * MS)) for number in range(1, 67)]
    assert kept == [True] * 64 + [False] * 2
    inbox.add_measured(100 * MS, HERE)
    assert stamps(inbox) == [number * MS for number in range(3, 67)]


def test_forgetting_leaves_nothing_and_is_told_once(inbox: Inbox) -> None:
    inbox.add_measured(200 * MS, HERE)
    inbox.add_frame(frame(100 * MS))
    plan_ns = time.monotonic_ns()
    assert inbox.plan_at(100 * MS, plan_ns)[0] is None
    inbox.set_plan(Plan((1,) * 16, 0, 200 * MS, np.zeros((4, 1), np.float32), plan_ns))
    assert inbox.plan_at(100 * MS, plan_ns)[0] is not None
    inbox.forget()
    assert inbox.must_forget
    assert inbox.measured_at(100 * MS) is None
    assert inbox.plan_at(100 * MS, plan_ns)[0] is None
    taken = inbox.take()
    assert (taken.frames, taken.must_forget) == ([], True)
    assert (inbox.take().must_forget, inbox.must_forget) == (False, False)
    with pytest.raises(Refusal):
        inbox.measured_at(100 * MS)


def test_the_configuration_is_the_newest(inbox: Inbox) -> None:
    inbox.configure(replace(inbox.config, sync_slop_s=0.0))
    inbox.add_frame(frame(100 * MS))
    assert stamps(inbox) == [100 * MS]


def test_a_picture_that_waits_for_a_busy_worker_keeps_its_joint_states(inbox: Inbox) -> None:
    inbox.add_measured(80 * MS, HERE)
    inbox.add_measured(120 * MS, HERE + 1)
    inbox.add_frame(frame(100 * MS))
    inbox.add_frame(frame(7000 * MS))
    inbox.add_measured(10_000 * MS, HERE)
    assert stamps(inbox) == [100 * MS, 7000 * MS]
    # The worker has it, but has not looked yet.
    inbox.add_measured(20_000 * MS, HERE)
    found = inbox.measured_at(100 * MS)
    assert found is not None
    np.testing.assert_allclose(found[0], HERE + 0.5)
    assert stamps(inbox) == []
    inbox.add_measured(30_000 * MS, HERE)
    with pytest.raises(Refusal, match=r"found the oldest .* s newer"):
        inbox.measured_at(100 * MS)


def test_pictures_that_fill_the_queue_wait_no_longer_so_that_missing_joint_states_are_told() -> None:
    inbox = Inbox(SPEC, NodeConfig(sync_slop_s=10.0))
    for number in range(1, 64):
        assert inbox.add_frame(frame(number * MS))
        assert stamps(inbox) == []
    for number in range(64, 70):
        assert inbox.add_frame(frame(number * MS))
        assert inbox.wait(lambda: False)
        assert stamps(inbox) == [(number - 63) * MS]
    with pytest.raises(Refusal, match="no joint state received"):
        inbox.measured_at(6 * MS)
