"""Carries a vehicle's plan out: its velocities as commands on cmd_vel, each in force during its step, and a stop at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from rclpy.duration import Duration
from rclpy.node import Node

from astra_ros.actions.velocities import VELOCITY_MESSAGES
from astra_ros.ros import qos
from astra_ros.ros.declaration import ConfigError
from astra_ros.ros.message_types import UnknownMessageTypeError, message_class
from astra_ros.ros.stamps import to_time
from astra_ros.ros.vehicle import USUAL_COMMAND
from astra_ros.types import NANOSECONDS, FloatArray

# Drives stop by themselves half a second after the last command (actions.velocities.COMMAND_TIMEOUT_S).
_PERIOD_S = 0.05
# From the stop at a plan's end until the vehicle stands, and the camera has seen it stand.
SETTLING_S = 0.5
# For whoever listens to be found, and for a stop to arrive.
_DISCOVERY_S, _CONFIRMATION_S = 1.0, 0.3


@dataclass(frozen=True)
class _Drive:
    """axes, rows (n, a): of the plan. begins_ns: on the node's clock."""

    axes: tuple[str, ...]
    rows: FloatArray
    step_ns: int
    begins_ns: int

    @property
    def ends_ns(self) -> int:
        return self.begins_ns + len(self.rows) * self.step_ns

    def at(self, now_ns: int) -> FloatArray:
        """(a,) the velocity in force; zero before it and once it is over."""
        row = (now_ns - self.begins_ns) // self.step_ns
        return self.rows[row] if 0 <= row < len(self.rows) else np.zeros_like(self.rows[0])


class Driver:
    """Says nothing between two plans, so that others may drive then. Its timer runs in the node's default callback group."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher: tuple[str, Any] | None = None
        self._drive: _Drive | None = None
        self._stopped_ns: int | None = None
        self._driving = Lock()
        node.create_timer(_PERIOD_S, self._tell)

    @property
    def left_s(self) -> float:
        """Until the plan that it carries out is over and the vehicle stands; 0: there is none."""
        drive, now_ns = self._drive, self._now_ns()
        if drive:
            return max(drive.ends_ns - now_ns, 0) / NANOSECONDS + SETTLING_S
        since_s = 0.0 if self._stopped_ns is None else (now_ns - self._stopped_ns) / NANOSECONDS
        return SETTLING_S - since_s if self._stopped_ns is not None and 0 <= since_s < SETTLING_S else 0.0

    def prepare(self, axes: tuple[str, ...], type_name: str) -> None:
        """Before the search, so that whoever listens is found during it.

        type_name: of the commands; auto: as whoever listens wants them. Raises ConfigError.
        """
        type_name = self._wanted_type() if type_name == "auto" else type_name
        _require_axes(type_name, axes)
        if self._publisher is None or self._publisher[0] != type_name:
            if self._publisher:
                self._node.destroy_publisher(self._publisher[1])
            publisher = self._node.create_publisher(_class_of(type_name), "cmd_vel", qos.newest())
            self._publisher = type_name, publisher

    def begin(
        self, axes: tuple[str, ...], rows: FloatArray, step_ns: int, require_wanted: Callable[[], None]
    ) -> int:
        """Begin at once, as prepared; if nobody listens yet, in a moment. Returns when [ns].

        require_wanted: raises where it was stopped meanwhile.
        """
        deadline_s = time.monotonic() + _DISCOVERY_S
        while self._publisher and not self._publisher[1].get_subscription_count():
            if time.monotonic() > deadline_s:
                break
            time.sleep(_PERIOD_S)
        with self._driving:
            require_wanted()
            self._drive = drive = _Drive(axes, rows, step_ns, self._now_ns())
        return drive.begins_ns

    def stop(self) -> bool:
        """At once. Returns whether it drove."""
        with self._driving:
            drive, publisher = self._drive, self._publisher
            if drive is None or publisher is None:
                return False
            self._stopped_ns, self._drive = self._now_ns(), None
            type_name, commands = publisher
            stand = np.zeros_like(drive.rows[0])
            commands.publish(_command(type_name, drive.axes, stand, self._stopped_ns))
        commands.wait_for_all_acked(Duration(seconds=_CONFIRMATION_S))
        return True

    def _tell(self) -> None:
        with self._driving:
            drive, publisher, now_ns = self._drive, self._publisher, self._now_ns()
            if drive is None or publisher is None:
                return
            type_name, commands = publisher
            commands.publish(_command(type_name, drive.axes, drive.at(now_ns), now_ns))
            # Also over where the clock jumped back to before it.
            if not drive.begins_ns <= now_ns < drive.ends_ns and self._drive is drive:
                self._stopped_ns, self._drive = now_ns, None

    def _wanted_type(self) -> str:
        topic = self._node.resolve_topic_name("cmd_vel")
        listening = self._node.get_subscriptions_info_by_topic(topic)
        known = {one.topic_type for one in listening} & VELOCITY_MESSAGES.keys()
        if len(known) > 1:
            raise ConfigError(
                f"{topic}: expected listeners of one type, found those of {' and '.join(sorted(known))}; set cmd_vel_type, and remap"
                " cmd_vel:= to the drive's topic"
            )
        return known.pop() if known else USUAL_COMMAND

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)


def _class_of(type_name: str) -> Any:
    try:
        return message_class(type_name)
    except UnknownMessageTypeError as error:
        raise ConfigError(f"cmd_vel_type: {error}") from error


def _require_axes(type_name: str, axes: tuple[str, ...]) -> None:
    if unknown := [axis for axis in axes if axis not in VELOCITY_MESSAGES[type_name].axes]:
        raise ConfigError(
            f"cmd_vel_type: expected a type with {', '.join(unknown)}, which the model's plans are of, found {type_name}; convert the"
            " planner's action_sequence with a node of your own"
        )


def _command(type_name: str, axes: tuple[str, ...], velocity: FloatArray, now_ns: int) -> Any:
    message, kind = _class_of(type_name)(), VELOCITY_MESSAGES[type_name]
    if kind.is_stamped:
        message.header.stamp = to_time(now_ns)
    for axis, value in zip(axes, velocity.tolist(), strict=True):
        *path, last = [*(kind.path.split(".") if kind.path else []), *axis.split(".")]
        place = message
        for name in path:
            place = getattr(place, name)
        setattr(place, last, value)
    return message
