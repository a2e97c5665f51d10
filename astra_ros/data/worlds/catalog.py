"""The worlds by name; a world's module, and the simulator it needs, is loaded when it is asked for."""

from __future__ import annotations

import importlib

from astra_ros.data.worlds.base import World

NAMES = ("driving", "rooms", "command", "metaworld", "pusht")


def open_world(name: str) -> World:
    """The world of a name. Raises ValueError when there is none."""
    if name not in NAMES:
        raise ValueError(f"world: expected one of {', '.join(NAMES)}, found {name!r}")
    world: World = importlib.import_module(f"astra_ros.data.worlds.{name}").WORLD
    return world
