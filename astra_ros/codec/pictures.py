"""Recorded frames through a codec in training and evaluation (torch; the robot uses `frames` and a backend)."""

from __future__ import annotations

import torch
from torch import Tensor

from astra_ros.codec.autoencoder import Codec
from astra_ros.types import ByteArray, FloatArray

_BATCH = 64


def to_pixels(frames: ByteArray) -> Tensor:
    """(b, H, W, 3) uint8 -> (b, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.inference_mode()
def encode_episode(codec: Codec, pixels: ByteArray) -> FloatArray:
    """(t, H, W, 3) uint8 -> (t, c, h, w) float16 latents, through the codec wherever it is."""
    parts = (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
    device = codec.mean.device
    return torch.cat([codec.encode(to_pixels(part).to(device)).half().cpu() for part in parts]).numpy()


@torch.inference_mode()
def decode_latents(codec: Codec, latents: Tensor) -> ByteArray:
    """(t, c, h, w) -> (t, H, W, 3) uint8, through the codec wherever it is."""
    pixels = codec.decode(latents.to(codec.mean.device))
    return ((pixels + 1.0) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
