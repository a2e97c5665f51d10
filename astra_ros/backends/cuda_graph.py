"""Torch functions recorded once as CUDA graphs: each run is one launch instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from astra_ros.denoiser.io import GraphSpec, Shape

TorchFunction = Callable[..., Sequence[Tensor]]

# Runs before recording: libraries choose their kernels and take their work space then.
_REHEARSALS = 2


class Recorder:
    """Records functions that run one after another, on one thread; they share their memory.

    Equal inputs have one buffer: the steps of a chunk find the history's keys and values in place.
    device: on a CPU, where nothing can be recorded, the functions run each time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[tuple[str, Shape], InputBuffer] = {}
        self._is_cuda = device.type == "cuda"
        if self._is_cuda:
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def record(self, function: TorchFunction, spec: GraphSpec) -> RecordedFunction:
        """A function of float32 tensors in the order and of the shapes of spec.inputs, without gradients."""
        inputs = [self._buffer(*item) for item in spec.inputs.items()]
        recorded = RecordedFunction(function, inputs)
        if self._is_cuda:
            recorded.run = self._captured(recorded.run)
        return recorded

    def _buffer(self, name: str, shape: Shape) -> InputBuffer:
        if (name, shape) not in self._buffers:
            self._buffers[name, shape] = InputBuffer(shape, self._device)
        return self._buffers[name, shape]

    def _captured(self, run: Callable[[], None]) -> Callable[[], None]:
        """What repeats the device's part of `run`."""
        graph, now = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        with torch.inference_mode(), _full_precision():
            self._stream.wait_stream(now)
            with torch.cuda.stream(self._stream):
                for _ in range(_REHEARSALS):
                    run()
            now.wait_stream(self._stream)
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                run()
        return graph.replay


class InputBuffer:
    """Memory on the device at a fixed address, where recorded functions read one input."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.tensor = torch.zeros(shape, device=device)
        self._held: Tensor | None = None

    def hold(self, value: Tensor) -> None:
        """Copy a value here. Nobody writes to one that lies on the device: the same one is copied only once."""
        if value is not self._held:
            self.tensor.copy_(value, non_blocking=True)
            self._held = value if value.device == self.tensor.device else None


class RecordedFunction:
    """Call it as the function itself: tensors on the host or on the device → a tuple of new ones on the device."""

    def __init__(self, function: TorchFunction, inputs: Sequence[InputBuffer]) -> None:
        self._function = function
        self._inputs = inputs
        self._outputs: Sequence[Tensor] = ()
        self.run: Callable[[], None] = self._run

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        for buffer, value in zip(self._inputs, values, strict=True):
            buffer.hold(value)
        self.run()
        # The next run overwrites the outputs; what was handed out stays as it is.
        return tuple(output.clone() for output in self._outputs)

    def _run(self) -> None:
        self._outputs = self._function(*(buffer.tensor for buffer in self._inputs))


@contextmanager
def _full_precision() -> Iterator[None]:
    """Float32 is float32: without this, convolutions round their inputs to 10 bits (TF32)."""
    parts = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision
