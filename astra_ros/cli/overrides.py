"""`key=value` words among a subcommand's arguments: what they override in its configuration file."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any

_WORD = re.compile(r"[a-zA-Z]\w*(\.\w+)*=.*", re.DOTALL)


class OverridableParser(argparse.ArgumentParser):
    """Collects `key=value` words into `overrides`, if the parser has that default; argparse alone takes them in one row only.

    What it does not know it refuses itself, with its own usage; argparse would leave that to the parser of the program.
    """

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        args = sys.argv[1:] if args is None else args
        takes_words = self.get_default("overrides") is not None
        words = [word for word in args if _WORD.fullmatch(word)] if takes_words else []
        others = [word for word in args if word not in words]
        namespace, unknown = super().parse_known_args(others, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        if takes_words:
            namespace.overrides = words
        return namespace, unknown
