"""Held-out episodes as moments to predict from: what is remembered, what is planned, and what then happened."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.data.episode import Episode, frame_stride
from astra_ros.data.segments import Window, cut_window, step_actions
from astra_ros.types import ByteArray, FloatArray

# A robot that just started remembers little; one second of memory is asked for where the recording allows it.
MEMORY_S = 1.0
_ARRAYS = ("plan", "executed", "observed", "happened", "latents")


class UnsuitableDataError(ValueError):
    """Recordings that a test cannot use: too short, too still, none held out. Other datasets may still be judged."""


@dataclass(frozen=True)
class Scenes:
    """Moments, b of them.

    episodes: the recording of each. history: what is remembered, (b, s, ...). plan: (b, t, a) per-step actions that were
    commanded next; executed: the same as measured, for a joint may lag behind and a gripper stop at what it holds.
    observed: (b, h, w, 3) uint8. happened: (b, t, h, w, 3) uint8, and its latents (b, t, c, h, w).
    """

    episodes: tuple[str, ...]
    history: Window
    plan: FloatArray
    executed: FloatArray
    observed: ByteArray
    happened: ByteArray
    latents: FloatArray

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def last_action(self) -> FloatArray:
        """(b, a): the action that led to the observed frame."""
        return self.history.actions[:, -1]

    def part(self, rows: slice) -> Scenes:
        """Some of the moments."""
        history = Window(*(getattr(self.history, f.name)[rows] for f in fields(Window)))
        rest = (getattr(self, name)[rows] for name in _ARRAYS)
        return Scenes(self.episodes[rows], history, *rest)


@dataclass(frozen=True)
class Sampling:
    """How a future is predicted. None: as the model is served. frames: those to decode, of the plan's; None: all."""

    seed: int = 0
    num_steps: int | None = None
    guidance: float | None = None
    frames: tuple[int, ...] | None = None


class Predictor(Protocol):
    """A world model, as far as it is judged."""

    def predict(self, scenes: Scenes, plan: FloatArray, sampling: Sampling) -> ByteArray:
        """plan: (b, t, a), instead of the scenes' own. Returns (b, t or number of frames, h, w, 3) uint8."""

    def reconstruct(self, latents: FloatArray) -> ByteArray:
        """(b, t, c, h, w) → (b, t, h, w, 3) uint8: what the codec alone leaves of real pictures."""


@dataclass(frozen=True)
class HeldOutData:
    """Episodes of one dataset at the model's rate, one row per step, and the latents (t, c, h, w) of their frames.

    bad: lines about episodes that could not be read.
    """

    name: str
    spec: ActionSpec
    episodes: tuple[Episode, ...]
    latents: tuple[np.ndarray, ...]
    bad: tuple[str, ...] = ()

    @property
    def second(self) -> int:
        """Model steps of one second."""
        return round(1.0 / self.spec.step_dt)

    def longest_horizon(self, share: float = 0.5) -> int:
        """Steps that at least that share of the episodes reaches after MEMORY_S."""
        lengths = sorted((len(episode.pixels) for episode in self.episodes), reverse=True)
        reached = lengths[max(0, math.ceil(share * len(lengths)) - 1)]
        return max(0, reached - 1 - round(MEMORY_S * self.second))

    def scenes(
        self, horizon: int, count: int, *, memory: int | None = None, remembered: int | None = None
    ) -> Scenes:
        """At most `count` moments, evenly over all that have `horizon` steps after them.

        memory: frames to have been seen by then, as far as the episode's length allows (None: MEMORY_S).
        remembered: how many of them are remembered, the observed one included (None: all). Raises UnsuitableDataError
        when no episode is long enough.
        """
        moments = list(self._moments(horizon, memory or 1 + round(MEMORY_S * self.second)))
        if not moments:
            raise UnsuitableDataError(
                f"{self.name}: expected a held-out episode of {(horizon + 1) * self.spec.step_dt:.1f} s, found none"
            )
        chosen = np.unique(np.linspace(0, len(moments) - 1, count).round().astype(int))
        return _stacked([self._scene(moments[index], horizon, remembered) for index in chosen])

    def _moments(self, horizon: int, memory: int) -> Iterator[tuple[int, int]]:
        """(episode, frame); an episode too short for the memory gives its latest possible moment."""
        for index, episode in enumerate(self.episodes):
            latest = len(episode.pixels) - 1 - horizon
            for now in range(min(memory - 1, latest), latest + 1):
                if now >= 0:
                    yield index, now

    def _scene(self, moment: tuple[int, int], horizon: int, remembered: int | None) -> Scenes:
        index, now = moment
        episode, latents = self.episodes[index], self.latents[index]
        target = now + np.arange(1, horizon + 1)
        started = 0 if remembered is None else max(0, now + 1 - remembered)
        return Scenes(
            (episode.name,),
            cut_window(episode, latents, self.spec, now, started=started),
            step_actions(episode, self.spec, target),
            self.spec.steps(episode.measured, target, 1),
            episode.pixels[now],
            episode.pixels[target],
            latents[target].astype(np.float32),
        )


def held_out_data(
    name: str, spec: ActionSpec, episodes: Sequence[Episode], encode: Callable[[ByteArray], np.ndarray]
) -> HeldOutData:
    """Episodes at camera rate → at the model's rate, encoded. encode: (t, h, w, 3) → (t, c, h, w)."""
    stepped = tuple(at_model_rate(episode, spec) for episode in episodes)
    return HeldOutData(name, spec, stepped, tuple(encode(episode.pixels) for episode in stepped))


def at_model_rate(episode: Episode, spec: ActionSpec) -> Episode:
    """Every frame the model sees, and recorded rows such that one step of them is one step of the camera's."""
    stride = frame_stride(episode, spec.step_dt)
    frames = np.arange(0, len(episode.pixels), stride)

    def rows(recorded: FloatArray) -> FloatArray:
        return spec.steps(recorded, frames, stride) if spec.representation == "rate" else recorded[frames]

    return Episode(
        episode.name,
        episode.stamps_ns[frames],
        episode.pixels[frames],
        rows(episode.measured),
        rows(episode.commanded),
    )


def _stacked(scenes: Sequence[Scenes]) -> Scenes:
    history = Window(*(np.stack([getattr(s.history, f.name) for s in scenes]) for f in fields(Window)))
    rest = (np.stack([getattr(s, name) for s in scenes]) for name in _ARRAYS)
    return Scenes(tuple(s.episodes[0] for s in scenes), history, *rest)
