"""A simulated robot, run in the simulator's environment and driven from this one."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Client, Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from astra_ros.data.arrays import pack, unpack

_START_S, _END_S = 60.0, 10.0


class SimError(RuntimeError):
    """The simulator does not start, or refused a request. One line."""


class SimClient:
    """Requests are methods: sim.reset(task="reach", seed=3); see SimServer for them. Used as a context."""

    def __init__(self, python: Path, log: Path, robot: str = "panda") -> None:
        """python: of the simulator's environment. log: takes what it prints. robot: one of sim_server.ROBOTS."""
        if not python.is_file():
            raise SimError(f"{python}: expected the simulator's Python, found none; make it: make sim")
        with ExitStack() as undo:
            folder = undo.enter_context(tempfile.TemporaryDirectory(prefix="astra_sim_"))
            self._path, self._log = str(Path(folder) / "socket"), log
            output = undo.enter_context(log.open("wb"))
            packages = Path(folder) / "packages"
            packages.mkdir()
            (packages / "astra_ros").symlink_to(Path(__file__).resolve().parents[1])
            self._process = subprocess.Popen(
                [str(python), "-m", "astra_ros.data.sim_server", self._path, robot],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # an interrupted terminal ends this program, which ends that one
                env=_environment(packages),
            )
            undo.callback(self._end)
            self._connection = self._connect()
            self._undo = undo.pop_all()

    def __getattr__(self, request: str) -> Callable[..., dict[str, Any]]:
        if request.startswith("_"):
            raise AttributeError(request)

        def ask(**arguments: Any) -> dict[str, Any]:
            try:
                self._connection.send_bytes(pack({"request": request, **arguments}))
                reply = unpack(self._connection.recv_bytes())
            except (EOFError, OSError) as error:
                raise SimError(f"{request}: the simulator has ended; {self._last_words()}") from error
            if "error" in reply:
                raise SimError(f"{request}: {reply['error']}")
            return reply

        return ask

    def _connect(self) -> Connection:
        deadline_s = time.monotonic() + _START_S
        while True:
            try:
                return Client(self._path, "AF_UNIX")
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if self._process.poll() is not None or time.monotonic() > deadline_s:
                    raise SimError(f"the simulator did not start; {self._last_words()}") from error
                time.sleep(0.1)

    def _last_words(self) -> str:
        """The log may be gone when this is read."""
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"its last words, of {self._log}: {lines[-1].strip() if lines else 'none'}"

    def _end(self) -> None:
        try:
            self._process.wait(_END_S if hasattr(self, "_connection") else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._undo.close()


def _environment(packages: Path) -> dict[str, str]:
    """With this package alone: ROS on the library path, or this environment's other packages, would be the wrong ones."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("LD_LIBRARY_PATH", "PYTHONPATH")
    }
    return {**kept, "PYTHONPATH": str(packages)}
