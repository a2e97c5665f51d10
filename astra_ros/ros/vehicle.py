"""What a robot that drives tells of itself: its velocity, on the topic `odom`, in place of an arm's joint states."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.actions.velocities import VELOCITY_MESSAGES, mean_velocities
from astra_ros.ros.declaration import ConfigError
from astra_ros.ros.message_types import UnknownMessageTypeError, message_class
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import TIME_RESET_NS, to_ns
from astra_ros.types import NANOSECONDS, FloatArray

USUAL_COMMAND = "geometry_msgs/msg/TwistStamped"
# Velocities older than this, against the newest, cannot be of a step that ends at a picture on its way, unless it may be older.
_KEPT_NS = 3 * NANOSECONDS


def command_type(odom_type: str, cmd_vel_type: str) -> str:
    """What `auto` stands for."""
    if cmd_vel_type != "auto":
        return cmd_vel_type
    return USUAL_COMMAND if VELOCITY_MESSAGES[odom_type].is_measured else odom_type


def robot_topic(action: ActionSpec) -> str:
    """On which the robot tells what it does, before it is remapped."""
    return "joint_states" if action.representation == "joint_position" else "odom"


class VelocityReader:
    """Messages of one type → velocities in the model's order. type_name: one of VELOCITY_MESSAGES. Raises ConfigError."""

    def __init__(self, parameter: str, type_name: str, axes: tuple[str, ...]) -> None:
        """parameter: that says the type."""
        self.kind = VELOCITY_MESSAGES[type_name]
        self._axes = axes
        try:
            self.message_type = message_class(type_name)
            self._read = self.kind.reader(axes)
        except (UnknownMessageTypeError, ValueError) as error:
            raise ConfigError(f"{parameter}: {type_name}: {error}") from error

    def read(self, message: Any, bad: Drop = Drop.BAD_VELOCITY) -> FloatArray:
        """(a,). bad: cause of the Refusal that is raised for what is no number."""
        velocity = self._read(message)
        if not np.isfinite(velocity).all():
            axis = int(np.argmin(np.isfinite(velocity)))
            raise Refusal(
                bad,
                f"{self._axes[axis]}: expected a finite number, found {velocity[axis]}; check its publisher",
            )
        return velocity

    def stamp_ns(self, message: Any, now_ns: int) -> int:
        """now_ns: for commands without a stamp, or where it is not set."""
        stamp_ns = to_ns(message.header.stamp) if self.kind.is_stamped else 0
        return stamp_ns if self.kind.is_measured else stamp_ns or now_ns


class VelocityBuffer:
    """The velocities of the last seconds. step_s: of the model, over which they are averaged.

    is_measured: they are; else commands, between which there may be any time.
    """

    def __init__(self, step_s: float, *, is_measured: bool) -> None:
        self._step_ns, self._is_measured = round(step_s * NANOSECONDS), is_measured
        self._stamps_ns: list[int] = []
        self._velocities: list[FloatArray] = []

    def push(self, stamp_ns: int, velocity: FloatArray, picture_age_ns: int = 0) -> None:
        """As JointBuffer.push."""
        if self._stamps_ns and self._stamps_ns[-1] - stamp_ns >= TIME_RESET_NS:
            self.clear()
        if self._stamps_ns and stamp_ns == self._stamps_ns[-1] and not self._is_measured:
            self._velocities[-1] = velocity  # of two commands at a moment of a coarse clock the later holds
            return
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            behind_s = (self._stamps_ns[-1] - stamp_ns) / NANOSECONDS
            raise Refusal(
                Drop.OUT_OF_ORDER,
                "header.stamp: expected each velocity to be newer than the one before, found one"
                f" {behind_s:.3f} s older; only one publisher may tell it",
            )
        self._stamps_ns.append(stamp_ns)
        self._velocities.append(velocity)
        # The last before the oldest step is in force when that begins.
        oldest_ns = stamp_ns - max(_KEPT_NS, picture_age_ns) - self._step_ns
        expired = bisect_right(self._stamps_ns, oldest_ns) - 1
        del self._stamps_ns[: max(expired, 0)], self._velocities[: max(expired, 0)]

    def clear(self) -> None:
        self._stamps_ns.clear()
        self._velocities.clear()

    def covers(self, stamp_ns: int) -> bool:
        """Waiting for more cannot improve the mean of the step that ends at this stamp."""
        return bool(self._stamps_ns) and (not self._is_measured or self._stamps_ns[-1] >= stamp_ns)

    def at(self, stamp_ns: int, slop_ns: int) -> tuple[FloatArray, int]:
        """The mean (a,) of the step that ends at a stamp, and the distance [ns] of that to the nearest measurement.

        Raises Refusal when that is more than slop_ns, or nothing came at all.
        """
        if not self._stamps_ns:
            raise Refusal(
                Drop.NO_VELOCITY,
                "no velocity received: expected it from the robot's driver; start it, or remap odom:= (and odom_type)",
            )
        skew_ns = self._skew_ns(stamp_ns) if self._is_measured else 0
        if skew_ns > slop_ns:
            raise Refusal(
                Drop.NO_VELOCITY,
                f"expected a velocity within {slop_ns / NANOSECONDS:g} s (sync_slop_s) of the picture, found the nearest"
                f" {skew_ns / NANOSECONDS:.3f} s away: its publisher stopped, is slow, or has another clock than the camera; check"
                " `ros2 topic hz`, synchronise the clocks",
            )
        mean = mean_velocities(
            np.array(self._stamps_ns, np.int64),
            np.stack(self._velocities),
            np.array([stamp_ns - self._step_ns]),
            np.array([stamp_ns]),
            is_measured=self._is_measured,
        )
        return mean[0], skew_ns

    def _skew_ns(self, stamp_ns: int) -> int:
        after = bisect_left(self._stamps_ns, stamp_ns)
        return min(abs(one - stamp_ns) for one in self._stamps_ns[max(after - 1, 0) : after + 1])
