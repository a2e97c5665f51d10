"""A CUDA device made of host memory, and TensorRT engines run on it by ONNX Runtime: for machines without a GPU.

It is strict where a GPU would fail silently: work waits in the stream until somebody synchronises, memory is filled with
NaN, and every address must lie in memory that is allocated at the time. Libraries, enumerations and engine files are the
real ones.
"""

from __future__ import annotations

import ctypes
import json
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from astra_ros.backends.bundle import Bundle
from astra_ros.backends.engines import Precision
from export.engine_weights import SharedWeights
from export.precision import load_graph

STREAM = 7
Work = Callable[[], None]
_TYPES = {"tensor(float)": ("FLOAT", np.float32), "tensor(float16)": ("HALF", np.float16)}


class HostCuda:
    """Stands in for the module cuda.bindings.runtime. calls: how often each function was called.

    sm: of the GPU it claims to be. memory_limit: bytes after which it is full. captures: whether CUDA graphs work.
    """

    def __init__(self, sm: int = 89, memory_limit: int = 1 << 40, *, captures: bool = True) -> None:
        self._real = import_module("cuda.bindings.runtime")
        self.sm, self.memory_limit, self.captures = sm, memory_limit, captures
        self.calls: Counter[str] = Counter()
        self.memory: dict[int, Any] = {}
        self.graphs: dict[int, list[Work]] = {}
        self._queue: list[Work] = []
        self._captured: list[Work] | None = None

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cuda"):
            self.calls[name] += 1
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        assert isinstance(found, type) or not callable(found), f"{name} would call the real CUDA"
        return found

    def enqueue(self, work: Work) -> None:
        (self._queue if self._captured is None else self._captured).append(work)

    def view(self, pointer: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """Bytes at an address, which must be allocated."""
        for start, block in self.memory.items():
            if start <= pointer and pointer + nbytes <= start + len(block):
                return np.ctypeslib.as_array(block)[pointer - start : pointer - start + nbytes]
        raise AssertionError(f"{nbytes} bytes at {pointer:#x} are not allocated")

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(1)

    def cudaGetDeviceProperties(self, _: int) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(SimpleNamespace(name=b"host memory"))

    def cudaDeviceGetAttribute(self, attribute: Any, _: int) -> tuple[Any, ...]:  # noqa: N802
        is_major = attribute == self._real.cudaDeviceAttr.cudaDevAttrComputeCapabilityMajor
        return self._ok(self.sm // 10 if is_major else self.sm % 10)

    def cudaGetErrorString(self, error: Any) -> tuple[Any, ...]:  # noqa: N802
        return self._real.cudaGetErrorString(error)

    def cudaSetDevice(self, _: int) -> tuple[Any, ...]:  # noqa: N802
        return self._ok()

    def cudaStreamCreateWithFlags(self, _: int) -> tuple[Any, ...]:  # noqa: N802
        return self._ok(STREAM)

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert stream == STREAM
        return self._ok()

    def cudaMalloc(self, nbytes: int) -> tuple[Any, ...]:  # noqa: N802
        if sum(len(block) for block in self.memory.values()) + nbytes > self.memory_limit:
            return (self._real.cudaError_t.cudaErrorMemoryAllocation, None)
        block = (ctypes.c_uint8 * nbytes).from_buffer(bytearray(b"\xff" * nbytes))  # NaN in every float type
        self.memory[ctypes.addressof(block)] = block
        return self._ok(ctypes.addressof(block))

    cudaMallocHost = cudaMalloc  # noqa: N815

    def cudaFree(self, pointer: int) -> tuple[Any, ...]:  # noqa: N802
        del self.memory[pointer]
        return self._ok()

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaMemcpyAsync(self, to: int, source: int, nbytes: int, kind: Any, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert stream == STREAM
        if kind == self._real.cudaMemcpyKind.cudaMemcpyHostToDevice:
            assert self._captured is None, "pageable memory cannot be copied in a CUDA graph"
            raw = np.frombuffer(ctypes.string_at(source, nbytes), np.uint8)
            self.enqueue(lambda: np.copyto(self.view(to, nbytes), raw))
        else:
            self.enqueue(lambda: np.copyto(self.view(to, nbytes), self.view(source, nbytes)))
        return self._ok()

    def cudaMemcpy2DAsync(  # noqa: N802
        self, to: int, to_pitch: int, source: int, pitch: int, width: int, height: int, kind: Any, stream: int
    ) -> tuple[Any, ...]:
        assert (kind, stream) == (self._real.cudaMemcpyKind.cudaMemcpyDeviceToDevice, STREAM)
        assert min(to_pitch, pitch) >= width

        def copy() -> None:
            for row in range(height):
                np.copyto(self.view(to + row * to_pitch, width), self.view(source + row * pitch, width))

        self.enqueue(copy)
        return self._ok()

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert stream == STREAM
        assert self._captured is None, "a stream that is captured cannot be waited for"
        while self._queue:
            self._queue.pop(0)()
        return self._ok()

    def cudaStreamBeginCapture(self, _: int, __: Any) -> tuple[Any, ...]:  # noqa: N802
        if not self.captures:
            return (self._real.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self._captured = []
        return self._ok()

    def cudaStreamEndCapture(self, _: int) -> tuple[Any, ...]:  # noqa: N802
        captured, self._captured = self._captured, None
        return self._ok(captured)

    def cudaGraphInstantiate(self, graph: list[Work], _: int) -> tuple[Any, ...]:  # noqa: N802
        handle = len(self.graphs) + 1
        self.graphs[handle] = graph
        return self._ok(handle)

    def cudaGraphDestroy(self, _: Any) -> tuple[Any, ...]:  # noqa: N802
        return self._ok()

    def cudaGraphExecDestroy(self, handle: int) -> tuple[Any, ...]:  # noqa: N802
        del self.graphs[handle]
        return self._ok()

    def cudaGraphLaunch(self, handle: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert stream == STREAM
        for work in self.graphs[handle]:
            self.enqueue(work)
        return self._ok()

    def _ok(self, *values: Any) -> tuple[Any, ...]:
        return (self._real.cudaError_t.cudaSuccess, *values)


class HostRuntime:
    """Stands in for tensorrt_rtx.Runtime: of an engine file it reads which graph it is, and runs that.

    scratch: a file to move weights to that the engines have as inputs; None: they hold them.
    """

    def __init__(self, cuda: HostCuda, bundle: Bundle, precision: Precision, scratch: Path | None) -> None:
        self._cuda, self._bundle, self._precision, self._scratch = cuda, bundle, precision, scratch

    def __call__(self, log: Any) -> HostRuntime:
        assert log is not None
        return self

    def deserialize_cuda_engine(self, raw: bytes) -> HostEngine:
        start = raw.index(b'{"graph": ')
        graph = json.loads(raw[start : raw.index(b"}", start) + 1])["graph"]
        model = load_graph(self._bundle.graph(graph), self._precision)
        if self._scratch:
            with SharedWeights(self._scratch) as weights:
                weights.move_from(model.graph)
        return HostEngine(self._cuda, model.SerializeToString())


class HostEngine:
    """An engine and, since it has no state, its execution context."""

    device_memory_size_v2 = 4096

    def __init__(self, cuda: HostCuda, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self._cuda, self._session = cuda, onnxruntime.InferenceSession(model, options)
        self._values = {v.name: v for v in [*self._session.get_inputs(), *self._session.get_outputs()]}
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._addresses: dict[str, int] = {}
        self._workspace = 0

    @property
    def num_io_tensors(self) -> int:
        return len(self._values)

    def get_tensor_name(self, index: int) -> str:
        return list(self._values)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._values[name].shape)

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=_TYPES[self._values[name].type][0])

    def create_execution_context(self, strategy: Any) -> HostEngine:
        assert strategy.name == "USER_MANAGED"
        return self

    def set_device_memory(self, pointer: int, nbytes: int) -> None:
        assert nbytes >= self.device_memory_size_v2
        self._cuda.view(pointer, nbytes)
        self._workspace = pointer

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return name in self._values

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        assert self._workspace, "no memory to work in"
        assert set(self._addresses) == set(self._values)
        addresses = dict(self._addresses)

        def execute() -> None:
            self._cuda.view(self._workspace, self.device_memory_size_v2)
            given = {name: self._at(name, addresses[name]) for name in addresses if name not in self._outputs}
            for name, values in zip(self._outputs, self._session.run(self._outputs, given), strict=True):
                np.copyto(self._at(name, addresses[name]), values)

        self._cuda.enqueue(execute)
        return True

    def _at(self, name: str, pointer: int) -> npt.NDArray[Any]:
        value = self._values[name]
        dtype = np.dtype(_TYPES[value.type][1])
        size = int(np.prod(value.shape)) * dtype.itemsize
        return self._cuda.view(pointer, size).view(dtype).reshape(value.shape)
