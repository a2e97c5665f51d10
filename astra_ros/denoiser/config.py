"""Sizes of the denoiser. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from astra_ros.actions.config import ActionEncoderConfig
from astra_ros.history.layout import BLOCKS, HistoryBlock, blocks_after

AdapterKind = Literal["act", "cross_attention"]


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the denoiser.

    latent_*: shape of a latent frame. mlp_hidden: width inside the MLPs (0: four times the width).
    chunk_len: frames denoised together. adapter: how actions enter the blocks.
    pose_rank: channels of the map that an action draws onto the token grid (0: none). refiner: channels of the
    convolutions that finish a frame where tokens are coarse (0: none); the patch is a power of two then.
    """

    latent_channels: int = 12
    latent_height: int = 16
    latent_width: int = 16
    patch: int = 2
    width: int = 256
    depth: int = 6
    num_heads: int = 4
    mlp_hidden: int = 0
    chunk_len: int = 8
    adapter: AdapterKind = "act"
    pose_rank: int = 16
    refiner: int = 0
    actions: ActionEncoderConfig = field(default_factory=ActionEncoderConfig)

    def __post_init__(self) -> None:
        for name in ("patch", "width", "depth", "num_heads", "chunk_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, found {getattr(self, name)}")
        for name in ("latent_height", "latent_width"):
            if getattr(self, name) % self.patch:
                raise ValueError(
                    f"patch: expected a divisor of {name} {getattr(self, name)}, found {self.patch}"
                )
        if self.refiner and self.patch & (self.patch - 1):
            raise ValueError(f"patch: expected a power of two with a refiner, found {self.patch}")
        if self.width % (8 * self.num_heads):
            raise ValueError(
                f"width: expected a multiple of 8 * num_heads = {8 * self.num_heads}, found {self.width}"
            )
        blocks_after(self.chunk_len)
        if not self.mlp_hidden:
            object.__setattr__(self, "mlp_hidden", 4 * self.width)

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens of a frame: rows, columns."""
        return self.latent_height // self.patch, self.latent_width // self.patch

    @property
    def tokens_per_frame(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    def block_tokens(self, block: HistoryBlock) -> int:
        """Tokens that a block of the history becomes."""
        rows, columns = (-(-size // block.pooling) for size in self.grid)
        return rows * columns

    @property
    def history_tokens(self) -> int:
        return sum(map(self.block_tokens, BLOCKS))
