"""A process for every runtime: none disturbs another's threads, and each waits as it does when alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from astra_ros.benchmarking.worker import PEAKS_RUNTIME, Job

# Runtimes as others' programs use them: their waiting threads spin, which `astra` forbids for a robot's sake.
_SPINNING = ("torch", "torch.compile", "cuda", "cuda.compile")
READY_S = 600.0  # a compiler may never be: the others are not to wait for it
# What numpy's BLAS, whichever it is, takes its threads from when it is loaded.
_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class WorkerError(RuntimeError):
    """A worker cannot do what it is for. One line."""


class Worker:
    """Starts the process and waits until it is ready.

    description: what it says of itself. Raises WorkerError with the reason when it does not run, or is not ready after READY_S.
    """

    def __init__(self, job: Job) -> None:
        environment = dict(os.environ)
        if job.runtime in _SPINNING:
            environment.pop("OMP_WAIT_POLICY", None)
        if job.runtime == PEAKS_RUNTIME:
            environment |= dict.fromkeys(_BLAS_THREADS, str(job.num_threads))
        self._runtime = job.runtime
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed with the worker)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "astra_ros.benchmarking.worker", json.dumps(asdict(job))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        try:
            self.description: dict[str, Any] = self._first_answer()
        except BaseException:
            self.close()
            raise

    def ask(self, name: str) -> Any:
        """The answer to a name. Raises WorkerError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{name}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        return self._answer()

    def close(self) -> None:
        """End it; may be called twice."""
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._process.communicate()
        self._said.close()

    def _first_answer(self) -> Any:
        patience = threading.Timer(READY_S, self._process.kill)
        patience.start()
        try:
            return self._answer()
        except WorkerError:
            if patience.finished.is_set():
                raise WorkerError(
                    f"{self._runtime}: expected it to be ready within {READY_S:g} s, found it was not"
                ) from None
            raise
        finally:
            patience.cancel()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().strip().splitlines()
        return (
            f"{self._runtime}: its process ended early, exit code {code}{': ' + lines[-1] if lines else ''}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
