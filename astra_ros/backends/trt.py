"""TensorRT backend: engines of both libraries, all buffers on the device, the denoising steps of a chunk one CUDA graph.

What crosses to the host are a chunk's latents and the pictures; keys and values stay on the device.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.backends import golden
from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.cuda import Device, DeviceArray, present_sm
from astra_ros.backends.engines import (
    FASTEST_FIRST,
    EngineSet,
    EngineSpec,
    Found,
    Runtime,
    TensorSpec,
    build_command,
    find_engines,
    read_engine_file,
    rebuild_command,
)
from astra_ros.backends.manifest import BundleError
from astra_ros.backends.rollout import BatchRollout, Rollout
from astra_ros.backends.tensorrt_library import Library, open_library
from astra_ros.denoiser.io import batched
from astra_ros.types import FloatArray

logger = logging.getLogger(__name__)

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


class TensorRtBackend(Backend):
    """Needs a CUDA device, and engines that export.build_trt made of this bundle for it.

    num_threads: of a CPU; nothing here runs on one. precision: of `precisions`; "": the fastest that there are engines of.
    """

    name: Runtime = "tensorrt"

    def __init__(self, bundle: Bundle, num_threads: int = 2, precision: str = "") -> None:
        super().__init__(bundle)
        del num_threads
        self.version, self.precision, self.device = self.name, precision, "cuda"
        self._asked = precision
        self._cuda: Device | None = None
        self._engines: dict[str, Engine] = {}
        self._chunks: dict[int, Chunk] = {}  # by batch

    @classmethod
    def precisions(cls, bundle: Bundle) -> tuple[str, ...]:
        """Those that there are engines of."""
        sm = present_sm()  # before the library, which is large: most machines have no GPU
        found = {engines.precision for _, engines in _find(open_library(cls.name), bundle, sm)}
        return tuple(precision for precision in reversed(FASTEST_FIRST) if precision in found)

    def _open(self) -> None:
        library = open_library(self.name)
        self._cuda = cuda = Device()
        self.version, self.device = f"{library.name} {library.version}", f"cuda:0 ({cuda.name}, SM {cuda.sm})"
        found = _find(library, self._bundle, cuda.sm, self._asked)
        engines, self._engines = _first_sound(library, cuda, found, self.specs)
        self.precision = engines.precision
        self.manifest = self._bundle.manifest.with_batches(engines.batches)

    def _warm_up(self) -> None:
        for batch in self.batches:
            self._capture(batch)
        super()._warm_up()

    def _capture(self, batch: int) -> None:
        """The steps as one CUDA graph, which keeps its buffers. It must answer as the steps do that the golden vectors have checked."""
        inputs, _ = golden.load(self._bundle.file(self.manifest.golden.file), self.manifest)
        encoded = np.stack([self.encode(frame) for frame in inputs.pixels])
        rollout, noise, plan = golden.begun(self, inputs, encoded, batch)
        expected = golden.denoise(rollout, noise[1], plan[1])[-1]
        # One by one, and then captured; of another answer, which the buffers hold when the graph is run.
        rollout.sample(noise[0], plan[0])
        worst = np.abs(rollout.sample(noise[1], plan[1]) - expected).max() / expected.std()
        if not worst <= self.manifest.golden.reduced_tolerance:
            logger.warning(
                "denoising steps run one by one: as a CUDA graph they differ by %.2g of the deviation", worst
            )
            self._chunks[batch].run_one_by_one()

    def run(self, graph: str, inputs: Mapping[str, Any]) -> dict[str, DeviceArray]:
        cuda, spec = self._device(), self.specs[graph]
        values = {}
        for name, shape in spec.inputs.items():
            value = inputs[name]
            _require_shape(graph, name, value.shape, shape)
            values[name] = value if isinstance(value, DeviceArray) else cuda.upload(value)
        outputs = {name: DeviceArray(cuda, shape) for name, shape in spec.outputs.items()}
        self._engine(graph).enqueue({**values, **outputs}, cuda.stream)
        return outputs

    def fetch(self, value: DeviceArray) -> FloatArray:
        return self._device().fetch(value)

    def repeat(self, value: DeviceArray, count: int, axis: int) -> DeviceArray:
        return self._device().repeat(value, count, axis)

    def _new_rollout(self, batch: int) -> Rollout:
        return _GraphRollout(self, batch)

    def sample(self, batch: int, inputs: Mapping[str, Any]) -> DeviceArray:
        """All denoising steps of a chunk, from the inputs of the first. The next call overwrites the result."""
        cuda = self._device()
        graphs = [batched(f"step_{k}", batch) for k in range(self.manifest.num_steps)]
        shapes = self.specs[graphs[0]].inputs
        for name, shape in shapes.items():
            _require_shape(graphs[0], name, inputs[name].shape, shape)
        if batch not in self._chunks:
            self._chunks[batch] = Chunk(cuda, [self._engine(graph) for graph in graphs], shapes)
        return self._chunks[batch].run(inputs)

    def _release(self) -> None:
        self._chunks.clear()
        self._engines.clear()  # before the memory that the engines work in
        if self._cuda is not None:
            self._cuda.close()
            self._cuda = None

    def _engine(self, graph: str) -> Engine:
        if graph not in self._engines:
            raise BackendError(
                f"{graph}: expected an engine, found none; build those of N candidates side by side:"
                f" {build_command(self._bundle.root, self.name)} --candidates N"
            )
        return self._engines[graph]

    def _device(self) -> Device:
        self._require_loaded()
        assert self._cuda is not None
        return self._cuda


class TensorRtRtxBackend(TensorRtBackend):
    """The same with TensorRT-RTX, whose engines are compiled for the GPU when they are loaded."""

    name: Runtime = "tensorrt_rtx"


class Engine:
    """A deserialised engine and the context it runs in; it works in memory that it is given."""

    def __init__(self, library: Library, runtime: Any, graph: str, raw: bytes, spec: EngineSpec) -> None:
        self._graph = graph
        library.errors.clear()
        self._engine = runtime.deserialize_cuda_engine(raw)
        if self._engine is None:
            raise BackendError(f"{graph}: {library.name} cannot load the engine ({library.reason()})")
        _require_io(graph, self._engine, spec)
        strategy = library.module.ExecutionContextAllocationStrategy.USER_MANAGED
        self._context = self._engine.create_execution_context(strategy)
        if self._context is None:
            raise BackendError(f"{graph}: {library.name} cannot run the engine ({library.reason()})")

    @property
    def workspace_bytes(self) -> int:
        return int(self._engine.device_memory_size_v2)

    def bind(self, workspace: int, nbytes: int, weights: Mapping[str, int]) -> None:
        """Give it memory to work in and the addresses of weights that it does not hold itself."""
        if nbytes:
            self._context.set_device_memory(workspace, nbytes)
        for name, pointer in weights.items():
            self._set(name, pointer)

    def enqueue(self, values: Mapping[str, DeviceArray], stream: int) -> None:
        """Ask the stream to compute the outputs among `values` from the inputs among them."""
        for name, value in values.items():
            self._set(name, value.pointer)
        if not self._context.execute_async_v3(stream):
            raise RuntimeError(f"{self._graph}: TensorRT refused to run it")

    def _set(self, name: str, pointer: int) -> None:
        if not self._context.set_tensor_address(name, pointer):
            raise RuntimeError(f"{self._graph}: TensorRT refused the address of {name}")


class Chunk:
    """The denoising steps of a chunk on fixed buffers: one after another the first time, later as one CUDA graph."""

    def __init__(self, cuda: Device, steps: list[Engine], inputs: Mapping[str, tuple[int, ...]]) -> None:
        self._cuda = cuda
        self._steps = steps
        self._inputs = {name: DeviceArray(cuda, shape) for name, shape in inputs.items()}
        self._samples = [DeviceArray(cuda, inputs["noisy_latents"]) for _ in steps]
        self._launch: Callable[[], None] | None = None

    def run(self, inputs: Mapping[str, Any]) -> DeviceArray:
        """The sample after the last step. The next run overwrites it."""
        for name, buffer in self._inputs.items():
            self._cuda.assign(buffer, inputs[name])
        if self._launch is None:  # a context must have run before it is captured
            self._enqueue()
            self._launch = self._captured()
        else:
            self._launch()
        return self._samples[-1]

    def run_one_by_one(self) -> None:
        """From now on."""
        self._launch = self._enqueue

    def _enqueue(self) -> None:
        noisy = self._inputs["noisy_latents"]
        for step, sample in zip(self._steps, self._samples, strict=True):
            step.enqueue({**self._inputs, "noisy_latents": noisy, "latents": sample}, self._cuda.stream)
            noisy = sample

    def _captured(self) -> Callable[[], None]:
        try:
            return self._cuda.capture(self._enqueue)
        except RuntimeError as error:
            logger.warning("denoising steps run one by one: no CUDA graph can be made of them (%s)", error)
            return self._enqueue


class _GraphRollout(BatchRollout):
    def __init__(self, backend: TensorRtBackend, batch: int) -> None:
        super().__init__(backend, batch)
        self._tensorrt = backend

    def sample(self, noise: FloatArray, actions: FloatArray, num_steps: int = 0) -> FloatArray:
        if self._num_steps(num_steps) < self.num_steps:
            return super().sample(noise, actions, num_steps)
        inputs = {"noisy_latents": noise, **self._given(actions, "sample()")}
        return self._tensorrt.fetch(self._tensorrt.sample(self.batch, inputs))


def _find(library: Library, bundle: Bundle, sm: int, precision: str = "") -> list[Found]:
    known = library.targets
    if (
        known and sm not in known and sm < max(known)
    ):  # only tensorrt_rtx knows others than the one that is present
        raise BackendError(
            f"{library.name} {library.version}: expected a GPU of SM {', '.join(map(str, known))} or newer, found SM {sm};"
            f" choose backend 'tensorrt' and {build_command(bundle.root, 'tensorrt')}, or backend 'torch:cuda'"
        )
    return find_engines(bundle, library.name, library.version, sm, precision)


def _first_sound(
    library: Library, cuda: Device, found: Sequence[Found], graphs: Collection[str]
) -> tuple[EngineSet, dict[str, Engine]]:
    """Of the first folder that loads. Raises what is wrong with the first when none does."""
    refusals: list[BackendError | BundleError] = []
    for folder, engines in found:
        try:
            loaded = _load(library, cuda, folder, engines, graphs)
        except (BackendError, BundleError) as error:
            refusals.append(error)
            continue
        for refusal in refusals:
            logger.warning("engines passed over: %s", refusal)
        return engines, loaded
    raise refusals[0]


def _load(
    library: Library, cuda: Device, folder: Path, engines: EngineSet, graphs: Collection[str]
) -> dict[str, Engine]:
    runtime = library.module.Runtime(library.log)
    loaded = {}
    for graph in (graph for graph in graphs if graph in engines.engines):
        spec = engines.engines[graph]
        raw = read_engine_file(folder, engines, spec.file)
        try:
            loaded[graph] = Engine(library, runtime, graph, raw, spec)
        except BackendError as error:
            again = rebuild_command(folder, engines)
            raise BackendError(f"{error}; build the engines again: {again}") from error
    # After the engines, so that nothing is left on the device when one of them is damaged.
    weights = cuda.upload_bytes(read_engine_file(folder, engines, engines.weights)) if engines.weights else 0
    # Engines run one after another: they can work in the same memory.
    nbytes = max(engine.workspace_bytes for engine in loaded.values())
    workspace = cuda.allocate(nbytes) if nbytes else 0
    for graph, engine in loaded.items():
        offsets = {name: weight.offset for name, weight in engines.engines[graph].weights.items()}
        engine.bind(workspace, nbytes, {name: weights + offset for name, offset in offsets.items()})
    return loaded


def _require_io(graph: str, engine: Any, spec: EngineSpec) -> None:
    found = {}
    for name in (engine.get_tensor_name(index) for index in range(engine.num_io_tensors)):
        dtype = engine.get_tensor_dtype(name).name
        found[name] = (tuple(engine.get_tensor_shape(name)), _DTYPES.get(dtype, dtype))
    weights = {name: TensorSpec(weight.shape, weight.dtype) for name, weight in spec.weights.items()}
    tensors = {**spec.inputs, **weights, **spec.outputs}
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if found != expected:
        wrong = {name for name in expected | found if found.get(name) != expected.get(name)}
        raise BackendError(
            f"{graph}: expected an engine with the tensors that its engines.json names, found other {sorted(wrong)}"
        )


def _require_shape(graph: str, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(found) != expected:  # TensorRT would read beyond the end
        raise ValueError(f"{graph}: {name}: expected shape {expected}, found {tuple(found)}")
