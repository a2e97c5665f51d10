"""What a vehicle does: the messages that tell its velocity or command one, and their mean over a time. Numpy only.

The same code reads recordings and listens to a robot, so that a model sees in use what it saw in training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np

from astra_ros.types import NANOSECONDS, FloatArray

# Whoever sends nothing for so long does not drive any more: drives stop by themselves then (diff_drive_controller: cmd_vel_timeout).
COMMAND_TIMEOUT_S = 0.5
_TWIST = ("linear.x", "linear.y", "linear.z", "angular.x", "angular.y", "angular.z")
_ACKERMANN = ("steering_angle", "speed")
UNITS = {
    **dict.fromkeys(_TWIST[:3], "m/s"),
    **dict.fromkeys(_TWIST[3:], "rad/s"),
    "steering_angle": "rad",
    "speed": "m/s",
}


@dataclass(frozen=True)
class VelocityMessage:
    """A type of message. path: to where the axes are in it. axes: that it has; usual: of those, what most vehicles move by.

    is_measured: velocities as sensed, each at its stamp; else commands, each in force until the next.
    """

    path: str
    axes: tuple[str, ...]
    usual: tuple[str, ...]
    is_measured: bool = False
    is_stamped: bool = True

    def reader(self, axes: tuple[str, ...]) -> Callable[[Any], FloatArray]:
        """Message → (a,). Raises ValueError for an axis that it has not."""
        if unknown := [axis for axis in axes if axis not in self.axes]:
            raise ValueError(f"axes: expected some of {', '.join(self.axes)}, found {', '.join(unknown)}")
        find = attrgetter(*(f"{self.path}.{axis}" if self.path else axis for axis in axes))
        return lambda message: np.array(find(message), np.float32).reshape(len(axes))


_DRIVE = ("linear.x", "angular.z")
VELOCITY_MESSAGES = {
    "nav_msgs/msg/Odometry": VelocityMessage("twist.twist", _TWIST, _DRIVE, is_measured=True),
    "geometry_msgs/msg/TwistStamped": VelocityMessage("twist", _TWIST, _DRIVE),
    "geometry_msgs/msg/Twist": VelocityMessage("", _TWIST, _DRIVE, is_stamped=False),
    "ackermann_msgs/msg/AckermannDriveStamped": VelocityMessage("drive", _ACKERMANN, _ACKERMANN),
    "ackermann_msgs/msg/AckermannDrive": VelocityMessage("", _ACKERMANN, _ACKERMANN, is_stamped=False),
}


def mean_velocities(
    stamps_ns: Any, velocities: FloatArray, begins_ns: Any, ends_ns: Any, *, is_measured: bool
) -> FloatArray:
    """(n, a) means over the times from begins_ns to ends_ns, each (n,).

    stamps_ns (m,) growing, of velocities (m, a). Measured ones change evenly from one to the next, and stay before the first
    and after the last. A command is in force until the next, for COMMAND_TIMEOUT_S at most; without one the vehicle stands.
    """
    origin_ns = int(stamps_ns[0])  # nanoseconds since 1970 are too large for a float
    at, begins, ends = (np.asarray(ns, np.int64) - origin_ns for ns in (stamps_ns, begins_ns, ends_ns))
    if is_measured:
        padded = np.concatenate([velocities[:1], velocities, velocities[-1:]])
        return mean_levels(at, (padded[:-1] + padded[1:]) / 2, begins, ends)
    timeout_ns = round(COMMAND_TIMEOUT_S * NANOSECONDS)
    until = np.minimum(np.append(at[1:], at[-1] + timeout_ns), at + timeout_ns)
    stand = np.zeros_like(velocities)
    levels = np.stack([velocities, stand], axis=1).reshape(2 * len(at), -1)
    return mean_levels(
        np.stack([at, until], axis=1).ravel(), np.concatenate([stand[:1], levels]), begins, ends
    )


def mean_levels(changes_ns: Any, levels: FloatArray, begins_ns: Any, ends_ns: Any) -> FloatArray:
    """(n, a) means of what is constant between changes_ns (m,), rising: levels (m + 1, a), before, between and after them."""
    first = min(int(begins_ns.min()), int(changes_ns[0])) - 1
    last = max(int(ends_ns.max()), int(changes_ns[-1])) + 1
    knots = np.concatenate([[first], changes_ns, [last]])
    driven = np.cumsum(levels * np.diff(knots)[:, None], axis=0, dtype=np.float64)
    columns = [
        np.interp(ends_ns, knots, one) - np.interp(begins_ns, knots, one)
        for one in np.concatenate([np.zeros((1, levels.shape[1])), driven]).T
    ]
    return (np.stack(columns, axis=1) / (ends_ns - begins_ns)[:, None]).astype(np.float32)
