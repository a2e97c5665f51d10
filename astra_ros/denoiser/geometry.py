"""Where tokens stand and what they see: rotary coordinates and masks of the packed history and of the chunk."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.denoiser.blocks import HIDDEN, Context, Rotation, rotary_angles, rotate, rotation
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.history.embedder import pool_per_block
from astra_ros.history.layout import AGED, BLOCKS, HistoryBlock


class Cache(NamedTuple):
    """What the history left: keys and values (l, b, n, k, d_head), and the bias (b, n) that hides empty slots."""

    keys: Tensor
    values: Tensor
    bias: Tensor


class Geometry(nn.Module):
    """Constants of a DenoiserConfig.

    Tokens of the history in the order of its blocks. A pooled token stands at the mean time, row and column of what it
    holds. Times count from the last remembered frame, so that a rollout may go on for ever.
    """

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.grid, self.chunk_len, self.head_dim = config.grid, config.chunk_len, config.head_dim
        self.tokens = tuple(map(config.block_tokens, BLOCKS))
        owner = torch.tensor([block for block, count in enumerate(self.tokens) for _ in range(count)])
        sees_past = torch.tensor([block.sees_past for block in BLOCKS])[owner]
        own = owner[:, None] == owner
        visible = own | (sees_past[:, None] & (owner[:, None] > owner))
        frames = torch.arange(config.chunk_len).repeat_interleave(config.tokens_per_frame)
        constants = {
            "history_angles": rotary_angles(
                torch.cat([self._coordinates(block.time, block.pooling) for block in BLOCKS]), config.head_dim
            ),
            "history_owner": owner,
            "history_mask": HIDDEN * (~visible).float(),
            "other_blocks": (~own).float(),
            "step_back": rotary_angles(torch.tensor([[-float(config.chunk_len), 0, 0]]), config.head_dim),
            "chunk_angles": rotary_angles(
                torch.cat([self._coordinates(t, 1) for t in range(1, config.chunk_len + 1)]), config.head_dim
            ),
            "chunk_frames": frames,
            "chunk_mask": HIDDEN * (frames[:, None] < frames).float(),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)

    history_angles: Tensor
    history_owner: Tensor
    history_mask: Tensor
    other_blocks: Tensor
    step_back: Tensor
    chunk_angles: Tensor
    chunk_frames: Tensor
    chunk_mask: Tensor

    def of_history(
        self, action: Tensor, mask: Tensor, blocks: tuple[HistoryBlock, ...], past: Cache | None
    ) -> tuple[Context, Tensor]:
        """Context of the tokens of `blocks`, the newest of the history, and the bias (b, n) of all that is remembered.

        action (b, s, d), mask (b, s): of their slots. A block with an empty slot is hidden, but its own tokens always
        see each other, so that there is something to look at.
        """
        first = sum(self.tokens[: len(BLOCKS) - len(blocks)])
        owner = self.history_owner[first:] - self.history_owner[first]
        filled = (pool_per_block(mask[..., None], blocks)[..., 0] > 1.0 - 0.5 / max(1, AGED)).to(action.dtype)
        bias = HIDDEN * (1.0 - filled[:, owner])
        if past is not None:
            bias = torch.cat([past.bias, bias], dim=1)
        seen = bias[:, None] * self.other_blocks[first:] + self.history_mask[first:]
        pooled = pool_per_block(action, blocks)
        return Context(pooled, owner, self._rotation(self.history_angles[first:]), seen[:, None]), bias

    def of_chunk(self, action: Tensor, history_bias: Tensor) -> Context:
        """Context of a chunk's tokens: a frame sees what is remembered, itself and the frames before it."""
        past = repeat(history_bias, "b n -> b m n", m=len(self.chunk_mask))
        own = repeat(self.chunk_mask, "m n -> b m n", b=len(history_bias))
        bias = rearrange(torch.cat([past, own], dim=-1), "b m n -> b 1 m n")
        return Context(action, self.chunk_frames, self._rotation(self.chunk_angles), bias)

    def moved_on(self, cache: Cache, new_blocks: tuple[HistoryBlock, ...]) -> Cache:
        """What stays when a chunk is appended: the anchor where it is, the youngest 4x blocks one chunk further back."""
        anchor, kept = self.tokens[0], sum(self.tokens[1 : len(BLOCKS) - len(new_blocks)])
        first = anchor + sum(block.pooling == AGED for block in new_blocks) * self.tokens[1]
        window = slice(first, first + kept)
        keys = rotate(cache.keys[:, :, window], rotation(self.step_back))
        return Cache(
            torch.cat([cache.keys[:, :, :anchor], keys], dim=2),
            torch.cat([cache.values[:, :, :anchor], cache.values[:, :, window]], dim=2),
            torch.cat([cache.bias[:, :anchor], cache.bias[:, window]], dim=-1),
        )

    def _rotation(self, angles: Tensor) -> Rotation:
        """Of queries and keys alike, so that each has half of the scale of their products."""
        return rotation(angles, scale=self.head_dim**-0.25)

    def pooled(self, position: Tensor, blocks: tuple[HistoryBlock, ...]) -> Tensor:
        """Position embedding (n, d) of a frame's tokens → of the tokens of `blocks`."""
        rows, columns = self.grid
        grid = rearrange(position, "(h w) d -> 1 d h w", h=rows, w=columns)
        return torch.cat([rearrange(self._pool(grid, b.pooling), "1 d h w -> (h w) d") for b in blocks])

    def _coordinates(self, time: float, pooling: int) -> Tensor:
        """(n, 3) time, row, column of a frame's tokens, pooled."""
        rows, columns = (torch.arange(size, dtype=torch.float32) for size in self.grid)
        places = self._pool(torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None], pooling)
        flat = rearrange(places, "1 two h w -> (h w) two")
        return torch.cat([torch.full_like(flat[:, :1], time), flat], dim=1)

    @staticmethod
    def _pool(grid: Tensor, pooling: int) -> Tensor:
        """(1, d, h, w) → means of pooling x pooling cells; the last row and column repeated up to a multiple."""
        down, right = (-size % pooling for size in grid.shape[-2:])
        if down or right:
            grid = F.pad(grid, (0, right, 0, down), mode="replicate")
        return reduce(grid, "b d (h p) (w q) -> b d h w", "mean", p=pooling, q=pooling)
