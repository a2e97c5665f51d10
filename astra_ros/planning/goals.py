"""How far a future is from what a planner wants to see at its end.

A distance is made once per question, from the goal, and then measures many futures. `codec` compares latents, so no frame
is decoded for a score. Others come by entry point, group `astra_ros.goal_distance`: a function like `codec_distance`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

import numpy as np

from astra_ros.backends.base import Backend
from astra_ros.types import ByteArray, FloatArray

GROUP = "astra_ros.goal_distance"

# Latents (n, t, c, h, w) of n futures → (n, t), smaller is better.
GoalDistance = Callable[[FloatArray], FloatArray]


@dataclass(frozen=True)
class Goal:
    """latents: (c, h, w). pixels: (h, w, 3) uint8, the picture they are of; None for a goal that came as latents."""

    latents: FloatArray
    pixels: ByteArray | None = None


MakeGoalDistance = Callable[[Backend, Goal], GoalDistance]


def codec_distance(_backend: Backend, goal: Goal) -> GoalDistance:
    """Mean squared difference of latents."""

    def measure(futures: FloatArray) -> FloatArray:
        return np.square(futures - goal.latents).mean(axis=(2, 3, 4))

    return measure


_OWN: dict[str, MakeGoalDistance] = {"codec": codec_distance}


def find_goal_distance(name: str) -> MakeGoalDistance:
    """By its name. Raises ValueError for an unknown one, and whatever a plug-in raises when it is imported."""
    if name in _OWN:
        return _OWN[name]
    plugins = {found.name: found for found in entry_points(group=GROUP)}
    if name not in plugins:
        raise ValueError(
            f"goal_distance: expected one of {', '.join(sorted({*_OWN, *plugins}))}, found {name!r}; install the package"
            f" that has it (entry point of the group {GROUP})"
        )
    make: MakeGoalDistance = plugins[name].load()
    return make


def measured(distance: GoalDistance, futures: FloatArray) -> FloatArray:
    """(n, t) distances, whoever wrote the function. Raises ValueError for another shape."""
    found = np.asarray(distance(futures), np.float32)
    if found.shape != futures.shape[:2]:
        raise ValueError(
            f"goal distance: expected (futures, frames) = {futures.shape[:2]} numbers, found {found.shape};"
            " mend the plug-in"
        )
    return found
