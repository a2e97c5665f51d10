"""What runs the network: the protocol the rollout relies on, and the life-cycle that every backend shares.

A backend speaks the robot's terms (pictures, joint positions); pictures become pixels and positions become action
features here, once, so that every runtime sees the same numbers. Single-threaded: the thread that loads it owns it.
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
from astra_ros.denoiser.io import graph_specs
from astra_ros.frames.preprocess import from_network, to_network
from astra_ros.history.memory import HistorySlots
from astra_ros.types import ByteArray, FloatArray


class BackendError(RuntimeError):
    """No backend can be opened as asked. One line with the command that fixes it."""


class Backend(Protocol):
    """Order of calls: load, then per prediction encode*, and per chunk remember, denoise 0 … K-1, decode; close.

    Anything else before load is a RuntimeError. remember keeps the chunk's history inside the backend until the next
    remember, so that the K denoising steps share it.

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

    def denoise(self, k: int, noisy: FloatArray, actions: FloatArray) -> FloatArray:
        """Step k: noisy (t, c, h, w) at sigmas[k], commanded positions (t, a) → (t, c, h, w) at sigmas[k + 1]."""

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
        self._is_loaded = False
        # What the denoising steps of the current chunk share; filled by remember.
        self._chunk: dict[str, Any] = {}
        self._last_positions: FloatArray = np.zeros(bundle.manifest.action.dim, np.float32)

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
            self._chunk.clear()
        except BackendError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise BundleError(f"{self._bundle.root}: {error}") from error

    def warmup(self) -> None:
        golden.run_chunk(self, golden.blank_inputs(self.manifest))
        self._chunk.clear()

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
        # The frame before the oldest slot is unknown: it is taken to have held still.
        features = self.manifest.action.features(slots.positions, slots.positions[0], is_past=True)
        history = {"latents": slots.latents, "actions": features, "mask": slots.mask}
        keys_and_values = self._run("remember", {f"history_{name}": v[None] for name, v in history.items()})
        self._chunk = {**keys_and_values, "last_latents": slots.latents[-1:]}
        self._last_positions = slots.positions[-1]

    def denoise(self, k: int, noisy: FloatArray, actions: FloatArray) -> FloatArray:
        self._require_loaded()
        if not self._chunk:
            raise RuntimeError(
                f"backend {self.name!r}: expected remember() before denoise({k}), found no history"
            )
        features = self.manifest.action.features(actions, self._last_positions, is_past=False)
        inputs = {"noisy_latents": noisy[None], "actions": features[None], **self._chunk}
        latents: FloatArray = self._fetch(self._run(f"step_{k}", inputs)["latents"])[0]
        return latents

    def decode(self, latents: FloatArray) -> ByteArray:
        self._require_loaded()
        frames = [self._fetch(self._run("decode", {"latents": frame[None]})["pixels"]) for frame in latents]
        return np.stack([from_network(pixels) for pixels in frames])

    def close(self) -> None:
        self._is_loaded = False
        self._chunk.clear()
        self._release()

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _require_loaded(self) -> None:
        if not self._is_loaded:
            raise RuntimeError(
                f"backend {self.name!r}: expected load() first, found it not loaded or closed;"
                " call load() or use it in a with statement"
            )
