"""What subjects are given: the bundle's golden inputs with a full history, candidate plans, a camera's stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from astra_ros.backends import golden
from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.history.memory import HistorySlots
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray, Observation


class Scene:
    """picture (h, w, 3), noise (1, t, c, h, w) and plan (1, t, a) of a chunk."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = bundle.manifest
        self._inputs, _ = golden.load(bundle.file(bundle.manifest.golden.file), bundle.manifest)
        self.noise, self.plan = self._inputs.noise[:1], self._inputs.plan[:1]
        self.picture: ByteArray = self._inputs.pixels[0]
        self.goal: ByteArray = self._inputs.pixels[-1]

    def slots(self, backend: Backend) -> HistorySlots:
        """A history without gaps, pictures encoded by this backend."""
        encoded = np.stack([backend.encode(picture) for picture in self._inputs.pixels])
        mask = np.ones_like(self._inputs.mask)
        return HistorySlots(golden.spread(encoded, len(mask)), self._inputs.actions, mask)

    def plans(self, count: int, horizon: int | None = None) -> FloatArray:
        """(count, horizon, a): the plan and others that wander away from it, seeded; by default as long as it is.

        A longer plan goes on from its last row, so that no two chunks of the wandering ones are alike.
        """
        rows = np.arange(self.plan.shape[1] if horizon is None else horizon)
        plan = self.plan[:, np.minimum(rows, self.plan.shape[1] - 1)]
        steps = np.random.default_rng(0).standard_normal((count, *plan.shape[1:]), np.float32)
        steps[0] = 0
        away = np.cumsum(steps * np.asarray(self.manifest.action.delta_std, np.float32), axis=1)
        return plan + away

    def observations(self) -> Iterator[Observation]:
        """One every step_dt, without end."""
        step_ns = round(self.manifest.action.step_dt * NANOSECONDS)
        pictures, actions = self._inputs.pixels, self._inputs.actions
        for number in range(1 << 31):
            picture = np.roll(pictures[number % len(pictures)], number, axis=1)
            yield Observation(number * step_ns, picture, actions[number % len(actions)])


def with_newest(slots: HistorySlots, latents: FloatArray) -> HistorySlots:
    """The same history with another observation (c, h, w)."""
    return replace(slots, latents=np.concatenate([slots.latents[:-1], latents[None]]))
