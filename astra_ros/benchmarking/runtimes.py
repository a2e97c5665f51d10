"""What the subjects run on, by name: opened at most once, or the reason why not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.factory import open_backend

SERVED = "served"  # what the node would take

Opener = Callable[[Bundle, int], Backend]


def _as_shipped(name: str, precision: str = "auto") -> Opener:
    return lambda bundle, num_threads: open_backend(bundle, name, num_threads, precision)


def _onnxruntime_defaults(bundle: Bundle, num_threads: int) -> Backend:
    from astra_ros.backends.ort import OrtBackend

    class OrtDefaults(OrtBackend):
        """A thread for every core, which spins while it waits: what SessionOptions() asks for."""

        def _options(self) -> Any:
            return type(super()._options())()

    return OrtDefaults(bundle, num_threads)


def _torch(device: str, mode: Literal["", "default", "max-autotune"] = "") -> Opener:
    def open_torch(bundle: Bundle, num_threads: int) -> Backend:
        from astra_ros.benchmarking.torch_runtimes import PlainTorch

        return PlainTorch(bundle, num_threads, device, mode)

    return open_torch


RUNTIMES: dict[str, Opener] = {
    "torch": _torch("cpu"),
    "torch.compile": _torch("cpu", "default"),
    "onnxruntime-defaults": _onnxruntime_defaults,
    "onnxruntime": _as_shipped("onnxruntime"),
    "openvino-fp32": _as_shipped("openvino", "fp32"),
    "openvino-bf16": _as_shipped("openvino", "bf16"),
    SERVED: _as_shipped("auto"),
    "cuda": _torch("cuda"),
    "cuda.compile": _torch("cuda", "max-autotune"),
    "cuda.graph": _as_shipped("torch:cuda"),
}


class Runtimes:
    """Opens what is asked for and keeps it open. skipped: the runtimes that do not open here, and why."""

    def __init__(self, bundle: Bundle, num_threads: int, report: Callable[[str], None]) -> None:
        self._bundle, self._num_threads, self._report = bundle, num_threads, report
        self._open: dict[str, Backend] = {}
        self._stack = ExitStack()
        self.skipped: dict[str, str] = {}

    def get(self, name: str) -> Backend | None:
        """Loaded; None when it cannot run here."""
        if name not in self._open and name not in self.skipped:
            self._report(f"opening {name}{' (it compiles for minutes)' if name.endswith('.compile') else ''}")
            try:
                backend = RUNTIMES[name](self._bundle, self._num_threads)
                self._open[name] = self._stack.enter_context(backend)
            except (ImportError, RuntimeError, ValueError) as error:
                self.skipped[name] = " ".join(str(error).split())
        return self._open.get(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.clear()
        self._stack.close()
