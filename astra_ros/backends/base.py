"""What runs the network: the protocol that rollouts rely on, and the life-cycle that every backend shares.

    backend.encode(picture)               → latents
    past = backend.remember(slots)        once per observation: keys and values of the history
    rollout = backend.rollout(n)          n candidates side by side (rollout.py), from one past, chunk after chunk
    backend.decode(latents)               → pictures

A backend speaks the robot's terms (pictures, actions); pictures become pixels and actions become features here, once,
so that every runtime sees the same numbers. Single-threaded: the thread that loads it owns it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np

from astra_ros.backends import golden
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.freed_memory import return_freed_memory
from astra_ros.backends.manifest import EXPORT_AGAIN, BundleError
from astra_ros.backends.rollout import BatchRollout, Rollout
from astra_ros.denoiser.features import history_features
from astra_ros.denoiser.io import batched, graph_specs
from astra_ros.frames.preprocess import from_network, to_network
from astra_ros.history.memory import HistorySlots
from astra_ros.types import ByteArray, FloatArray


class BackendError(RuntimeError):
    """No backend can be opened as asked. One line with the command that fixes it."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


@dataclass(frozen=True)
class Past:
    """What a backend keeps of one observation. Any number of rollouts may begin from it while the backend is open.

    cache: keys, values and bias of the history (denoiser/io.py), in the runtime's own memory.
    slots: the history that they were computed from.
    repeated: by batch size, the cache repeated for that many candidates; made when the first such rollout begins.
    """

    cache: Mapping[str, Any]
    slots: HistorySlots
    repeated: dict[int, Mapping[str, Any]] = field(default_factory=dict, compare=False, repr=False)


class Backend(ABC):
    """Runs a bundle's graphs. A runtime adds how it opens, runs and closes them; its first arguments are (bundle, num_threads).

    specs: the graphs that `_open` makes ready.
    version: the runtime and its version, for example "onnxruntime 1.32.0".
    precision: arithmetic really used, for example "fp32". device: for example "cpu".
    bundle_sha256: digest of the bundle's manifest.json, which holds the digests of all its other files.
    """

    name: str
    version: str
    precision: str
    device: str

    @property
    def plans_once(self) -> bool:
        """Whether what depends on a chunk's actions alone is computed once for all of its denoising steps."""
        return False

    @property
    def description(self) -> str:
        """What a result was computed by, for example "onnxruntime 1.32.0, fp32, cpu"."""
        return f"{self.version}, {self.precision}, {self.device}"

    @classmethod
    def precisions(cls, bundle: Bundle) -> tuple[str, ...]:
        """Precisions in which this machine can run the bundle, the graphs' own first.

        A backend with more than one takes the keyword `precision`. Raises BackendError when it cannot run here at all.
        """
        return (bundle.manifest.precision,)

    def __init__(self, bundle: Bundle) -> None:
        self.manifest = bundle.manifest
        self.bundle_sha256 = bundle.sha256
        self.specs = bundle.manifest.graph_specs
        self._bundle = bundle
        self._is_loaded = False
        self._checked: set[int] = set()  # batches whose golden vectors came out right

    @abstractmethod
    def _open(self) -> None:
        """Make the graphs ready, at least `_always_needed`. Raises BundleError when one is not what the manifest promises.

        The others may wait until they are first run: a robot that never asks for candidates need not hold their graphs.
        """

    @abstractmethod
    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run a graph on numpy arrays and on values that an earlier run returned."""

    @abstractmethod
    def fetch(self, value: Any) -> FloatArray:
        """A value that `run` returned, as a numpy array that the next run may overwrite."""

    @abstractmethod
    def _release(self) -> None:
        """Drop whatever `_open` acquired, also after it failed half-way."""

    def repeat(self, value: Any, count: int, axis: int) -> Any:
        """A value that `run` returned, `count` times along an axis of length 1."""
        return np.repeat(self.fetch(value), count, axis)

    def load(self) -> None:
        """Open the graphs and check the golden vectors. Raises BundleError; then nothing stays open."""
        if self._is_loaded:
            return
        with self._closed_on_error():
            self._open()
            self._is_loaded = True
            self._check(batch=1)

    @contextmanager
    def only(self, graph: str) -> Iterator[Callable[[], float]]:
        """Open one graph alone, before `load`. Yields a function that runs it once on made-up input and returns the seconds.

        Nothing stays open afterwards. Opening and running raise BundleError or BackendError.
        """
        specs, self.specs = self.specs, {graph: self.specs[graph]}
        inputs = self._blank(graph)

        def timed() -> float:
            if "actions" in inputs:  # other ones each time: a runtime may keep what it made of the last
                inputs["actions"] = inputs["actions"] + 1
            return self._time(graph, inputs)

        try:
            with self._closed_on_error():
                self._open()
                self._is_loaded = True
            yield timed
        finally:
            self.close()
            self.specs = specs

    def _time(self, graph: str, inputs: Mapping[str, Any]) -> float:
        """Seconds of one run, until its results can be read."""
        with self._closed_on_error():
            started = perf_counter()
            for value in self.run(graph, inputs).values():
                self.fetch(value)
            return perf_counter() - started

    def warmup(self) -> None:
        """Run every graph of one rollout once on blank input, so that the first prediction is not the slow one.

        Raises BundleError; then nothing stays open.
        """
        self._require_loaded()
        with self._closed_on_error():
            self._warm_up()

    def _warm_up(self) -> None:
        golden.run_rollout(self, golden.blank_inputs(self.manifest))

    def encode(self, pixels: ByteArray, out: FloatArray | None = None) -> FloatArray:
        """(h, w, 3) uint8 → latents (c, h, w); into `out` if given, else the caller's own."""
        self._require_loaded()
        camera = self.manifest.camera
        if pixels.shape != (camera.height, camera.width, 3):
            raise ValueError(
                f"pixels: expected ({camera.height}, {camera.width}, 3), found {pixels.shape};"
                f" use frames.preprocess.fit(rgb, {camera.height}, {camera.width})"
            )
        given = {"pixels": to_network(pixels, out=self._picture)}
        latents = self.fetch(self.run("encode", given)["latents"])[0]
        found = np.empty_like(latents) if out is None else out
        found[:] = latents
        return found

    def remember(self, slots: HistorySlots) -> Past:
        """The history's keys and values, for the rollouts of one observation."""
        self._require_loaded()
        features = history_features(self.manifest.action, slots.actions)
        given = {"latents": slots.latents, "actions": features, "mask": slots.mask}
        inputs = {f"history_{name}": values[None] for name, values in given.items()}
        return Past(self.run("remember", inputs), slots)

    def prepare(self, batch: int) -> Iterator[None]:
        """Do the slow part of the first `rollout(batch)` in pieces: open its graphs one by one, then check golden vectors.

        Yields after each graph. Does nothing the second time. Raises BundleError.
        """
        self._require_loaded()
        if batch in self._checked:
            return
        for graph in self._rollout_graphs(batch):
            self.run(graph, self._blank(graph))
            yield
        self._check(batch)

    @property
    def batches(self) -> tuple[int, ...]:
        """Batch sizes worth using: 1, the largest of the bundle, and the one whose graphs the largest is run on."""
        largest = self.manifest.batches[-1]
        return tuple(sorted({1, self.graphs_batch(largest), largest}))

    def graphs_batch(self, batch: int) -> int:
        """Batch size of the graphs that run `batch` candidates. Smaller than `batch` when a backend runs several at once."""
        return batch

    def rollout(self, batch: int = 1) -> Rollout:
        """A rollout of `batch` candidates side by side; `batch` is one of manifest.batches, otherwise ValueError.

        The first one of a batch size checks its golden vectors. Raises BundleError.
        """
        self._require_loaded()
        if batch not in self.manifest.batches:
            raise ValueError(
                f"batch: expected one of {self.manifest.batches} (manifest.batches), found {batch};"
                f" {EXPORT_AGAIN} --candidates {batch}"
            )
        self._check(batch)
        return self._new_rollout(batch)

    def decode(self, latents: FloatArray, out: ByteArray | None = None) -> ByteArray:
        """(t, c, h, w) → (t, h, w, 3) uint8; into `out` if given, else the caller's own."""
        self._require_loaded()
        camera = self.manifest.camera
        frames = np.empty((len(latents), camera.height, camera.width, 3), np.uint8) if out is None else out
        for frame, one in zip(frames, latents, strict=True):
            pixels = self.fetch(self.run("decode", {"latents": one[None]})["pixels"])
            from_network(pixels, out=frame, scratch=self._picture)
        return frames

    def close(self) -> None:
        """Release everything; may be called twice."""
        self._is_loaded = False
        self._checked.clear()
        self._release()
        return_freed_memory()

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _blank(self, graph: str) -> dict[str, FloatArray]:
        return {name: np.zeros(shape, np.float32) for name, shape in self.specs[graph].inputs.items()}

    def _rollout_graphs(self, batch: int) -> list[str]:
        """Those that a rollout of so many candidates runs."""
        stages = ("append", *(f"step_{k}" for k in range(self.manifest.num_steps)))
        return [batched(stage, self.graphs_batch(batch)) for stage in stages]

    def _new_rollout(self, batch: int) -> Rollout:
        return BatchRollout(self, batch)

    def _check(self, batch: int) -> None:
        """Golden vectors, once per batch."""
        if batch in self._checked:
            return
        self._checked.add(batch)  # the check itself rolls out
        try:
            golden.require_match(self, self._bundle, batch)
        except BaseException:
            self._checked.discard(batch)
            raise
        return_freed_memory()  # all graphs of the batch are open now

    @property
    def _always_needed(self) -> list[str]:
        """Graphs of every prediction: not those of candidates, nor those that are there to compare with."""
        needed = graph_specs(self.manifest.dims, self.manifest.num_steps)
        return [graph for graph in self.specs if graph in needed]

    @cached_property
    def _picture(self) -> FloatArray:
        """Room for one picture as the network sees it: a camera's picture is nothing to allocate per frame."""
        return np.empty(self.specs["encode"].inputs["pixels"], np.float32)

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Whatever goes wrong inside is one of the two errors that loading may raise, and leaves nothing open."""
        try:
            yield
        except BaseException as error:
            self.close()
            if isinstance(error, BackendError) or not isinstance(error, Exception):
                raise
            raise BundleError(f"{self._bundle.root}: {error}") from error

    def _require_loaded(self) -> None:
        if not self._is_loaded:
            raise RuntimeError(
                f"backend {self.name!r}: expected load() first, found it not loaded or closed;"
                " call load() or use it in a with statement"
            )
