"""The simulated arm, run in the simulator's environment and driven from this one."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from astra_ros.data.arrays import pack, unpack

_START_S = 60.0


class SimError(RuntimeError):
    """The simulator does not start, or refused a request. One line."""


class SimClient:
    """Requests are methods: sim.reset(task="reach", seed=3); see SimServer for them. Used as a context."""

    def __init__(self, python: Path, log: Path) -> None:
        """python: of the simulator's environment. log: takes what it prints."""
        if not python.exists():
            raise SimError(f"{python}: expected the simulator's Python, found none; make it: make sim")
        self._folder = tempfile.TemporaryDirectory(prefix="astra_sim_")
        self._path = str(Path(self._folder.name) / "socket")
        self._log = log.open("wb")
        self._process = subprocess.Popen(
            [str(python), "-m", "astra_ros.data.sim_server", self._path],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            cwd=Path(__file__).resolve().parents[2],
        )
        self._connection = self._connect(log)

    def __getattr__(self, request: str) -> Callable[..., dict[str, Any]]:
        if request.startswith("_"):
            raise AttributeError(request)

        def ask(**arguments: Any) -> dict[str, Any]:
            self._connection.send_bytes(pack({"request": request, **arguments}))
            reply = unpack(self._connection.recv_bytes())
            if "error" in reply:
                raise SimError(f"{request}: {reply['error']}")
            return reply

        return ask

    def _connect(self, log: Path) -> Connection:
        deadline_s = time.monotonic() + _START_S
        while True:
            try:
                return Client(self._path, "AF_UNIX")
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    self._process.kill()
                    raise SimError(f"the simulator did not start; see {log}") from error
                time.sleep(0.1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()
        self._folder.cleanup()
