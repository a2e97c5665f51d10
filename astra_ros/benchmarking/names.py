"""What `astra bench` times is named GROUP/RUNTIME/WHAT; the user may choose among it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

GROUPS = {
    "peaks": "products of large matrices, and memory",
    "latents": "a chunk, history update included, without the codec",
    "pixels": "the same, from a new picture to the predicted pictures",
    "stages": "each graph alone",
    "candidates": "action sequences of one observation, side by side and each alone",
    "stream": "predicted frames/s of a camera's stream",
    "footprint": "memory and time to load of a process of its own",
}


def is_selected(name: str, only: Sequence[str]) -> bool:
    """only: groups or patterns of names; none: everything."""
    return not only or any(one == name.split("/")[0] or fnmatchcase(name, one) for one in only)


def require_known(only: Sequence[str], names: Sequence[str]) -> None:
    """Raises ValueError for a group or pattern that none of the names has."""
    for one in only:
        if not any(is_selected(name, [one]) for name in names):
            raise ValueError(
                f"--only: expected groups ({', '.join(GROUPS)}) or patterns of names, such as"
                f" 'latents/torch*', found {one[:80]!r}"
            )
