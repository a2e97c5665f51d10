"""Candidates side by side: the same past, other actions, chunk after chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, wait
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.denoiser.io import CACHE_AXES, batched, newest_slots
from astra_ros.history.layout import blocks_after
from astra_ros.types import FloatArray

if TYPE_CHECKING:
    from astra_ros.backends.base import Past
    from astra_ros.backends.manifest import Manifest


class Runner(Protocol):
    """What a rollout needs of a backend (base.py)."""

    @property
    def manifest(self) -> Manifest: ...

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]: ...

    def fetch(self, value: Any) -> FloatArray: ...

    def repeat(self, value: Any, count: int, axis: int) -> Any: ...


class Rollout(Protocol):
    """begin, then per chunk sample (or denoise 0 … K-1) and append; any number of chunks, then begin again. b: `batch`."""

    batch: int
    num_steps: int

    def begin(self, past: Past) -> None:
        """All candidates start from this past."""

    def sample(self, noise: FloatArray, actions: FloatArray, num_steps: int = 0) -> FloatArray:
        """All denoising steps: noise (b, t, c, h, w), commanded actions (b, t, a) → latents (b, t, c, h, w).

        num_steps: run only this many steps, the last of which goes straight to noise level 0. 0, or more than there
        are: all steps.
        The next sample or denoise overwrites what is returned.
        """

    def denoise(self, k: int, noisy: FloatArray, actions: FloatArray) -> FloatArray:
        """Step k: noisy (b, t, c, h, w) at sigmas[k], actions (b, t, a) → (b, t, c, h, w) at sigmas[k + 1].

        The next sample or denoise overwrites what is returned.
        """

    def append(self, latents: FloatArray, actions: FloatArray) -> None:
        """A predicted chunk, latents (b, t, c, h, w) for actions (b, t, a), becomes the newest history."""


class BatchRollout:
    """A Rollout by the graphs for `batch` candidates.

    Keys and values stay in the runtime's memory and are shared by the denoising steps of a chunk.
    """

    def __init__(self, backend: Runner, batch: int) -> None:
        self.batch = batch
        manifest = backend.manifest
        self._backend, self._spec, self.num_steps = backend, manifest.action, manifest.num_steps
        self._sigmas = manifest.sigmas
        self._blocks = blocks_after(manifest.chunk_len)
        slots, shape = newest_slots(manifest.dims), manifest.latents
        # The newest slots, which append reads: they move on by a chunk each time.
        self._latents = np.zeros((batch, slots, shape.channels, shape.height, shape.width), np.float32)
        self._actions = np.zeros((batch, slots, manifest.action.dim), np.float32)
        self._mask = np.zeros((batch, slots), np.float32)
        # What the steps read, each in one piece of memory.
        self._last = np.zeros_like(self._latents[:, -1])
        self._noisy = np.zeros((batch, manifest.chunk_len, *self._last.shape[1:]), np.float32)
        num_features = manifest.action.num_features
        self._past_features = np.zeros((batch, slots, num_features), np.float32)
        self._plan_features = np.zeros((batch, manifest.chunk_len, num_features), np.float32)
        self._cache: dict[str, Any] = {}

    def begin(self, past: Past) -> None:
        newest = slice(-self._mask.shape[1], None)
        self._latents[:] = past.slots.latents[newest]
        self._actions[:] = past.slots.actions[newest]
        self._mask[:] = past.slots.mask[newest]
        self._cache = dict(past.cache if self.batch == 1 else self._repeated(past))

    def _repeated(self, past: Past) -> Mapping[str, Any]:
        """Once per past: those who ask for many candidates begin at it again for each batch of them."""
        if self.batch not in past.repeated:
            past.repeated[self.batch] = {
                name: self._backend.repeat(past.cache[name], self.batch, axis)
                for name, axis in CACHE_AXES.items()
            }
        return past.repeated[self.batch]

    def sample(self, noise: FloatArray, actions: FloatArray, num_steps: int = 0) -> FloatArray:
        given, count = self._given(actions, "sample()"), self._num_steps(num_steps)
        before: Any = noise
        latents: Any = self._staged(noise)
        for k in range(count):
            before, latents = latents, self._step(k, latents, given)
        if count == self.num_steps:
            return self._backend.fetch(latents)
        # A step is a straight line in the noise level: its end follows from any two of its points.
        high, low = self._sigmas[count - 1], self._sigmas[count]
        start = noise if count == 1 else self._backend.fetch(before).copy()
        clean: FloatArray = start + (self._backend.fetch(latents) - start) * np.float32(high / (high - low))
        return clean

    def denoise(self, k: int, noisy: FloatArray, actions: FloatArray) -> FloatArray:
        given = self._given(actions, f"denoise({k})")
        return self._backend.fetch(self._step(k, self._staged(noisy), given))

    def append(self, latents: FloatArray, actions: FloatArray) -> None:
        _require_begun("append()", has_begun=bool(self._cache))
        for slots, newest in ((self._latents, latents), (self._actions, actions), (self._mask, 1.0)):
            length = actions.shape[1]
            for one in slots:  # numpy would copy what it moves if it moved all candidates at once
                one[:-length] = one[length:]
            slots[:, -length:] = newest
        for features, rows in zip(self._past_features, self._actions, strict=True):
            features[:] = history_features(self._spec, rows, self._blocks)
        outputs = self._backend.run(
            batched("append", self.batch),
            {
                "history_latents": self._latents,
                "history_actions": self._past_features,
                "history_mask": self._mask,
                **self._cache,
            },
        )
        self._cache = {name.removeprefix("new_"): value for name, value in outputs.items()}

    def _num_steps(self, asked: int) -> int:
        return min(asked or self.num_steps, self.num_steps)

    def _staged(self, noisy: FloatArray) -> FloatArray:
        self._noisy[:] = noisy
        return self._noisy

    def _given(self, actions: FloatArray, call: str) -> dict[str, Any]:
        """What the denoising steps of a chunk share."""
        _require_begun(call, has_begun=bool(self._cache))
        self._last[:] = self._latents[:, -1]
        for features, plan, last in zip(self._plan_features, actions, self._actions[:, -1], strict=True):
            features[:] = chunk_features(self._spec, plan, last)
        return {"last_latents": self._last, "actions": self._plan_features, **self._cache}

    def _step(self, k: int, noisy: Any, given: dict[str, Any]) -> Any:
        outputs = self._backend.run(batched(f"step_{k}", self.batch), {"noisy_latents": noisy, **given})
        return outputs["latents"]


class SideBySide:
    """A Rollout that is several of the same size, which run at the same time.

    Each runs in a thread of `pool` and needs a runner of its own.
    """

    def __init__(self, rollouts: Sequence[Rollout], pool: Executor) -> None:
        self._rollouts, self._pool = rollouts, pool
        self.batch, self.num_steps = sum(one.batch for one in rollouts), rollouts[0].num_steps
        self._has_begun = False
        self._predicted = self._parts(())  # of each, to be appended

    def begin(self, past: Past) -> None:
        self._predicted, self._has_begun = self._parts(()), True
        for one in self._rollouts:
            one.begin(past)

    def sample(self, noise: FloatArray, actions: FloatArray, num_steps: int = 0) -> FloatArray:
        return np.concatenate(self._each(lambda one, *given: one.sample(*given, num_steps), noise, actions))

    def denoise(self, k: int, noisy: FloatArray, actions: FloatArray) -> FloatArray:
        return np.concatenate(self._each(lambda one, *given: one.denoise(k, *given), noisy, actions))

    def append(self, latents: FloatArray, actions: FloatArray) -> None:
        """In one go with the next sample or denoise, so that the rollouts wait for each other once per chunk."""
        _require_begun("append()", has_begun=self._has_begun)
        if any(self._predicted):
            self._each(lambda _one: None)
        self._predicted = self._parts((latents.copy(), actions.copy()))

    def _each(self, call: Callable[..., Any], *given: FloatArray) -> list[Any]:
        """Every rollout's answer to its candidates' part of what is given, once all have finished."""

        def work(one: Rollout, newest: Sequence[FloatArray], part: Sequence[FloatArray]) -> Any:
            if newest:
                one.append(*newest)
            return call(one, *part)

        parts = zip(self._rollouts, self._predicted, self._parts(given), strict=True)
        running = [self._pool.submit(work, *mine) for mine in parts]
        self._predicted = self._parts(())
        wait(running)  # also when one fails: nothing may go on behind the caller's back
        return [one.result() for one in running]

    def _parts(self, arrays: Sequence[FloatArray]) -> list[tuple[FloatArray, ...]]:
        """Of each rollout."""
        split = [np.split(array, len(self._rollouts)) for array in arrays]
        return [tuple(own[i] for own in split) for i in range(len(self._rollouts))]


def _require_begun(call: str, *, has_begun: bool) -> None:
    if not has_begun:
        raise RuntimeError(f"rollout: expected begin(past) before {call}, found no history")
