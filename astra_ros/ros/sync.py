"""Joint positions at the instant a picture was taken, matched by joint name and by stamp."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
from sensor_msgs.msg import JointState

from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import TIME_RESET_NS
from astra_ros.types import NANOSECONDS, FloatArray

# Joint states older than this, against the newest one, can no longer belong to a picture on its way, unless it may be older.
_KEPT_NS = 3 * NANOSECONDS


class JointReader:
    """JointState → positions in the model's order; the order found in one message is expected in the next.

    names: joints of the model. Messages may have them in any order and among others, and each some of them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        # Names of the last message, which of the model's joints are there, and where; replaced as one, also by another thread.
        self._order: tuple[list[str] | None, list[int], list[int]] = (None, [], [])

    def read(self, message: JointState) -> FloatArray:
        """(a,) positions, NaN where the message does not tell. Raises Refusal, also where it tells of none."""
        seen_names, told, columns = self._order
        if message.name != seen_names:
            told, columns = self._find_columns(message.name)
            self._order = (list(message.name), told, columns)
        if len(message.position) != len(message.name):
            raise Refusal(
                Drop.BAD_JOINT_STATE,
                f"position: expected {len(message.name)} values (one per name), found {len(message.position)};"
                " publish the position interface of every joint (joint_state_broadcaster: interfaces: [position])",
            )
        positions = np.full(len(self._names), np.nan, np.float32)
        positions[told] = np.asarray(message.position)[columns]
        if not np.isfinite(positions[told]).all():
            joint = told[int(np.argmin(np.isfinite(positions[told])))]
            raise Refusal(
                Drop.BAD_JOINT_STATE,
                f"position: expected finite numbers, found {positions[joint]} for {self._names[joint]!r},"
                " whose position is unknown to its publisher; check that joint's driver",
            )
        return positions

    def _find_columns(self, names: Sequence[str]) -> tuple[list[int], list[int]]:
        """Indices of the joints that a message of these names tells of, and where in it they are."""
        told = [joint for joint, name in enumerate(self._names) if name in names]
        if not told:
            raise Refusal(
                Drop.OTHER_JOINTS,
                f"name: expected {', '.join(self._names)}, or some of them, found {', '.join(names) or 'none'}; remap"
                " joint_states:= to a topic that has them",
            )
        twice = [name for name in self._names if list(names).count(name) > 1]
        if twice:
            raise Refusal(
                Drop.BAD_JOINT_STATE,
                f"name: expected every joint once, found {', '.join(twice)} twice; fix its publisher",
            )
        return told, [list(names).index(self._names[joint]) for joint in told]


class JointBuffer:
    """The joint positions of the last seconds, of one publisher, or of several that tell of some joints each.

    names, units: of the joints, where they are known; one in "rad" must not wrap.
    """

    def __init__(self, names: Sequence[str] = (), units: Sequence[str] = ()) -> None:
        self._names = tuple(names)
        self._angles = {i: names[i] for i, unit in enumerate(units) if unit == "rad"}
        # By the joints that its messages tell of; who tells of more comes first.
        self._tracks: dict[tuple[int, ...], _Track] = {}
        self._dim = 0

    def push(self, stamp_ns: int, positions: FloatArray, picture_age_ns: int = 0) -> None:
        """positions (a,), NaN where the message does not tell. Raises Refusal.

        A stamp far before the newest means that time was reset: what is older is forgotten. picture_age_ns: how old a picture
        may be whose positions are asked for.
        """
        if any(track.newest_ns - stamp_ns >= TIME_RESET_NS for track in self._tracks.values()):
            self.clear()
        told = np.flatnonzero(~np.isnan(positions))
        track = self._track(tuple(told.tolist()), len(positions))
        track.push(stamp_ns, positions[told], stamp_ns - max(_KEPT_NS, picture_age_ns))

    def clear(self) -> None:
        self._tracks.clear()

    def covers(self, stamp_ns: int) -> bool:
        """Waiting for more joint states cannot improve the positions at this stamp."""
        told = {
            joint for joints, track in self._tracks.items() if track.newest_ns >= stamp_ns for joint in joints
        }
        return bool(told) and len(told) == self._dim

    def at(self, stamp_ns: int, slop_ns: int) -> tuple[FloatArray, int]:
        """Positions (a,) at a stamp, linear between the two joint states around it, and the distance [ns] to the nearer.

        Raises Refusal when the nearer, of any joint, is further than slop_ns away.
        """
        positions, skew_ns = np.full(self._dim, np.nan, np.float32), 0
        for joints, track in self._tracks.items():
            new = [i for i, joint in enumerate(joints) if np.isnan(positions[joint])]
            if new and track.skew_ns(stamp_ns) <= slop_ns:
                angles = {i: self._angles[joints[i]] for i in new if joints[i] in self._angles}
                positions[[joints[i] for i in new]] = track.at(stamp_ns, angles)[new]
                skew_ns = max(skew_ns, track.skew_ns(stamp_ns))
        unknown = np.flatnonzero(np.isnan(positions)).tolist()
        if unknown or not self._tracks:
            raise Refusal(Drop.NO_JOINT_STATE, self._why_no_match(unknown, stamp_ns, slop_ns))
        return positions, skew_ns

    def _track(self, joints: tuple[int, ...], dim: int) -> _Track:
        if joints not in self._tracks:
            tracks = {**self._tracks, joints: _Track()}
            self._tracks = dict(sorted(tracks.items(), key=lambda track: -len(track[0])))
            self._dim = dim
        return self._tracks[joints]

    def _why_no_match(self, unknown: Sequence[int], stamp_ns: int, slop_ns: int) -> str:
        if not self._tracks:
            return "no joint state received: expected one per picture; start its publisher or remap joint_states:="
        of_them = [track for joints, track in self._tracks.items() if {*joints} & {*unknown}]
        never = [i for i in unknown if not any(i in joints for joints in self._tracks)]
        if never:
            lacking = ", ".join(self._names[i] if self._names else str(i) for i in never)
            return f"expected joint states of every joint, found none of {lacking}; start their publisher (`ros2 topic echo`)"
        return min(of_them, key=lambda track: track.skew_ns(stamp_ns)).why_not(stamp_ns, slop_ns)


class _Track:
    """Of joints that one message tells of: its stamps, growing, and their positions."""

    def __init__(self) -> None:
        self._stamps_ns: list[int] = []
        self._positions: list[FloatArray] = []

    @property
    def newest_ns(self) -> int:
        """Of a track that is not empty."""
        return self._stamps_ns[-1]

    def push(self, stamp_ns: int, positions: FloatArray, oldest_ns: int) -> None:
        """oldest_ns: what is before that may be forgotten. Raises Refusal."""
        if self._stamps_ns and stamp_ns <= self.newest_ns:
            raise Refusal(
                Drop.OUT_OF_ORDER,
                "header.stamp: expected each joint state to be newer than the one before, found one"
                f" {(self.newest_ns - stamp_ns) / NANOSECONDS:.3f} s older; only one publisher may tell of a joint",
            )
        self._stamps_ns.append(stamp_ns)
        self._positions.append(positions)
        # The last of those before the oldest picture is one of the two around it.
        expired = bisect_right(self._stamps_ns, oldest_ns) - 1
        del self._stamps_ns[: max(expired, 0)], self._positions[: max(expired, 0)]

    def skew_ns(self, stamp_ns: int) -> int:
        """To the nearest joint state."""
        after = bisect_left(self._stamps_ns, stamp_ns)
        around = self._stamps_ns[max(after - 1, 0) : after + 1]
        return min(abs(one - stamp_ns) for one in around)

    def at(self, stamp_ns: int, angles: Mapping[int, str]) -> FloatArray:
        """Positions at a stamp, at the ends those of the last joint state. angles: those that must not wrap. Raises Refusal."""
        after = bisect_left(self._stamps_ns, stamp_ns)
        if after in (0, len(self._stamps_ns)):
            return self._positions[min(after, len(self._stamps_ns) - 1)]
        start_ns, end_ns = self._stamps_ns[after - 1 : after + 1]
        share = np.float32((stamp_ns - start_ns) / (end_ns - start_ns))
        start, end = self._positions[after - 1 : after + 1]
        for i, name in angles.items():
            if abs(end[i] - start[i]) > np.pi:  # halfway between +pi and -pi is 0, on the joint's other side
                raise Refusal(
                    Drop.BAD_JOINT_STATE,
                    f"position: expected {name} to turn by less than pi rad from one joint state to the next, found"
                    f" {start[i]:.2f} and then {end[i]:.2f}; it wraps: publish it unwrapped, as in the model's recordings",
                )
        between: FloatArray = start + share * (end - start)
        return between

    def why_not(self, stamp_ns: int, slop_ns: int) -> str:
        """There is none near enough to a picture of that stamp."""
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
