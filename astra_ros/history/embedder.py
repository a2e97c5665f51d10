"""History latents → tokens: one projection per resolution of the packed history (paper: A.5)."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.history.layout import BLOCKS, HistoryBlock


class HistoryEmbedder(nn.Module):
    """A projection of patches for each pooling. The pooled ones start as averages of the full one."""

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        poolings = {block.pooling: block.num_frames for block in BLOCKS}
        self.projections = nn.ModuleDict(
            {str(p): nn.Linear(channels * frames * (p * patch) ** 2, width) for p, frames in poolings.items()}
        )
        with torch.no_grad():
            full = rearrange(self._weight(1), "d (c p q) -> d c 1 p q", p=patch, q=patch)
            for p, frames in poolings.items():
                spread = full.repeat(1, 1, frames, p, p) / (frames * p * p)
                self._weight(p).copy_(spread.flatten(1))

    def forward(self, latents: Tensor, blocks: tuple[HistoryBlock, ...]) -> Tensor:
        """latents (b, t, c, h, w) of the slots of `blocks`, oldest first → tokens (b, n, d)."""
        tokens, first = [], blocks[0].slots[0]
        for block in blocks:
            frames = latents[:, block.slots[0] - first : block.slots[1] - first]
            side = block.pooling * self.patch
            patches = rearrange(
                _padded(frames, side), "b t c (h p) (w q) -> b (h w) (c t p q)", p=side, q=side
            )
            tokens.append(self.projections[str(block.pooling)](patches))
        return torch.cat(tokens, dim=1)

    def _weight(self, pooling: int) -> nn.Parameter:
        return self.projections.get_parameter(f"{pooling}.weight")


def pool_per_block(values: Tensor, blocks: tuple[HistoryBlock, ...]) -> Tensor:
    """(b, t, d) of the slots of `blocks` → their means, (b, number of blocks, d)."""
    first = blocks[0].slots[0]
    parts = [values[:, block.slots[0] - first : block.slots[1] - first] for block in blocks]
    return torch.cat([reduce(part, "b t d -> b 1 d", "mean") for part in parts], dim=1)


def _padded(frames: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column up to a multiple, so that every latent belongs to a pooled cell."""
    down, right = (-size % multiple for size in frames.shape[-2:])
    if not (down or right):
        return frames
    batch = frames.shape[0]
    padded = F.pad(rearrange(frames, "b t c h w -> (b t) c h w"), (0, right, 0, down), mode="replicate")
    return rearrange(padded, "(b t) c h w -> b t c h w", b=batch)
