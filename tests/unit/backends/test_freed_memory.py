"""What was freed is no longer resident."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# Between what is kept, glibc gives nothing back by itself. bytes of that size come from its heap.
_PROGRAM = """
from astra_ros.backends.freed_memory import return_freed_memory
from astra_ros.benchmarking.footprint import resident_mb
both = [bytes(50_000) for _ in range(2000)]
kept = both[::40]
del both
before = resident_mb("VmRSS")
return_freed_memory()
print(before - resident_mb("VmRSS"))
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc's allocator"
)
def test_freed_memory_is_returned() -> None:
    result = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    assert float(result.stdout) > 50  # of 97 MB that were freed
