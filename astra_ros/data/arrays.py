"""Arrays, numbers and texts as bytes, without pickle."""

from __future__ import annotations

import io
from typing import Any

import numpy as np


def pack(values: dict[str, Any]) -> bytes:
    """An npz."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items()}
    np.savez(stream, **arrays)
    return stream.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """What `pack` was given; arrays without dimensions as numbers and texts."""
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return {name: value.item() if value.ndim == 0 else value for name, value in found.items()}
