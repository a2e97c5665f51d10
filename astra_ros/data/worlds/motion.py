"""How a world is acted in: values that jump and are held (abrupt), or that drift as if they had mass (smooth).

Smooth data alone teaches a model to extrapolate the motion it sees instead of to obey (visual inertia).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from astra_ros.data.worlds.base import FRAME_S, Style

Draw = Callable[[], np.ndarray]
IsSafe = Callable[[np.ndarray], bool]

MAX_DRAWS = 48
REST_S = 0.3  # when no draw is safe


@dataclass(frozen=True)
class MotionConfig:
    """hold_s: how long a drawn action stays the target; inertia_s: time constant of approaching it, 0 jumps there."""

    hold_s: tuple[float, float]
    inertia_s: float


MOTIONS: dict[Style, MotionConfig] = {
    "abrupt": MotionConfig(hold_s=(0.3, 1.5), inertia_s=0.0),
    "smooth": MotionConfig(hold_s=(1.2, 3.0), inertia_s=0.35),
}


class HeldActions:
    """A sequence of actions towards targets that are drawn at random and held for a while.

    draw: a random target (a,). is_safe: whether the world allows the actions (t, a) from here on. A target is taken
    when holding it and then coming to rest is safe, so that rest is always a way out.
    inert: (a,) bool, which values have inertia; keys have none.
    """

    def __init__(
        self, rng: np.random.Generator, config: MotionConfig, draw: Draw, is_safe: IsSafe, inert: np.ndarray
    ) -> None:
        self._rng, self._config, self._draw, self._is_safe = rng, config, draw, is_safe
        self._gain = np.where(inert & (config.inertia_s > 0), _gain(config.inertia_s), 1.0)
        self._state = np.zeros((2, len(inert)))
        self._target = np.zeros(len(inert))
        self._frames_left = 0

    def next(self) -> np.ndarray:
        """The action (a,) of the next frame."""
        if self._frames_left == 0:
            self._choose()
        self._frames_left -= 1
        self._state = self._approach(self._state, self._target)
        return self._state[1].copy()

    def _choose(self) -> None:
        for _ in range(MAX_DRAWS):
            frames = round(self._rng.uniform(*self._config.hold_s) / FRAME_S)
            target = self._draw()
            if self._is_safe(self._plan(target, frames)):
                self._target, self._frames_left = target, frames
                return
        self._target, self._frames_left = np.zeros_like(self._target), round(REST_S / FRAME_S)

    def _plan(self, target: np.ndarray, frames: int) -> np.ndarray:
        """Actions (t, a) when the target is held and rest follows."""
        rest_frames = round(6 * self._config.inertia_s / FRAME_S)
        state, actions = self._state, []
        for goal in [target] * frames + [np.zeros_like(target)] * rest_frames:
            state = self._approach(state, goal)
            actions.append(state[1])
        return np.array(actions)

    def _approach(self, state: np.ndarray, target: np.ndarray) -> np.ndarray:
        # Two first-order lags in a row: the action itself has a continuous slope.
        lead = state[0] + self._gain * (target - state[0])
        return np.stack([lead, state[1] + self._gain * (lead - state[1])])


def _gain(inertia_s: float) -> float:
    return 1 - np.exp(-FRAME_S / inertia_s) if inertia_s > 0 else 1.0
