"""Arrays of a bundle's npz files. Nothing in them is executed, whatever they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astra_ros.backends.manifest import BundleError

# Far more than any golden vectors or calibration need.
_MOST_BYTES = 1 << 30


def read_arrays(path: Path, kind: str, fix: str) -> dict[str, npt.NDArray[Any]]:
    """By name. Raises BundleError, which says that `kind` was expected and what mends it, for a file that is no such archive."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            unpacked = sum(member.file_size for member in archive.zip.filelist)
            if unpacked > _MOST_BYTES:  # before any of it is in memory
                raise ValueError(f"{unpacked} bytes when unpacked, more than {_MOST_BYTES}")
            return {name: archive[name] for name in archive.files}
    except (
        Exception
    ) as error:  # damage ends in whatever zipfile, zlib, ast or the allocator raise: no common base class
        raise BundleError(f"{path.name}: expected {kind}, found {str(error)[:200]!r}; {fix}") from error
