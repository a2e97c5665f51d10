"""The denoiser: a causal transformer over latent frames with history keys and values computed once per chunk.

    remember(history) -> cache                   once; a block of the history attends to itself and, if recent, to what was before
    append(cache, newest frames) -> cache        once per chunk of a rollout: the same cache, from fewer tokens
    denoise(chunk, sigma, cache)                 once per denoising step; a frame attends to the history and to frames up to itself

The network predicts clean latents as a change against the last history frame (docs/decisions/0002); velocity
= (noisy - clean) / sigma. At initialisation the change is zero: training starts at "nothing moves".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from astra_ros.actions.encoder import ActionEncoder, Routing
from astra_ros.denoiser.blocks import Block, Modulation, modulated_norm
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.geometry import Cache, Geometry
from astra_ros.denoiser.heads import Head, RefiningHead
from astra_ros.denoiser.pose import PoseMap
from astra_ros.history.embedder import HistoryEmbedder
from astra_ros.history.layout import BLOCKS, HistoryBlock, blocks_after


class History(NamedTuple):
    """Remembered frames: latents (b, s, c, h, w), action features (b, s, f), mask (b, s) 1 = filled.

    space (b,): index of each robot's action space.
    """

    latents: Tensor
    actions: Tensor
    mask: Tensor
    space: Tensor


class Chunk(NamedTuple):
    """What is to be denoised: noisy (b, t, c, h, w) and action features (b, t, f).

    last (b, c, h, w): the newest remembered frame, against which the change is predicted; last_sigma (b,): its noise
    level, None = clean. keep_action (b,): 0 = action-free (paper: A.9); the history keeps its actions, so that both
    answers share the cache.
    """

    noisy: Tensor
    last: Tensor
    actions: Tensor
    space: Tensor
    keep_action: Tensor | None = None
    last_sigma: Tensor | None = None


class Denoised(NamedTuple):
    """latents (b, t, c, h, w), clean as predicted. routing: of the plan's actions. sketch: of pose.Canvas."""

    latents: Tensor
    routing: Routing
    sketch: Tensor | None


class NoiseLevelEmbedder(nn.Module):
    """sigma -> the modulations of every block and of the head: one shared projection and a learned table."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.projection = nn.Linear(width, 6 * width)
        self.block_table = nn.Parameter(torch.zeros(depth, 6, width))
        self.head = nn.Linear(width, 2 * width)
        for layer in (self.projection, self.head):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.block_table[:, [2, 5]] = 0.3  # gates: residual branches start small but alive
        scales = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0]).view(1, 6, 1)
        self.register_buffer("one", scales, persistent=False)

    one: Tensor

    def forward(self, sigma: Tensor) -> tuple[list[Modulation], tuple[Tensor, Tensor]]:
        """sigma (b,) -> per block a Modulation, and (shift, scale) of the head; all (b, 1, d)."""
        embedding = self.mlp(sinusoids(1000.0 * sigma))
        table = rearrange(self.projection(embedding), "b (six d) -> b six d", six=6)
        blocks = [Modulation(*(table + row + self.one).split(1, dim=1)) for row in self.block_table]
        shift, scale = rearrange(self.head(embedding), "b (two d) -> two b 1 d", two=2)
        return blocks, (shift, 1.0 + scale)


class Denoiser(nn.Module):
    """See the module docstring. Shapes: b batch, s history slots, t chunk frames, c h w latents, f action features."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        width, values = config.width, config.latent_channels * config.patch**2
        self.geometry = Geometry(config)
        self.history_embedder = HistoryEmbedder(config.latent_channels, config.patch, width)
        self.patch_embedder = nn.Linear(2 * values, width)
        self.position = nn.Parameter(0.02 * torch.randn(config.tokens_per_frame, width))
        self.action_encoder = ActionEncoder(config.actions, width)
        self.pose_map = PoseMap(config) if config.pose_rank else None
        self.noise_level = NoiseLevelEmbedder(width, config.depth)
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.mlp_hidden, config.adapter) for _ in range(config.depth)
        )
        self.head = RefiningHead(config) if config.refiner else Head(config)

    def remember(self, history: History, sigma: Tensor) -> tuple[Cache, Routing]:
        """All slots → cache, and how their actions were routed. sigma (b,): noise level of the history."""
        return self._attend(history, BLOCKS, sigma, None)

    def append(self, cache: Cache, newest: History, sigma: Tensor) -> Cache:
        """The cache after a chunk: what remember gives for the window moved on by chunk_len frames, from fewer tokens.

        newest: the slots of blocks_after(chunk_len) in the new window.
        """
        blocks = blocks_after(self.config.chunk_len)
        return self._attend(newest, blocks, sigma, self.geometry.moved_on(cache, blocks))[0]

    def denoise(self, chunk: Chunk, sigma: Tensor, cache: Cache) -> Denoised:
        """A chunk at noise level sigma (b,), given the history's cache."""
        modulations, (shift, scale) = self.noise_level(sigma)
        frames = chunk.noisy.shape[1]
        action, routing = self.action_encoder(chunk.actions, chunk.space)
        if chunk.keep_action is not None:
            action = action * chunk.keep_action[:, None, None]
        last = repeat(chunk.last, "b c h w -> b t c h w", t=frames)
        x = self.patch_embedder(self._patches(torch.cat([chunk.noisy, last], dim=2)))
        x = x + self.position.repeat(frames, 1)
        canvas = None
        if self.pose_map is not None:
            drawn, canvas = self.pose_map(action)
            x = x + drawn
        context = self.geometry.of_chunk(action, cache.bias)
        for layer, (block, modulation) in enumerate(zip(self.blocks, modulations, strict=True)):
            x, _ = block(x, modulation, context, (cache.keys[layer], cache.values[layer]))
        expected = _expected(last, chunk.last_sigma)
        moved, change = self.head(modulated_norm(x, shift, scale), chunk.noisy, expected, canvas)
        return Denoised(moved + change, routing, canvas.sketch if canvas else None)

    def _attend(
        self, history: History, blocks: tuple[HistoryBlock, ...], sigma: Tensor, past: Cache | None
    ) -> tuple[Cache, Routing]:
        """Keys and values of the past, if any, and of the tokens of `blocks` after them."""
        embedding, routing = self.action_encoder(history.actions, history.space)
        x = self.history_embedder(history.latents, blocks) + self.geometry.pooled(self.position, blocks)
        context, bias = self.geometry.of_history(embedding, history.mask, blocks, past)
        modulations, _ = self.noise_level(sigma)
        keys, values = [], []
        for layer, (block, modulation) in enumerate(zip(self.blocks, modulations, strict=True)):
            before = None if past is None else (past.keys[layer], past.values[layer])
            x, (key, value) = block(x, modulation, context, before)
            keys.append(key if before is None else torch.cat([before[0], key], dim=1))
            values.append(value if before is None else torch.cat([before[1], value], dim=1))
        return Cache(torch.stack(keys), torch.stack(values), bias), routing

    def _patches(self, latents: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(latents, "b t c (h p) (w q) -> b (t h w) (c p q)", p=p, q=p)


def _expected(last: Tensor, sigma: Tensor | None) -> Tensor:
    """The clean last frame as far as a corrupted one tells: the best linear estimate for latents of unit variance."""
    if sigma is None:
        return last
    keep = (1.0 - sigma) / ((1.0 - sigma).square() + sigma.square())
    return last * keep.view(-1, 1, 1, 1, 1)


def sinusoids(timestep: Tensor, dims: int = 256) -> Tensor:
    """(b,) → (b, dims): cosines and sines of angles from one radian per unit down to a ten-thousandth of it."""
    steps = torch.arange(dims // 2, device=timestep.device)
    angles = timestep[:, None] * torch.exp(-math.log(10_000.0) * steps / (dims // 2))
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
