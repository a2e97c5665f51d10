"""From one plan to the next without a jump: what the robot does while the next plan is searched for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from astra_ros.planning.sampling import shifted
from astra_ros.types import FloatArray


@dataclass(frozen=True)
class Motion:
    """A plan that is being carried out. points: (1 + horizon, a), the position at begins_ns, then one row every step_ns."""

    begins_ns: int
    step_ns: int
    points: FloatArray

    @classmethod
    def standing(cls, positions: FloatArray, horizon: int, now_ns: int, step_ns: int) -> Motion:
        """The motion of a robot that stays at positions (a,)."""
        return cls(now_ns, step_ns, np.tile(positions, (1 + horizon, 1)))

    def elapsed(self, now_ns: int) -> float:
        """Rows that are over at `now_ns`, a fraction of the present one included."""
        return (now_ns - self.begins_ns) / self.step_ns

    def at(self, now_ns: int) -> FloatArray:
        """Positions (a,) at `now_ns`, as a joint trajectory controller moves: linear between points, still after the last."""
        rows, elapsed = np.arange(len(self.points)), self.elapsed(now_ns)
        return np.array([np.interp(elapsed, rows, joint) for joint in self.points.T], np.float32)

    def since(self, row: int) -> Motion:
        """The same motion from point `row` on, as long as before: its last row is repeated."""
        return replace(self, begins_ns=self.begins_ns + row * self.step_ns, points=shifted(self.points, row))

    def holding(self, columns: Sequence[int], positions: FloatArray) -> Motion:
        """The same motion, but the joints of `columns` stay where `positions` (a,) has them."""
        points = self.points.copy()
        points[:, columns] = positions[list(columns)]
        return replace(self, points=points)

    def astray(self, positions: FloatArray, limit: FloatArray, now_ns: int) -> int | None:
        """Index of the joint that is farthest from the motion, if it is farther than its limit (a,) allows; otherwise None."""
        off = np.abs(positions - self.at(now_ns)) / limit
        return int(np.argmax(off)) if off.max() > 1 else None


@dataclass(frozen=True)
class Departure:
    """Where the search for a plan starts.

    motion: what the robot does while the search runs.
    committed: rows of the motion that will be over, or begun, when the search ends; the plan begins with them. 0: the robot
    stands still, and the plan begins when the search ends.
    held: columns of joints that the plan does not move.
    """

    motion: Motion
    committed: int = 0
    held: tuple[int, ...] = ()

    @property
    def anchor(self) -> FloatArray:
        """Positions (a,) of the robot when the rows that are searched for begin."""
        return self.motion.points[self.committed]

    @property
    def first_guess(self) -> FloatArray:
        """(horizon - committed, a): the rest of the motion, unchanged."""
        return self.motion.points[1 + self.committed :]

    def whole(self, plans: FloatArray) -> FloatArray:
        """Whole plans (n, horizon, a) from searched rows (n, horizon - committed, a): the committed rows go before them."""
        before = np.broadcast_to(
            self.motion.points[1 : 1 + self.committed], (len(plans), self.committed, plans.shape[2])
        )
        rows = np.concatenate([before, plans], axis=1)
        rows[..., list(self.held)] = self.motion.points[0, list(self.held)]
        return rows

    def followed_by(self, plan: FloatArray, now_ns: int) -> Motion:
        """The whole plan (horizon, a) as a motion, now that the search has ended."""
        begins_ns = self.motion.begins_ns if self.committed else now_ns
        return replace(
            self.motion, begins_ns=begins_ns, points=np.concatenate([self.motion.points[:1], plan])
        )
