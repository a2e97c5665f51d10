"""One line that says how far long work is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_PERIOD_S = 5.0


class ProgressLine:
    """Rewritten in place on a terminal; in a log, a new line at most every few seconds. Goes to stderr.

    The first word of a line is what is being done: when that changes, a log gets its line at once.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._in_place = self._stream.isatty()
        self._printed_s = -_PERIOD_S
        self._activity = ""

    def update(self, text: str) -> None:
        """Show the present state."""
        if self._in_place:
            self._stream.write(f"\r\x1b[2K{text}")
        else:
            activity = text.split(maxsplit=1)[0]
            if activity == self._activity and time.monotonic() - self._printed_s < _PERIOD_S:
                return
            self._activity, self._printed_s = activity, time.monotonic()
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def done(self, text: str) -> None:
        """Show the last state and leave the line."""
        self._stream.write(f"\r\x1b[2K{text}\n" if self._in_place else f"{text}\n")
        self._stream.flush()
