"""The two TensorRT libraries, tensorrt (10.x and 11.x) and tensorrt_rtx, behind one handle. Imported when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from astra_ros.backends.base import BackendError
from astra_ros.backends.engines import Runtime

PACKAGES: dict[Runtime, str] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu12"}


@dataclass(frozen=True)
class Library:
    """An imported library.

    log: its logger, of which a process may have one only. errors: what it logged as errors, oldest first.
    """

    name: Runtime
    module: Any
    version: str
    log: Any
    errors: list[str]

    @property
    def targets(self) -> tuple[int, ...]:
        """SMs that engines can be built for without that GPU; empty when only the present GPU is possible."""
        members = getattr(self.module, "ComputeCapability", None)
        names = members.__members__ if self.name == "tensorrt_rtx" and members else ()
        return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM")))

    def reason(self) -> str:
        """What the library said last, on one line."""
        return " ".join(self.errors[-1].split())[:300] if self.errors else "no reason given"


@cache
def open_library(name: Runtime) -> Library:
    """Raises BackendError when the package is not installed or does not load."""
    try:
        module = import_module(name)
    except ImportError as error:
        package = PACKAGES[name]
        raise BackendError(
            f"{name}: expected the package {package}, found none that loads ({error}); pip install {package}"
        ) from error
    errors: list[str] = []
    return Library(name, module, str(module.__version__), _logger(module, errors), errors)


def _logger(module: Any, errors: list[str]) -> Any:
    severities = module.ILogger.Severity

    class Log(module.ILogger):
        def __init__(self) -> None:
            super().__init__()

        def log(self, severity: Any, message: str) -> None:
            if severity in (severities.INTERNAL_ERROR, severities.ERROR):
                errors.append(message)

    return Log()
