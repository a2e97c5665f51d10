"""A dataset in the untrained bundle's terms: a square that moves over a background."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import ActionSchema, DatasetWriter
from astra_ros.types import NANOSECONDS
from tests.bundle_fixture import HEIGHT, JOINTS, WIDTH

FPS = 5.0
ARM = ActionSchema("panda", "arm", "joint_position", JOINTS, ("rad",) * 7 + ("m",))


def episode(name: str, seed: int, *, elsewhere: bool = False, count: int = 40) -> Episode:
    """A square that moves over the same background, or over another."""
    rng = np.random.default_rng(seed)
    background = np.random.default_rng(99 if elsewhere else 0).integers(0, 256, (6, 8, 3), np.uint8)
    pixels = np.tile(np.kron(background, np.ones((8, 8, 1), np.uint8)), (count, 1, 1, 1))
    for frame, picture in enumerate(pixels):
        left = int(rng.integers(0, 4)) + frame % (WIDTH - 12)
        picture[20:28, left : left + 8] = 255
    positions = np.cumsum(rng.normal(0, 0.05, (count, 8)), axis=0).astype(np.float32)
    stamps = np.arange(count) * round(NANOSECONDS / FPS)
    return Episode(name, stamps, pixels, positions, positions)


def write_dataset(
    path: Path, names: list[str], *, elsewhere: bool = False, short: Collection[str] = ()
) -> Path:
    """short: those that are too short for a history and a horizon."""
    with DatasetWriter(path, path.name, ARM, FPS, (HEIGHT, WIDTH)) as writer:
        for seed, name in enumerate(names):
            count = 8 if name in short else 40
            writer.append(episode(name, seed, elsewhere=elsewhere, count=count), "task")
    return path


@pytest.fixture
def held_out_file(tmp_path: Path) -> Path:
    file = tmp_path / "held_out.yaml"
    file.write_text('own: ["held_?"]\nother: []\n')
    return file
