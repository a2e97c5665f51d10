"""The bundle's graphs in torch as people run it: operator by operator, or compiled. For comparison only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from astra_ros.backends.base import BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.eager import EagerBackend
from astra_ros.backends.torch_graph import load_graphs

# "": not compiled.
CompileMode = Literal["", "default", "max-autotune"]
_Function = Callable[..., Sequence[Tensor]]


class PlainTorch(EagerBackend):
    """mode: of torch.compile, for the graphs of a chunk as they are timed; the others stay as they are."""

    def __init__(self, bundle: Bundle, num_threads: int, device: str, mode: CompileMode = "") -> None:
        super().__init__(bundle, num_threads, device)
        self._mode = mode
        self.version += f", torch.compile {mode}" if mode else ", eager"

    def _open(self) -> None:
        if self.device == "cuda" and not torch.cuda.is_available():
            raise BackendError(
                f"device: expected a CUDA device, found none that torch {torch.__version__} can use"
            )
        torch.set_num_threads(self._num_threads)
        torch.backends.cudnn.allow_tf32 = False  # float32 is float32, as in the other runtimes
        steps = {f"step_{k}" for k in range(self.manifest.num_steps)}
        for name, graph in load_graphs(self._bundle, self.device).items():
            is_timed = name in {"encode", "append", "decode", *steps}
            function = self._compiled(graph) if self._mode and is_timed else graph
            self._graphs[name] = _from_host(function) if self.device == "cuda" else function

    def _compiled(self, graph: _Function) -> _Function:
        compiled = torch.compile(graph, mode=self._mode, dynamic=False, fullgraph=True)
        return _kept(compiled) if self.device == "cuda" else compiled


def _from_host(function: _Function) -> _Function:
    return lambda *values: function(*(value.to("cuda") for value in values))


def _kept(function: _Function) -> _Function:
    """max-autotune records CUDA graphs: the next run overwrites what the last one returned."""

    def run(*values: Tensor) -> Sequence[Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        return tuple(output.clone() for output in function(*values))

    return run
