"""A denoiser of a few thousand weights for an arm and a car, and segments of random latents."""

from __future__ import annotations

import numpy as np
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.codec.autoencoder import CodecConfig
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.segments import SegmentConfig, SegmentSampler, SegmentSource
from astra_ros.denoiser.checkpoint import Checkpoint, new_checkpoint
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.presets import ModelConfig
from tests.unit.training.toy_data import ARM, CAR, sliding_square

SCHEMAS = {schema.space: schema for schema in (ARM, CAR)}
LATENTS = (4, 4, 4)


def toy_specs() -> list[ActionSpec]:
    return [fit_action_spec([sliding_square(schema, 0)], schema, 0.2) for schema in SCHEMAS.values()]


def toy_checkpoint(specs: list[ActionSpec]) -> Checkpoint:
    """Untrained, but with every zero of the initialisation disturbed, so that actions and noise levels matter."""
    torch.manual_seed(0)
    denoiser = DenoiserConfig(
        latent_channels=4, latent_height=4, latent_width=4, width=32, depth=1, num_heads=2, pose_rank=2
    )
    codec = CodecConfig(latent_channels=4, widths=(8, 8), num_blocks=1)
    checkpoint = new_checkpoint(ModelConfig("test", 32, 32, codec=codec, denoiser=denoiser), specs)
    with torch.no_grad():
        for parameter in checkpoint.denoiser.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return checkpoint


def toy_sampler(specs: list[ActionSpec], config: SegmentConfig | None = None) -> SegmentSampler:
    rng = np.random.default_rng(0)
    sources = [
        SegmentSource(
            sliding_square(SCHEMAS[spec.space], 1), rng.normal(size=(30, *LATENTS)).astype(np.float16), spec
        )
        for spec in specs
    ]
    return SegmentSampler(sources, [spec.space for spec in specs], config or SegmentConfig())
