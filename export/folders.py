"""Folders that are made whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replaced_folder(place: Path) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `place` in the end. An error leaves what was there.

    The old one is moved away whole, and then deleted as far as it may be: some of it may be somebody else's.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        prefix=f".{place.name}-", dir=place.parent, ignore_cleanup_errors=True
    ) as temporary:
        made, old = (Path(temporary) / name for name in (place.name, "replaced"))
        made.mkdir()
        yield made
        try:
            if place.exists():
                place.rename(old)
            made.rename(place)
        except BaseException:
            if old.exists() and not place.exists():
                old.rename(place)
            raise
