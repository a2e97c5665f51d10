"""Choose and open a backend. Runtimes are imported only when asked for."""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.util import find_spec

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.bundle import Bundle

logger = logging.getLogger(__name__)

# Name → (module it lives in, its class, the package it needs), fastest first: the order in which "auto" tries.
_BACKENDS = {"onnxruntime": ("astra_ros.backends.ort", "OrtBackend", "onnxruntime")}


def open_backend(bundle: Bundle, name: str = "auto", num_threads: int = 2) -> Backend:
    """A loaded backend for a bundle.

    name: "auto" takes the first whose package is installed; any other name is that backend or an error, never
    another one. num_threads: CPU threads of the runtime.
    Raises BackendError, and BundleError when the bundle does not load.
    """
    if name == "auto":
        chosen = next((known for known in _BACKENDS if _is_installed(known)), None)
        if chosen is None:
            raise BackendError(
                f"backend 'auto': expected one of {_packages()}, found none; pip install onnxruntime"
            )
        reason = f"auto: first installed of {list(_BACKENDS)}"
    else:
        chosen, reason = _require_available(name), "asked for by name"
    backend = _construct(chosen, bundle, num_threads)
    backend.load()
    logger.info(
        "backend %s (%s, %s, %s on %s, %d threads)", chosen, reason, backend.version, backend.precision,
        backend.device, num_threads,
    )  # fmt: skip
    return backend


def _construct(name: str, bundle: Bundle, num_threads: int) -> Backend:
    module, class_name, _ = _BACKENDS[name]
    backend: Backend = getattr(import_module(module), class_name)(bundle, num_threads)
    return backend


def _require_available(name: str) -> str:
    if name not in _BACKENDS:
        known = ["auto", *_BACKENDS]
        raise BackendError(
            f"backend {name[:80]!r}: expected one of {known} (others are not part of this version);"
            " pip install onnxruntime and choose 'onnxruntime'"
        )
    if not _is_installed(name):
        package = _BACKENDS[name][2]
        raise BackendError(
            f"backend {name!r}: expected the package {package}, found none; pip install {package}"
        )
    return name


def _is_installed(name: str) -> bool:
    return find_spec(_BACKENDS[name][2]) is not None


def _packages() -> list[str]:
    return [package for _, _, package in _BACKENDS.values()]
