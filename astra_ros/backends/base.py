"""What runs the network: the protocol the rollout relies on, and the life-cycle that every backend shares.

A backend speaks the robot's terms (pictures, actions); pictures become pixels and actions become features here, once,
so that every runtime sees the same numbers. Single-threaded: the thread that loads it owns it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

from astra_ros.backends import golden
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import BundleError, Manifest
from astra_ros.denoiser.features import chunk_features, history_features
from astra_ros.denoiser.io import graph_specs
from astra_ros.frames.preprocess import from_network, to_network
from astra_ros.history.layout import blocks_after
from astra_ros.history.memory import HistorySlots
from astra_ros.types import ByteArray, FloatArray


class BackendError(RuntimeError):
    """No backend can be opened as asked. One line with the command that fixes it."""


class Backend(Protocol):
    """Order of calls: load, then per prediction encode*, remember, and per chunk denoise 0 … K-1, decode, append; close.

    Anything else before load is a RuntimeError. The keys and values that remember and append compute stay in the
    backend, in its runtime's memory; all denoising steps of a chunk share them.

    version: the runtime and its version, for example "onnxruntime 1.32.0".
    precision: arithmetic really used, for example "fp32". device: for example "cpu".
    bundle_sha256: digest of the bundle's manifest.json, which holds the digests of all its other files.
    """

    name: str
    version: str
    precision: str
    device: str
    manifest: Manifest
    bundle_sha256: str

    def load(self) -> None:
        """Open every graph and check the golden vectors. Raises BundleError; then nothing stays open."""

    def warmup(self) -> None:
        """Run every graph once on blank input, so that the first prediction is not the slow one."""

    def encode(self, pixels: ByteArray) -> FloatArray:
        """(h, w, 3) uint8 → latents (c, h, w)."""

    def remember(self, slots: HistorySlots) -> None:
        """Compute the history's keys and values for the chunk that follows."""

    def append(self, slots: HistorySlots) -> None:
        """The same for slots that moved on by one predicted chunk since the last call, from the newest of them alone."""

    def denoise(self, k: int, noisy: FloatArray, actions: FloatArray) -> FloatArray:
        """Step k: noisy (t, c, h, w) at sigmas[k], commanded actions (t, a) → (t, c, h, w) at sigmas[k + 1]."""

    def decode(self, latents: FloatArray) -> ByteArray:
        """(t, c, h, w) → (t, h, w, 3) uint8."""

    def close(self) -> None:
        """Release everything; may be called twice."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class GraphBackend(Backend, ABC):
    """A backend that runs the bundle's graphs; a runtime adds how it opens, runs and closes them."""

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = bundle.manifest
        self.bundle_sha256 = bundle.sha256
        self._bundle = bundle
        self._specs = graph_specs(bundle.manifest.dims, bundle.manifest.num_steps)
        self._newest = blocks_after(bundle.manifest.chunk_len)[0].slots[0]  # first slot that append reads
        self._is_loaded = False
        # What the denoising steps of the current chunk share; filled by remember and append.
        self._memory: dict[str, Any] = {}
        self._last_actions: FloatArray = np.zeros(bundle.manifest.action.dim, np.float32)

    @abstractmethod
    def _open(self) -> None:
        """Make every graph ready. Raises BundleError when one is not what the manifest promises."""

    @abstractmethod
    def _run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run a graph on numpy arrays and on values that an earlier run returned."""

    @abstractmethod
    def _fetch(self, value: Any) -> FloatArray:
        """A value that `_run` returned, as a numpy array that nothing else writes to."""

    @abstractmethod
    def _release(self) -> None:
        """Drop whatever `_open` acquired, also after it failed half-way."""

    def load(self) -> None:
        if self._is_loaded:
            return
        try:
            self._open()
            self._is_loaded = True
            golden.require_match(self, self._bundle)
            self._memory.clear()
        except BackendError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise BundleError(f"{self._bundle.root}: {error}") from error

    def warmup(self) -> None:
        golden.run_rollout(self, golden.blank_inputs(self.manifest))
        self._memory.clear()

    def encode(self, pixels: ByteArray) -> FloatArray:
        self._require_loaded()
        camera = self.manifest.camera
        if pixels.shape != (camera.height, camera.width, 3):
            raise ValueError(
                f"pixels: expected ({camera.height}, {camera.width}, 3), found {pixels.shape};"
                f" use frames.preprocess.fit(rgb, {camera.height}, {camera.width})"
            )
        latents: FloatArray = self._fetch(self._run("encode", {"pixels": to_network(pixels)})["latents"])[0]
        return latents

    def remember(self, slots: HistorySlots) -> None:
        self._require_loaded()
        self._attend("remember", slots, first=0)

    def append(self, slots: HistorySlots) -> None:
        self._require_memory("append()")
        self._attend("append", slots, first=self._newest)

    def denoise(self, k: int, noisy: FloatArray, actions: FloatArray) -> FloatArray:
        self._require_memory(f"denoise({k})")
        features = chunk_features(self.manifest.action, actions, self._last_actions)
        inputs = {"noisy_latents": noisy[None], "actions": features[None], **self._memory}
        latents: FloatArray = self._fetch(self._run(f"step_{k}", inputs)["latents"])[0]
        return latents

    def decode(self, latents: FloatArray) -> ByteArray:
        self._require_loaded()
        frames = [self._fetch(self._run("decode", {"latents": frame[None]})["pixels"]) for frame in latents]
        return np.stack([from_network(pixels) for pixels in frames])

    def close(self) -> None:
        self._is_loaded = False
        self._memory.clear()
        self._release()

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attend(self, graph: str, slots: HistorySlots, first: int) -> None:
        """Make the memory anew from the slots from `first` on, and from what `graph` wants of the memory before."""
        features = history_features(self.manifest.action, slots.actions)
        given = {"latents": slots.latents, "actions": features, "mask": slots.mask}
        newest = {f"history_{name}": values[None, first:] for name, values in given.items()}
        before = {name: self._memory[name] for name in self._specs[graph].inputs if name not in newest}
        outputs = self._run(graph, {**before, **newest})
        self._memory = {name.removeprefix("new_"): value for name, value in outputs.items()}
        self._memory["last_latents"] = slots.latents[-1:]
        self._last_actions = slots.actions[-1]

    def _require_memory(self, call: str) -> None:
        self._require_loaded()
        if not self._memory:
            raise RuntimeError(f"backend {self.name!r}: expected remember() before {call}, found no history")

    def _require_loaded(self) -> None:
        if not self._is_loaded:
            raise RuntimeError(
                f"backend {self.name!r}: expected load() first, found it not loaded or closed;"
                " call load() or use it in a with statement"
            )
