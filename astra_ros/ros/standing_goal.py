"""What shall be reached until somebody says otherwise."""

from __future__ import annotations

from collections.abc import Callable

from astra_ros.planning.goals import GoalDistance
from astra_ros.ros.queries import GoalInput


class StandingGoal:
    """Set from any thread; asked by the one that owns the model. It outlives history and activation, not the bundle.

    make_distance: encodes the goal; called once per goal.
    """

    def __init__(self, make_distance: Callable[[GoalInput], GoalDistance]) -> None:
        self._make_distance = make_distance
        self._goal: GoalInput | None = None
        self._measured: GoalInput | None = None
        self._distance: GoalDistance | None = None

    def set(self, goal: GoalInput | None) -> None:
        self._goal = goal

    @property
    def goal(self) -> GoalInput | None:
        """None while there is none."""
        return self._goal

    def distance(self) -> GoalDistance | None:
        """None while there is no goal."""
        goal = self._goal
        if goal is not self._measured:
            self._distance = None if goal is None else self._make_distance(goal)
            self._measured = goal
        return self._distance
