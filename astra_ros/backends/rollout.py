"""Candidates side by side: the same past, other actions, chunk after chunk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.denoiser.io import CACHE_AXES, batched, newest_slots
from astra_ros.history.layout import blocks_after
from astra_ros.types import FloatArray

if TYPE_CHECKING:
    from astra_ros.backends.base import Backend, Past


class Rollout:
    """begin, then per chunk sample (or denoise 0 … K-1) and append; any number of chunks, then begin again.

    Keys and values stay in the runtime's memory and are shared by the denoising steps of a chunk. b: `batch`.
    """

    def __init__(self, backend: Backend, batch: int) -> None:
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
        """All candidates start from this past."""
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
        """All denoising steps: noise (b, t, c, h, w), commanded actions (b, t, a) → latents (b, t, c, h, w).

        num_steps: only the first so many, of which the last goes straight on to noise level 0; 0, or more than there
        are: all.
        The next sample or denoise overwrites what is returned.
        """
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
        """Step k: noisy (b, t, c, h, w) at sigmas[k], actions (b, t, a) → (b, t, c, h, w) at sigmas[k + 1].

        The next sample or denoise overwrites what is returned.
        """
        given = self._given(actions, f"denoise({k})")
        return self._backend.fetch(self._step(k, self._staged(noisy), given))

    def append(self, latents: FloatArray, actions: FloatArray) -> None:
        """A predicted chunk, latents (b, t, c, h, w) for actions (b, t, a), becomes the newest history."""
        self._require_begun("append()")
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
        self._require_begun(call)
        self._last[:] = self._latents[:, -1]
        for features, plan, last in zip(self._plan_features, actions, self._actions[:, -1], strict=True):
            features[:] = chunk_features(self._spec, plan, last)
        return {"last_latents": self._last, "actions": self._plan_features, **self._cache}

    def _step(self, k: int, noisy: Any, given: dict[str, Any]) -> Any:
        outputs = self._backend.run(batched(f"step_{k}", self.batch), {"noisy_latents": noisy, **given})
        return outputs["latents"]

    def _require_begun(self, call: str) -> None:
        if not self._cache:
            raise RuntimeError(f"rollout: expected begin(past) before {call}, found no history")
