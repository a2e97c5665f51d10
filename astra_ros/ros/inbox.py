"""What the callbacks leave for the worker, guarded by one lock: pictures, what the robot did, plans, what else it shall do."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition
from typing import NamedTuple

from astra_ros.actions.spec import ActionSpec
from astra_ros.actions.velocities import VELOCITY_MESSAGES
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.plans import Plan, Schedule
from astra_ros.ros.sync import JointBuffer
from astra_ros.ros.vehicle import VelocityBuffer
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

# More pictures than this come during one prediction only from a camera that is far too fast for the history.
_MAX_WAITING = 64
# Whoever allows pictures of any age does not mean to keep everything for them.
_LONGEST_KEPT_NS = 60 * NANOSECONDS


@dataclass(frozen=True)
class Frame:
    """A picture on its way to the model.

    pixels: (h, w, 3) uint8 RGB at the model's size. received_s: monotonic time of arrival. preprocess_s: decode and fit.
    """

    stamp_ns: int
    frame_id: str
    pixels: ByteArray
    received_s: float
    preprocess_s: float


class Taken(NamedTuple):
    """must_forget: everything that came before these frames."""

    frames: list[Frame]
    must_forget: bool


class Inbox:
    """Callbacks put, the worker takes."""

    def __init__(self, spec: ActionSpec, config: NodeConfig) -> None:
        self._changed = Condition()
        self._config = config
        self._waiting: deque[Frame] = deque()
        self._oldest_taken_ns: int | None = None
        self._measured = _buffer_for(spec, config)
        self._plans = Schedule()
        self._must_forget = False
        self._is_stopping = False

    def stop(self) -> None:
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def wake(self) -> None:
        """Whoever waits looks again whether it has other work."""
        with self._changed:
            self._changed.notify_all()

    def configure(self, config: NodeConfig) -> None:
        with self._changed:
            self._config = config

    def add_frame(self, frame: Frame) -> bool:
        """False when an older one had to go."""
        with self._changed:
            has_room = len(self._waiting) < _MAX_WAITING
            if not has_room:
                self._waiting.popleft()
            self._waiting.append(frame)
            self._changed.notify_all()
        return has_room

    def add_measured(self, stamp_ns: int, measured: FloatArray) -> None:
        """Raises Refusal for a stamp out of order."""
        with self._changed:
            self._measured.push(stamp_ns, measured, self._oldest_age_ns(stamp_ns))
            self._changed.notify_all()

    def set_command(self, command: Plan) -> None:
        """What the robot is told from moment to moment."""
        with self._changed:
            self._plans.set_command(command)

    def set_plan(self, plan: Plan | None) -> None:
        """None: none any more."""
        with self._changed:
            if plan:
                self._plans.set(plan, self._picture_age_ns())
            else:
                self._plans.withdraw()

    def forget(self) -> None:
        """All that is here now; whoever takes next is told to forget the rest."""
        with self._changed:
            self._waiting.clear()
            self._oldest_taken_ns = None
            self._measured.clear()
            self._plans.clear()
            self._must_forget = True

    @property
    def config(self) -> NodeConfig:
        with self._changed:
            return self._config

    @property
    def must_forget(self) -> bool:
        with self._changed:
            return self._must_forget

    @property
    def is_stopping(self) -> bool:
        with self._changed:
            return self._is_stopping

    def wait(self, has_other_work: Callable[[], bool]) -> bool:
        """For a picture of which what the robot did is known as well as it gets, or other work. False: stop."""
        with self._changed:
            while not (self._is_stopping or self._is_ready() or has_other_work()):
                self._changed.wait(self._patience_s())
            return not self._is_stopping

    def take(self) -> Taken:
        """Pictures of which what the robot did is known as well as it gets; that is kept until the next call."""
        with self._changed:
            must_forget, self._must_forget = self._must_forget, False
            frames = []
            while self._is_ready():
                frames.append(self._waiting.popleft())
            self._oldest_taken_ns = frames[0].stamp_ns if frames else None
            return Taken(frames, must_forget)

    def measured_at(self, stamp_ns: int) -> tuple[FloatArray, int] | None:
        """(a,) what the robot did and how far [ns] the nearest message was; None: all is to be forgotten. Raises Refusal."""
        with self._changed:
            if self._must_forget:
                return None
            return self._measured.at(stamp_ns, round(self._config.sync_slop_s * NANOSECONDS))

    def plan_at(self, stamp_ns: int, now_ns: int) -> tuple[Plan | None, NodeConfig]:
        """In force then, and the configuration that says so."""
        with self._changed:
            return self._plans.at(stamp_ns, now_ns, self._config.plan_timeout_s), self._config

    def _picture_age_ns(self) -> int:
        """What the robot did and plans are kept for pictures as old as this when they come."""
        return min(round(self._config.max_observation_age_s * NANOSECONDS), _LONGEST_KEPT_NS)

    def _oldest_age_ns(self, newest_ns: int) -> int:
        """And what it did, against the newest, also for those that wait for a busy worker, or were just taken by it."""
        oldest_ns = self._oldest_taken_ns
        if oldest_ns is None:
            oldest_ns = self._waiting[0].stamp_ns if self._waiting else newest_ns
        return max(self._picture_age_ns(), newest_ns - oldest_ns)

    def _is_ready(self) -> bool:
        """The oldest picture has a message on the far side of its stamp, has waited the slop for one, or has to make room."""
        if not self._waiting:
            return False
        oldest = self._waiting[0]
        return (
            self._measured.covers(oldest.stamp_ns)
            or time.monotonic() >= self._deadline_s(oldest)
            or len(self._waiting) == _MAX_WAITING
        )

    def _patience_s(self) -> float | None:
        return max(self._deadline_s(self._waiting[0]) - time.monotonic(), 0.0) if self._waiting else None

    def _deadline_s(self, frame: Frame) -> float:
        return frame.received_s + self._config.sync_slop_s


def _buffer_for(spec: ActionSpec, config: NodeConfig) -> JointBuffer | VelocityBuffer:
    if spec.representation == "joint_position":
        return JointBuffer(spec.names, spec.units)
    return VelocityBuffer(spec.step_dt, is_measured=VELOCITY_MESSAGES[config.odom_type].is_measured)
