"""The denoiser: a causal transformer over latent frames with history keys and values computed once per chunk.

    remember(history) -> keys, values            once per chunk; history attends to history only
    denoise(noisy chunk, sigma, keys, values)    once per denoising step; the chunk attends to history and itself

The network predicts clean latents as a change against the last history frame (docs/decisions/0002); velocity
= (noisy - clean) / sigma. At initialisation the change is zero: training starts at "nothing moves".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from astra_ros.denoiser.blocks import Block, Modulation, modulated_norm, rotary_angles

HIDDEN = -1e4  # added to the logits of what a token may not see


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of the denoiser.

    latent_*: shape of a latent frame. chunk_len: frames denoised together. history_slots: frames remembered.
    num_features: action features per frame.
    """

    latent_channels: int = 12
    latent_size: int = 16
    patch: int = 2
    width: int = 256
    depth: int = 6
    num_heads: int = 4
    mlp_ratio: int = 4
    history_slots: int = 4
    chunk_len: int = 5
    num_features: int = 25

    def __post_init__(self) -> None:
        if self.latent_size % self.patch:
            raise ValueError(
                f"patch: expected a divisor of latent_size {self.latent_size}, found {self.patch}"
            )
        if self.width % (8 * self.num_heads):
            raise ValueError(
                f"width: expected a multiple of 8 * num_heads = {8 * self.num_heads}, found {self.width}"
            )

    @property
    def tokens_per_frame(self) -> int:
        return (self.latent_size // self.patch) ** 2

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads


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

    def forward(self, sigma: Tensor) -> tuple[list[Modulation], tuple[Tensor, Tensor]]:
        """sigma (b,) -> per block a Modulation, and (shift, scale) of the head; all (b, 1, d)."""
        embedding = self.mlp(_sinusoids(1000.0 * sigma))
        table = rearrange(self.projection(embedding), "b (six d) -> b six d", six=6)
        one = torch.tensor([0, 1, 0, 0, 1, 0], dtype=table.dtype).view(1, 6, 1)
        blocks = [Modulation(*(table + row + one).split(1, dim=1)) for row in self.block_table]
        shift, scale = rearrange(self.head(embedding), "b (two d) -> two b 1 d", two=2)
        return blocks, (shift, 1.0 + scale)


class ActionEncoder(nn.Module):
    """Action features -> one embedding per frame.

    Sines of the features, because where an arm appears in a picture is
    a trigonometric function of its joints and a few milliradians must show.
    """

    def __init__(self, num_features: int, width: int, num_octaves: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_features * (1 + 2 * num_octaves), width), nn.SiLU(), nn.Linear(width, width)
        )
        self.register_buffer("frequencies", 2.0 ** torch.arange(num_octaves), persistent=False)

    frequencies: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """(b, t, f) -> (b, t, d)."""
        angles = rearrange(features[..., None] * self.frequencies, "b t f o -> b t (f o)")
        return self.layers(torch.cat([features, angles.sin(), angles.cos()], dim=-1))


class Denoiser(nn.Module):
    """See the module docstring. Shapes: b batch, s history slots, t chunk frames, c h w latents, f action features."""

    def __init__(self, config: DenoiserConfig) -> None:
        super().__init__()
        self.config = config
        values = config.latent_channels * config.patch**2
        self.history_embedder = nn.Linear(values, config.width)
        self.patch_embedder = nn.Linear(2 * values, config.width)
        self.position = nn.Parameter(0.02 * torch.randn(config.tokens_per_frame, config.width))
        self.action_encoder = ActionEncoder(config.num_features, config.width)
        self.noise_level = NoiseLevelEmbedder(config.width, config.depth)
        self.blocks = nn.ModuleList(
            Block(config.width, config.num_heads, config.mlp_ratio) for _ in range(config.depth)
        )
        self.head = nn.Linear(config.width, values)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        slots, chunk = config.history_slots, config.chunk_len
        self.register_buffer("history_angles", self._angles(torch.arange(1 - slots, 1)), persistent=False)
        self.register_buffer("chunk_angles", self._angles(torch.arange(1, chunk + 1)), persistent=False)
        frames = torch.arange(slots).repeat_interleave(config.tokens_per_frame)
        self.register_buffer("causal_bias", HIDDEN * (frames[:, None] < frames[None, :]), persistent=False)
        self.register_buffer("other_frames", (frames[:, None] != frames[None, :]).float(), persistent=False)

    history_angles: Tensor
    chunk_angles: Tensor
    causal_bias: Tensor
    other_frames: Tensor

    def remember(
        self, latents: Tensor, actions: Tensor, mask: Tensor, sigma: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """History -> cache. latents (b, s, c, h, w), actions (b, s, f), mask (b, s) 1 = filled, sigma (b,) of the history.

        Returns keys and values (l, b, k, s*n, d_head) and the bias (b, s*n) that hides empty slots.
        """
        bias = repeat((1.0 - mask) * HIDDEN, "b s -> b (s n)", n=self.config.tokens_per_frame)
        x = self.history_embedder(self._patches(latents)) + self.position.repeat(latents.shape[1], 1)
        modulations, _ = self.noise_level(sigma)
        action = self.action_encoder(actions)
        # A frame always sees itself, so that an empty slot's tokens have something to look at.
        attention_bias = self.causal_bias + bias[:, None, None] * self.other_frames
        keys, values = [], []
        for block, modulation in zip(self.blocks, modulations, strict=True):
            x, (key, value) = block(x, modulation, action, self.history_angles, attention_bias)
            keys.append(key)
            values.append(value)
        return torch.stack(keys), torch.stack(values), bias

    def denoise(
        self,
        noisy: Tensor,
        last: Tensor,
        actions: Tensor,
        sigma: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor,
    ) -> Tensor:
        """Predicted clean latents (b, t, c, h, w) of a chunk at noise level sigma (b,), given the history's cache.

        last (b, c, h, w): the newest history frame, against which the change is predicted.
        """
        modulations, (shift, scale) = self.noise_level(sigma)
        batch, chunk = noisy.shape[:2]
        last = repeat(last, "b c h w -> b t c h w", t=chunk)
        x = self.patch_embedder(self._patches(torch.cat([noisy, last], dim=2))) + self.position.repeat(
            chunk, 1
        )
        action = self.action_encoder(actions)
        own = torch.zeros(batch, x.shape[1], dtype=bias.dtype, device=bias.device)
        attention_bias = torch.cat([bias, own], dim=1)[:, None, None]
        for layer, (block, modulation) in enumerate(zip(self.blocks, modulations, strict=True)):
            x, _ = block(
                x, modulation, action, self.chunk_angles, attention_bias, (keys[layer], values[layer])
            )
        change = self._unpatch(self.head(modulated_norm(x, shift, scale)), chunk)
        return last + change

    def _patches(self, latents: Tensor) -> Tensor:
        p = self.config.patch
        return rearrange(latents, "b t c (h p) (w q) -> b (t h w) (c p q)", p=p, q=p)

    def _unpatch(self, values: Tensor, frames: int) -> Tensor:
        p, grid = self.config.patch, self.config.latent_size // self.config.patch
        pattern = "b (t h w) (c p q) -> b t c (h p) (w q)"
        return rearrange(values, pattern, t=frames, h=grid, w=grid, p=p, q=p)

    def _angles(self, frames: Tensor) -> Tensor:
        grid = torch.arange(self.config.latent_size // self.config.patch)
        coordinates = torch.cartesian_prod(frames, grid, grid).float()
        return rotary_angles(coordinates, self.config.head_dim)


def _sinusoids(timestep: Tensor, dims: int = 256) -> Tensor:
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(dims // 2) / (dims // 2))
    angles = timestep[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
