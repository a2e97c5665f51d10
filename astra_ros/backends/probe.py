"""Which precision is the fastest on this machine: timed each time a bundle is loaded, never assumed.

bfloat16 halves the time of a step where a processor multiplies it in hardware, and can take many times as long where it
does not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from astra_ros.backends.base import Backend, BackendError
from astra_ros.backends.manifest import BundleError

logger = logging.getLogger(__name__)

# What a lower precision may take of the time of the one above it: less gain is not worth its error, nor that noise in
# the measurement decides from one start to the next which bytes a robot gets, and whether with a calibrated uncertainty.
_WORTHWHILE = 0.9
# As many steps of each as outlast the moment in which a robot's other programs start too. None begins after so many
# seconds, since arithmetic that a processor lacks can take a hundred times as long.
_ROUNDS, _LIMIT_S = 20, 1.0

Refusals = list[BackendError | BundleError]


def load_fastest(backends: Sequence[Backend]) -> Backend:
    """Of backends that differ in precision only, the fastest whose answers are right, loaded.

    Raises why the first was refused (BundleError or BackendError) when all are.
    """
    if len(backends) == 1:
        backends[0].load()
        return backends[0]
    refusals: Refusals = []
    for backend in _by_speed(backends, refusals):
        with _refused(backend, refusals):
            backend.load()
            return backend
    raise refusals[0]


def _by_speed(backends: Sequence[Backend], refusals: Refusals) -> list[Backend]:
    seconds = _quickest_step(backends, refusals)
    times = ", ".join(f"{backend.precision} {1e3 * time:.3g} ms" for backend, time in seconds.items())
    logger.info("a denoising step takes %s: %s", backends[0].name, times)
    return sorted(seconds, key=lambda backend: seconds[backend] / _allowance(backend))


def _quickest_step(backends: Sequence[Backend], refusals: Refusals) -> dict[Backend, float]:
    """Seconds of each one's first denoising step. They take turns, so that a busy moment of the machine befalls all."""
    steps: dict[Backend, Callable[[], float]] = {}
    seconds: dict[Backend, list[float]] = {backend: [] for backend in backends}
    with ExitStack() as opened:
        for backend in backends:
            with _refused(backend, refusals):
                steps[backend] = opened.enter_context(backend.only("step_0"))
        for _ in range(_ROUNDS):
            for backend in [one for one in steps if sum(seconds[one]) < _LIMIT_S]:
                step = steps.pop(backend)
                with _refused(backend, refusals):
                    seconds[backend].append(step())
                    steps[backend] = step
    return {backend: min(seconds[backend]) for backend in steps}


def _allowance(backend: Backend) -> float:
    """Floating point rounds once, integers once more."""
    if backend.precision == backend.manifest.precision:
        return 1.0
    return _WORTHWHILE**2 if backend.precision.startswith("int8") else _WORTHWHILE


@contextmanager
def _refused(backend: Backend, refusals: Refusals) -> Iterator[None]:
    """An error in it is one more refusal."""
    try:
        yield
    except (BackendError, BundleError) as error:
        logger.info("backend %s not taken in %s: %s", backend.name, backend.precision, error)
        refusals.append(error)
