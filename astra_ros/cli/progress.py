"""One line that says how far long work is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_PERIOD_S = 5.0


class ProgressLine:
    """Rewritten in place on a terminal; in a log, a new line at most every few seconds. Goes to stderr."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._printed_s = -_PERIOD_S

    def update(self, text: str) -> None:
        """Show the present state."""
        if self._in_place:
            self._stream.write(f"\r\x1b[2K{text}")
        elif time.monotonic() - self._printed_s < _PERIOD_S:
            return
        else:
            self._printed_s = time.monotonic()
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def done(self, text: str) -> None:
        """Show the last state and leave the line."""
        self._stream.write(f"\r\x1b[2K{text}\n" if self._in_place else f"{text}\n")
        self._stream.flush()
