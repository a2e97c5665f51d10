"""Small datasets on disk: a bright square that a joint or a rate moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import ActionSchema, DatasetWriter
from astra_ros.types import NANOSECONDS

ARM = ActionSchema("toy_arm", "arm", "joint_position", ("slide", "grip"), ("m", "1"))
CAR = ActionSchema("toy_car", "drive", "rate", ("speed",), ("m/s",))
FPS, SIZE = 5.0, 128


def sliding_square(schema: ActionSchema, seed: int, num_frames: int = 30) -> Episode:
    """Where the square is, or how fast it moves, is the action."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(-12.0, 12.0, num_frames).repeat(3)[:num_frames]
    column = np.clip(50.0 + np.cumsum(speed), 0, 100)
    pixels = np.full((num_frames, SIZE, SIZE, 3), 40, np.uint8)
    for frame, left in zip(pixels, column.astype(int), strict=True):
        frame[50:78, left : left + 28] = (220, 120, 60)
    value = column[:, None] if schema is ARM else speed[:, None]
    rows = np.concatenate([value, np.zeros((num_frames, schema.dim - 1))], axis=1).astype(np.float32)
    stamps = (np.arange(num_frames) * NANOSECONDS / FPS).astype(np.int64)
    return Episode(f"episode_{seed:03d}", stamps, pixels, rows, rows)


def write_toy_data(folder: Path, num_episodes: int = 3, first: int = 0) -> Path:
    """Datasets toy_arm and toy_car below `folder`, and held_out.yaml with the last episode of each.

    first: how many episodes are there already.
    """
    for schema in (ARM, CAR):
        with DatasetWriter(folder / schema.space, schema.space, schema, FPS, SIZE) as writer:
            for seed in range(first, num_episodes):
                writer.append(sliding_square(schema, seed))
    last = f"[episode_{num_episodes - 1:03d}]"
    (folder / "held_out.yaml").write_text(f"toy_arm: {last}\ntoy_car: {last}\n")
    return folder


def toy_config(data: Path) -> str:
    """A network of a few thousand weights, for 20 steps."""
    return f"""
preset: tiny
data:
  sets: [{{path: {data}/toy_arm, weight: 2}}, {{path: {data}/toy_car}}]
  held_out: {data}/held_out.yaml
  codec_frames: 64
denoiser: {{width: 32, depth: 1, num_heads: 2, pose_rank: 2}}
codec: {{widths: [16, 32], num_blocks: 1}}
training: {{batch: 4, max_steps: 20, micro_batches: 2}}
codec_training: {{optimisation: {{batch: 4, max_steps: 20, micro_batches: 2}}}}
decoder_training: {{optimisation: {{batch: 4, max_steps: 5, micro_batches: 2}}}}
"""
