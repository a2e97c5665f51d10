"""Which precision is the fastest on this machine: timed each time a bundle is loaded, never assumed.

bfloat16 halves the time of a step where a processor multiplies it in hardware, and can take many times as long where it
does not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.manifest import BundleError

logger = logging.getLogger(__name__)

# What a lower precision may take of the time of the graphs' own: less gain is not worth its error, nor that noise in
# the measurement decides from one start to the next which bytes a robot gets.
_WORTHWHILE = 0.9


def load_fastest(backends: Sequence[Backend]) -> Backend:
    """Of backends that differ in precision only, the fastest whose answers are right, loaded.

    Raises why the first was refused (BundleError or BackendError) when all are.
    """
    if len(backends) == 1:
        backends[0].load()
        return backends[0]
    refusals: list[BackendError | BundleError] = []
    for backend in _by_speed(backends, refusals):
        try:
            backend.load()
        except (BackendError, BundleError) as error:
            _refuse(backend, error, refusals)
        else:
            return backend
    raise refusals[0]


def _by_speed(backends: Sequence[Backend], refusals: list[BackendError | BundleError]) -> list[Backend]:
    seconds: dict[Backend, float] = {}
    for backend in backends:
        try:
            seconds[backend] = backend.time_step()
        except (BackendError, BundleError) as error:
            _refuse(backend, error, refusals)
    times = ", ".join(f"{backend.precision} {1e3 * time:.3g} ms" for backend, time in seconds.items())
    logger.info("a denoising step takes %s: %s", backends[0].name, times)
    return sorted(seconds, key=lambda backend: seconds[backend] / _allowance(backend))


def _allowance(backend: Backend) -> float:
    return 1.0 if backend.precision == backend.manifest.precision else _WORTHWHILE


def _refuse(
    backend: Backend, error: BackendError | BundleError, refusals: list[BackendError | BundleError]
) -> None:
    logger.info("backend %s not taken in %s: %s", backend.name, backend.precision, error)
    refusals.append(error)
