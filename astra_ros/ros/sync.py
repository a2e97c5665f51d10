"""Joint positions at the instant a picture was taken, matched by joint name and by stamp."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import JointState

from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import TIME_RESET_NS
from astra_ros.types import NANOSECONDS, FloatArray

# Joint states older than this, against the newest one, can no longer belong to a picture on its way, unless it may be older.
_KEPT_NS = 3 * NANOSECONDS


class JointReader:
    """JointState → positions in the model's order; the order found in one message is expected in the next.

    names: joints of the model. Messages may have them in any order and among others.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        # Names of the last message and where in it the model's joints are; replaced as one, also by another thread.
        self._order: tuple[list[str] | None, list[int]] = (None, [])

    def read(self, message: JointState) -> FloatArray:
        """(a,) positions. Raises Refusal."""
        seen_names, columns = self._order
        if message.name != seen_names:
            columns = self._find_columns(message.name)
            self._order = (list(message.name), columns)
        if len(message.position) != len(message.name):
            raise Refusal(
                Drop.BAD_JOINT_STATE,
                f"position: expected {len(message.name)} values (one per name), found {len(message.position)};"
                " publish the position interface of every joint (joint_state_broadcaster: interfaces: [position])",
            )
        positions = np.asarray(message.position)[columns].astype(np.float32)
        if not np.isfinite(positions).all():
            joint = self._names[int(np.argmin(np.isfinite(positions)))]
            raise Refusal(
                Drop.BAD_JOINT_STATE,
                f"position: expected finite numbers, found {positions[self._names.index(joint)]} for {joint!r},"
                " whose position is unknown to its publisher; check that joint's driver",
            )
        return positions

    def _find_columns(self, names: Sequence[str]) -> list[int]:
        missing = [name for name in self._names if name not in names]
        if missing:
            raise Refusal(
                Drop.OTHER_JOINTS if len(missing) == len(self._names) else Drop.BAD_JOINT_STATE,
                f"name: expected {', '.join(self._names)}; missing {', '.join(missing)}, found"
                f" {', '.join(names) or 'none'}; remap joint_states:= to a topic that has all of them"
                " (joint_state_publisher's source_list joins several)",
            )
        twice = [name for name in self._names if list(names).count(name) > 1]
        if twice:
            raise Refusal(
                Drop.BAD_JOINT_STATE,
                f"name: expected every joint once, found {', '.join(twice)} twice; fix its publisher",
            )
        return [list(names).index(name) for name in self._names]


class JointBuffer:
    """The joint positions of the last seconds.

    names, units: of the joints, where they are known; one in "rad" must not wrap.
    """

    def __init__(self, names: Sequence[str] = (), units: Sequence[str] = ()) -> None:
        self._angles = [(i, names[i]) for i, unit in enumerate(units) if unit == "rad"]
        self._stamps_ns: list[int] = []
        self._positions: list[FloatArray] = []

    def push(self, stamp_ns: int, positions: FloatArray, picture_age_ns: int = 0) -> None:
        """A stamp far before the newest means that time was reset: what is older is forgotten. Raises Refusal.

        picture_age_ns: how old a picture may be whose positions are asked for.
        """
        if self._stamps_ns and stamp_ns <= self._stamps_ns[-1]:
            if self._stamps_ns[-1] - stamp_ns < TIME_RESET_NS:
                raise Refusal(
                    Drop.OUT_OF_ORDER,
                    "header.stamp: expected each joint state to be newer than the one before, found one"
                    f" {(self._stamps_ns[-1] - stamp_ns) / NANOSECONDS:.3f} s older; only one publisher may use the topic",
                )
            self.clear()
        self._stamps_ns.append(stamp_ns)
        self._positions.append(positions)
        # The last of those before the oldest picture is one of the two around it.
        expired = bisect_right(self._stamps_ns, stamp_ns - max(_KEPT_NS, picture_age_ns)) - 1
        del self._stamps_ns[: max(expired, 0)], self._positions[: max(expired, 0)]

    def clear(self) -> None:
        self._stamps_ns.clear()
        self._positions.clear()

    def covers(self, stamp_ns: int) -> bool:
        """Waiting for more joint states cannot improve the positions at this stamp."""
        return bool(self._stamps_ns) and self._stamps_ns[-1] >= stamp_ns

    def at(self, stamp_ns: int, slop_ns: int) -> tuple[FloatArray, int]:
        """Positions (a,) at a stamp, linear between the two joint states around it, and the distance [ns] to the nearer.

        Raises Refusal when the nearer is further than slop_ns away.
        """
        after = bisect_left(self._stamps_ns, stamp_ns)
        around = range(max(after - 1, 0), min(after + 1, len(self._stamps_ns)))
        skew_ns = min((abs(self._stamps_ns[i] - stamp_ns) for i in around), default=None)
        if skew_ns is None or skew_ns > slop_ns:
            raise Refusal(Drop.NO_JOINT_STATE, self._why_no_match(stamp_ns, slop_ns))
        if len(around) == 1:
            return self._positions[around[0]], skew_ns
        return self._between(stamp_ns, after), skew_ns

    def _between(self, stamp_ns: int, after: int) -> FloatArray:
        start_ns, end_ns = self._stamps_ns[after - 1 : after + 1]
        share = np.float32((stamp_ns - start_ns) / (end_ns - start_ns))
        start, end = self._positions[after - 1 : after + 1]
        for i, name in self._angles:
            if abs(end[i] - start[i]) > np.pi:  # halfway between +pi and -pi is 0, on the joint's other side
                raise Refusal(
                    Drop.BAD_JOINT_STATE,
                    f"position: expected {name} to turn by less than pi rad from one joint state to the next, found"
                    f" {start[i]:.2f} and then {end[i]:.2f}; it wraps: publish it unwrapped, as in the model's recordings",
                )
        return start + share * (end - start)

    def _why_no_match(self, stamp_ns: int, slop_ns: int) -> str:
        if not self._stamps_ns:
            return "no joint state received: expected one per picture; start its publisher or remap joint_states:="
        expected = f"expected a joint state within {slop_ns / NANOSECONDS:g} s (sync_slop_s) of the picture"
        late_ns, early_ns = stamp_ns - self._stamps_ns[-1], self._stamps_ns[0] - stamp_ns
        if late_ns > 0:
            return (
                f"{expected}, found the newest {late_ns / NANOSECONDS:.3f} s older: its publisher stopped, is slow, or has"
                " another clock than the camera; check `ros2 topic hz`, synchronise the clocks"
            )
        if early_ns > 0:
            return (
                f"{expected}, found the oldest {early_ns / NANOSECONDS:.3f} s newer: pictures arrive late or the camera has"
                " another clock than the joints; synchronise the clocks"
            )
        after = bisect_left(self._stamps_ns, stamp_ns)
        gap_s = (self._stamps_ns[after] - self._stamps_ns[after - 1]) / NANOSECONDS
        return f"{expected}, found a gap of {gap_s:.3f} s around it; publish faster, or set sync_slop_s:={gap_s / 2:.3f}"
