"""Which optimiser trains what."""

from __future__ import annotations

import torch
from torch import nn

from astra_ros.training.muon import Muon


def codec_optimizers(codec: nn.Module) -> list[torch.optim.Optimizer]:
    """AdamW for what may change."""
    return [torch.optim.AdamW((p for p in codec.parameters() if p.requires_grad), weight_decay=1e-3)]


def denoiser_optimizers(
    denoiser: nn.Module, blocks: nn.Module, products: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, whose own products are in `products`; AdamW for everything else."""
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in denoiser.parameters() if id(p) not in inside]
    return [
        Muon(matrices, weight_decay=0.01, dtype=products),
        torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
