"""The part of CUDA that a TensorRT backend needs: one device, one stream, buffers that are used again, CUDA graphs.

cuda-bindings is imported when a device is opened; reading this module needs neither it nor a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from importlib import import_module
from math import prod
from typing import Any

import numpy as np

from astra_ros.backends.base import BackendError
from astra_ros.types import FloatArray

_ITEM_BYTES = 4
_DEVICE = 0


class DeviceArray:
    """float32 values on the device. When the last reference is gone its memory serves the next array of that size."""

    def __init__(self, device: Device, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._device = device
        self._buffer = device.take(_ITEM_BYTES * prod(shape))

    @property
    def pointer(self) -> int:
        return self._buffer.pointer

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes

    def __del__(self) -> None:
        if hasattr(self, "_buffer"):  # else there was no memory
            self._device.give_back(self._buffer)

    def mirror(self) -> FloatArray:
        """Page-locked host memory of the same shape, which belongs to the buffer."""
        return self._buffer.mirror(self._device).reshape(self.shape)


class Buffer:
    """Device memory, and host memory to fetch it into."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.pointer = pointer
        self.nbytes = nbytes
        self._mirror: FloatArray | None = None

    def mirror(self, device: Device) -> FloatArray:
        if self._mirror is None:
            self._mirror = device.host_array(self.nbytes)
        return self._mirror


class Device:
    """The first CUDA device. Everything runs on one stream, in the order in which it is asked for.

    Raises BackendError when there is no device; RuntimeError when CUDA reports an error later.
    """

    def __init__(self) -> None:
        self._cuda = _import_cuda()
        self.sm = _sm(self._cuda)
        properties = self._call("cudaGetDeviceProperties", _DEVICE)
        self.name = properties.name.decode(errors="replace")
        self._call("cudaSetDevice", _DEVICE)
        self._stream = self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking)
        self._free: dict[int, list[Buffer]] = {}
        self._device_memory: list[int] = []
        self._host_memory: list[int] = []
        self._graphs: list[Any] = []

    @property
    def stream(self) -> int:
        return int(self._stream)

    def upload(self, values: Any) -> DeviceArray:
        """A copy of a numpy array; the array may be changed as soon as this returns."""
        array = DeviceArray(self, values.shape)
        self.assign(array, values)
        return array

    def assign(self, array: DeviceArray, values: Any) -> None:
        """Overwrite an array with a numpy array or another array of its shape."""
        if tuple(values.shape) != array.shape:
            raise ValueError(f"expected shape {array.shape}, found {tuple(values.shape)}")
        kinds = self._cuda.cudaMemcpyKind
        if isinstance(values, DeviceArray):
            self._copy(array.pointer, values.pointer, array.nbytes, kinds.cudaMemcpyDeviceToDevice)
        else:  # pageable memory: CUDA has read it when the call returns
            host = np.ascontiguousarray(values, np.float32)
            self._copy(array.pointer, host.ctypes.data, array.nbytes, kinds.cudaMemcpyHostToDevice)

    def repeat(self, values: DeviceArray, count: int, axis: int) -> DeviceArray:
        """`count` times along an axis of length 1."""
        shape = values.shape
        if shape[axis] != 1:
            raise ValueError(f"axis {axis}: expected length 1, found {shape[axis]} of {shape}")
        repeated = DeviceArray(self, (*shape[:axis], count, *shape[axis + 1 :]))
        row, rows = _ITEM_BYTES * prod(shape[axis + 1 :]), prod(shape[:axis])
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        for index in range(count):
            target = repeated.pointer + index * row
            arguments = (target, count * row, values.pointer, row, row, rows, kind, self._stream)
            self._call("cudaMemcpy2DAsync", *arguments)
        return repeated

    def fetch(self, array: DeviceArray) -> FloatArray:
        """The values, once all that was asked for before is done. The next array that uses this memory overwrites them."""
        host = array.mirror()
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(host.ctypes.data, array.pointer, array.nbytes, kind)
        self._call("cudaStreamSynchronize", self._stream)
        return host

    def upload_bytes(self, raw: bytes) -> int:
        """Address of a copy that stays until the device is closed."""
        pointer = self.allocate(len(raw))
        host = np.frombuffer(raw, np.uint8)
        self._copy(pointer, host.ctypes.data, len(raw), self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice)
        self._call("cudaStreamSynchronize", self._stream)
        return pointer

    def allocate(self, nbytes: int) -> int:
        """Address of device memory that stays until the device is closed."""
        pointer = int(self._call("cudaMalloc", nbytes))
        self._device_memory.append(pointer)
        return pointer

    def capture(self, enqueue: Callable[[], None]) -> Callable[[], None]:
        """What `enqueue` asks of the stream, as one CUDA graph; calling the result launches it. Nothing runs here."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            enqueue()
        finally:
            graph = self._call("cudaStreamEndCapture", self._stream)
        launchable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        self._graphs.append(launchable)
        return lambda: self._call("cudaGraphLaunch", launchable, self._stream)

    def take(self, nbytes: int) -> Buffer:
        """Memory that is free, or new."""
        free = self._free.setdefault(nbytes, [])
        return free.pop() if free else Buffer(self.allocate(nbytes), nbytes)

    def give_back(self, buffer: Buffer) -> None:
        self._free.setdefault(buffer.nbytes, []).append(buffer)

    def host_array(self, nbytes: int) -> FloatArray:
        """Page-locked float32 values, which stay until the device is closed."""
        pointer = int(self._call("cudaMallocHost", nbytes))
        self._host_memory.append(pointer)
        memory = (ctypes.c_float * (nbytes // _ITEM_BYTES)).from_address(pointer)
        return np.ctypeslib.as_array(memory)

    def close(self) -> None:
        """Free everything; arrays that are still referred to are void. May be called twice."""
        if self._stream is not None:
            self._cuda.cudaStreamSynchronize(self._stream)
        for name, resources in (
            ("cudaGraphExecDestroy", self._graphs),
            ("cudaFree", self._device_memory),
            ("cudaFreeHost", self._host_memory),
            ("cudaStreamDestroy", [self._stream] if self._stream is not None else []),
        ):
            for resource in resources:
                getattr(self._cuda, name)(resource)  # on the way out; an error would only hide the one before
            resources.clear()
        self._stream = None
        self._free.clear()

    def _copy(self, target: int, source: int, nbytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, nbytes, kind, self._stream)

    def _call(self, name: str, *arguments: Any) -> Any:
        return _check(self._cuda, name, getattr(self._cuda, name)(*arguments))


def present_sm() -> int:
    """SM of the first device, 86 for compute capability 8.6. Raises BackendError."""
    return _sm(_import_cuda())


def _import_cuda() -> Any:
    try:
        return import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise BackendError(
            f"CUDA: expected the package cuda-bindings, found none that loads ({error}); pip install 'cuda-bindings>=12.9,<13'"
        ) from error


def _sm(cuda: Any) -> int:
    error, count = cuda.cudaGetDeviceCount()
    if error != cuda.cudaError_t.cudaSuccess or not count:
        raise BackendError(
            f"no CUDA device ({_reason(cuda, error) if int(error) else 'none is visible'}); install an NVIDIA driver and"
            " see that nvidia-smi lists the GPU, or choose backend 'onnxruntime', which needs none"
        )
    attributes = cuda.cudaDeviceAttr
    major, minor = (
        _check(cuda, "cudaDeviceGetAttribute", cuda.cudaDeviceGetAttribute(attribute, _DEVICE))
        for attribute in (
            attributes.cudaDevAttrComputeCapabilityMajor,
            attributes.cudaDevAttrComputeCapabilityMinor,
        )
    )
    return 10 * int(major) + int(minor)


def _check(cuda: Any, name: str, answer: tuple[Any, ...]) -> Any:
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        raise RuntimeError(f"{name}: {_reason(cuda, error)}")
    return values[0] if values else None


def _reason(cuda: Any, error: Any) -> str:
    return str(cuda.cudaGetErrorString(error)[1].decode(errors="replace"))
