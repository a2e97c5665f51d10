"""History latents → tokens: one projection per resolution of the packed history (paper: A.5)."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.history.layout import BLOCKS, MAX_PATCH_SIDE, HistoryBlock


class HistoryEmbedder(nn.Module):
    """A projection of patches for each pooling. The pooled ones start as averages of the full one.

    Patches of more than MAX_PATCH_SIDE latents a side are averaged down to that: the oldest memory of a network with
    coarse tokens would otherwise hold a quarter of its weights.
    """

    def __init__(self, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        poolings = {block.pooling: block.num_frames for block in BLOCKS}
        self.means = {p: max(1, p * patch // MAX_PATCH_SIDE) for p in poolings}  # latents averaged a side
        self.projections = nn.ModuleDict(
            {
                str(p): nn.Linear(channels * frames * (p * patch // self.means[p]) ** 2, width)
                for p, frames in poolings.items()
            }
        )
        with torch.no_grad():
            full = rearrange(self._weight(1), "d (c p q) -> d c 1 p q", p=patch, q=patch)
            for p, frames in poolings.items():
                spread = full.repeat(1, 1, frames, p, p) / (frames * p * p)
                cells = reduce(
                    spread, "d c t (p m) (q n) -> d c t p q", "sum", m=self.means[p], n=self.means[p]
                )
                self._weight(p).copy_(cells.flatten(1))

    def forward(self, latents: Tensor, blocks: tuple[HistoryBlock, ...]) -> Tensor:
        """latents (b, t, c, h, w) of the slots of `blocks`, oldest first → tokens (b, n, d)."""
        tokens, first = [], blocks[0].slots[0]
        for block in blocks:
            frames = latents[:, block.slots[0] - first : block.slots[1] - first]
            mean, side = self.means[block.pooling], block.pooling * self.patch
            cells = _padded(frames, side)
            if mean > 1:
                cells = F.avg_pool2d(cells.flatten(0, 1), mean).unflatten(0, frames.shape[:2])
            patches = rearrange(
                cells, "b t c (h p) (w q) -> b (h w) (c t p q)", p=side // mean, q=side // mean
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
