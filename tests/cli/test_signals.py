"""SIGTERM ends a program as Ctrl-C does."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from astra_ros.cli.signals import ended_by_sigterm

PROGRAM = """
import sys, time
from pathlib import Path
from tempfile import TemporaryDirectory
from astra_ros.cli.signals import ended_by_sigterm
with ended_by_sigterm(), TemporaryDirectory(dir=sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_is_half_made_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        assert len([*tmp_path.iterdir()]) == 1
        program.terminate()
        assert program.wait(20) == 128 + signal.SIGTERM
    assert not [*tmp_path.iterdir()]


def test_afterwards_it_is_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_another_thread_it_does_nothing() -> None:
    handlers = []

    def run() -> None:
        with ended_by_sigterm():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    (thread := threading.Thread(target=run)).start()
    thread.join()
    assert handlers == [before]
