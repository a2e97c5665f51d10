"""Memory that was freed goes back to the system.

Opening a graph takes more than it needs afterwards. glibc keeps what is freed for the next time, which on a robot does not come.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def return_freed_memory() -> None:
    """Takes milliseconds. Does nothing where the allocator is not glibc's."""
    if _TRIM is not None:
        _TRIM(0)
