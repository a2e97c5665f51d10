"""A file of weights: equal bytes are stored once, each on a page of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

# A runtime maps what begins on a page into memory without a copy; a multiple, too, of what any kernel wants of an address.
_PAGE_BYTES = 4096


class PagedFile:
    """Writes it. Single use, as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[bytes, int] = {}

    def __enter__(self) -> Self:
        self._file = self.path.open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, raw: bytes) -> int:
        """Where in the file the bytes are."""
        digest = hashlib.sha256(raw).digest()
        if digest not in self._offsets:
            self._file.write(b"\0" * (-self._file.tell() % _PAGE_BYTES))
            self._offsets[digest] = self._file.tell()
            self._file.write(raw)
        return self._offsets[digest]
