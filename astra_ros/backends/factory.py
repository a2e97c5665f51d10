"""Choose and open a backend. Runtimes are imported only when asked for."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import PRECISIONS, BundleError
from astra_ros.backends.probe import load_fastest

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Kind:
    """Where a backend lives, what it needs, and what "NAME:..." chooses.

    package: as it is imported. install: what pip calls it. choice: keyword of the class, "" when there is none.
    """

    module: str
    class_name: str
    package: str
    install: str
    choice: str = ""


class _PrecisionError(BackendError):
    """The backend is here, but not in the precision that was asked for."""


# In the order in which "auto" tries them: fastest first.
_KINDS = {
    "tensorrt": _Kind("trt", "TensorRtBackend", "tensorrt", "tensorrt"),
    "tensorrt_rtx": _Kind("trt", "TensorRtRtxBackend", "tensorrt_rtx", "tensorrt-rtx-cu12"),
    "openvino": _Kind("openvino", "OpenVinoBackend", "openvino", "openvino"),
    "onnxruntime": _Kind("ort", "OrtBackend", "onnxruntime", "onnxruntime", choice="provider"),
    "torch": _Kind("eager", "EagerBackend", "torch", "torch onnx", choice="device"),
}


NAMES = tuple(_KINDS)


def precisions(bundle: Bundle, name: str) -> tuple[str, ...]:
    """What a backend can run a bundle in on this machine. Raises BackendError when it cannot."""
    backend_class, _ = _find(name)
    return _possible(backend_class, name, bundle)


def open_backend(
    bundle: Bundle, name: str = "auto", num_threads: int = 2, precision: str = "auto"
) -> Backend:
    """A backend for a bundle, loaded and warmed up.

    name: "auto" takes the first of "tensorrt", "tensorrt_rtx", "openvino", "onnxruntime" and "torch" that is installed,
    can run here and gives the right answers. Any other name is that backend or an error, never another one; two have
    variants: "onnxruntime:CUDAExecutionProvider" or another provider, "torch:cuda".
    num_threads: CPU threads of the runtime. precision: "auto" times those that the backend has and takes the fastest
    whose answers are right; any other is that one or an error.
    Raises BackendError, and BundleError when the bundle does not load.
    """
    if num_threads < 1:
        raise BackendError(f"num_threads: expected 1 or more, found {num_threads}")
    if precision not in ("auto", *PRECISIONS):
        raise BackendError(
            f"precision {precision[:80]!r}: expected one of {['auto', *PRECISIONS]}; choose 'auto'"
        )
    if name == "auto":
        return _first_that_runs(bundle, num_threads, precision)
    return _open(name, bundle, num_threads, precision, "asked for by name")


def _first_that_runs(bundle: Bundle, num_threads: int, precision: str) -> Backend:
    reasons: dict[str, BackendError | BundleError] = {}
    for name in _KINDS:
        try:
            return _open(name, bundle, num_threads, precision, "auto: the first that runs here")
        except (BackendError, BundleError) as error:
            logger.info("backend %s not taken: %s", name, error)
            reasons[name] = error
    runs_otherwise = any(isinstance(error, _PrecisionError) for error in reasons.values())
    remedy = "choose precision 'auto'" if runs_otherwise else "pip install onnxruntime"
    told = "; ".join(f"{name}: {error}" for name, error in reasons.items())
    raise BackendError(
        f"backend 'auto': expected one of {list(_KINDS)} to run {bundle.root} here, found none; {remedy} ({told})"
    )


def _open(name: str, bundle: Bundle, num_threads: int, precision: str, reason: str) -> Backend:
    backend_class, options = _find(name)
    possible = _possible(backend_class, name, bundle)
    if precision not in ("auto", *possible):
        raise _PrecisionError(
            f"precision: expected one of {['auto', *possible]} (what backend {name!r} has here), found {precision!r};"
            " choose 'auto'"
        )
    wanted = possible if precision == "auto" else (precision,)
    choices = [{"precision": one} for one in wanted] if len(possible) > 1 else [{}]
    with _in_one_line(name):
        backend = load_fastest(
            [backend_class(bundle, num_threads, **options, **choice) for choice in choices]
        )
        backend.warmup()
    logger.info(
        "backend %s (%s, %s, %s on %s, %d threads)", name, reason, backend.version, backend.precision, backend.device,
        num_threads,
    )  # fmt: skip
    return backend


def _possible(backend_class: Any, name: str, bundle: Bundle) -> tuple[str, ...]:
    with _in_one_line(name):
        found: tuple[str, ...] = backend_class.precisions(bundle)
        return found


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """What a runtime or a driver raises, which share no base class, is a reason not to take this backend, and no end of the others."""
    try:
        yield
    except (BackendError, BundleError):
        raise
    except Exception as error:
        raise BackendError(
            f"backend {name!r}: expected a runtime that works here, found {type(error).__name__}:"
            f" {' '.join(str(error).split())[:300]}; choose another backend, or install it and its driver again"
        ) from error


def _find(name: str) -> tuple[Any, dict[str, str]]:
    """The class behind a name and the options in it. Raises BackendError when there is none or its package is missing."""
    stem, _, choice = name.partition(":")
    kind = _KINDS.get(stem)
    if kind is None or (":" in name and not (kind.choice and choice)):
        variants = [f"{known}:{other.choice.upper()}" for known, other in _KINDS.items() if other.choice]
        raise BackendError(
            f"backend {name[:80]!r}: expected one of {['auto', *_KINDS, *variants]}, found another; choose 'auto'"
        )
    if find_spec(kind.package) is None:
        raise BackendError(
            f"backend {stem!r}: expected the package {kind.package}, found none; pip install {kind.install}"
        )
    try:
        module = import_module(f"astra_ros.backends.{kind.module}")
    except (ImportError, OSError) as error:  # OSError: a library of the package that does not load
        raise BackendError(f"backend {stem!r}: {_why_not(kind, error)}") from error
    return getattr(module, kind.class_name), {kind.choice: choice} if choice else {}


def _why_not(kind: _Kind, error: ImportError | OSError) -> str:
    """Another package that it needs is missing, or its own is broken."""
    missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if missing != kind.package and missing in kind.install.split():
        return f"expected the package {missing}, found none; pip install {missing}"
    return (
        f"expected a package {kind.package} that loads, found {error};"
        f" pip install --force-reinstall {kind.install}"
    )
