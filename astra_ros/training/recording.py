"""A micro-batch's passes as a CUDA graph: recorded once, replayed as one launch, where the host's many would set the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

Passes = Callable[[tuple[Tensor, ...]], dict[str, Tensor]]

WARM_UP = 3  # runs before it is recorded, in which libraries choose their kernels and take their memory


class Recording:
    """Replays `passes`, which turns inputs into losses and adds to the gradients of `parameters`.

    All inputs are on the GPU, of the same shapes at every call. The gradients are kept in place from then on: set them to zero,
    not to None. The losses are overwritten by the next call.
    """

    def __init__(self, passes: Passes, parameters: Iterable[nn.Parameter]) -> None:
        self._passes = passes
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._losses: dict[str, Tensor] = {}

    def __call__(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        if self._graph is None:
            self._graph = self._recorded(inputs)
        for own, new in zip(self._inputs, inputs, strict=True):
            own.copy_(new)
        self._graph.replay()
        return self._losses

    def _recorded(self, inputs: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        self._inputs = tuple(map(torch.clone, inputs))
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self._passes(self._inputs)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Of this thread only: another one copies segments to pinned memory meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._losses = self._passes(self._inputs)
        for parameter in self._parameters:
            parameter.grad.zero_()  # type: ignore[union-attr]
        return graph
