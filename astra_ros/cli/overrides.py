"""`key=value` words among a subcommand's arguments: what they override in its configuration file."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

_WORD = re.compile(r"[a-z]\w*(\.\w+)*=.*", re.DOTALL)


class OverridableParser(argparse.ArgumentParser):
    """Collects `key=value` words into `overrides`, if the parser has that default; argparse alone takes them in one row only."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if args is None or self.get_default("overrides") is None:
            return super().parse_known_args(args, namespace)
        words = [word for word in args if _WORD.fullmatch(word)]
        others = [word for word in args if not _WORD.fullmatch(word)]
        namespace, unknown = super().parse_known_args(others, namespace)
        namespace.overrides = words
        return namespace, unknown
