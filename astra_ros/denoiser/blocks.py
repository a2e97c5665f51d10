"""The transformer block: adaptive norm, attention with rotary coordinates, action adapter, gated MLP."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.denoiser.config import AdapterKind

KeysValues = tuple[Tensor, Tensor]

HIDDEN = -1e4  # added to the logits of what a token may not see


class Rotation(NamedTuple):
    """Cosines and sines, (1, n, 1, d_head), of the angles by which the features of n tokens turn."""

    cos: Tensor
    sin: Tensor


class Context(NamedTuple):
    """What every block is told beside its tokens.

    action (b, t, d): one embedding per frame or block of frames. frames (n,): the row of it each token belongs to.
    rotation: of each token's place. bias: broadcasts to (b, k, n, n_past + n).
    """

    action: Tensor
    frames: Tensor
    rotation: Rotation
    bias: Tensor


class Modulation(NamedTuple):
    """Adaptive norm of one block, (b | 1, 1, d) each. The scales already contain the 1 of (1 + scale)."""

    attention_shift: Tensor
    attention_scale: Tensor
    attention_gate: Tensor
    mlp_shift: Tensor
    mlp_scale: Tensor
    mlp_gate: Tensor


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm, then scale and shift. One vector for all tokens folds into the norm's own affine (paper: AdaLN)."""
    if shift.shape[0] == 1 and not torch.is_grad_enabled():
        return F.layer_norm(x, x.shape[-1:], scale.flatten(), shift.flatten(), 1e-6)
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * scale + shift


def rotary_angles(coordinates: Tensor, head_dim: int, theta: float = 100.0) -> Tensor:
    """Rotary angles, (n, head_dim / 2), of tokens at `coordinates` (n, 3): time, row, column.

    A quarter of the pairs turns with time, the rest with the two image axes.
    """
    pairs = head_dim // 2
    shares = (pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8)
    angles = [
        coordinates[:, axis, None] * theta ** -(torch.arange(share) / share)
        for axis, share in enumerate(shares)
    ]
    return torch.cat(angles, dim=1)


def rotation(angles: Tensor, scale: float = 1.0) -> Rotation:
    """By angles (n, d_head / 2), and to `scale` times the length."""
    both = repeat(angles, "n d -> 1 n 1 (two d)", two=2)
    return Rotation(scale * both.cos(), scale * both.sin())


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Turn each pair of features of (b, n, k, d_head): feature i with feature i + d_head / 2."""
    half = x.shape[-1] // 2
    return x * by.cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * by.sin


class SelfAttention(nn.Module):
    """Attention over own tokens, with cached keys and values of earlier tokens in front if given.

    Its form is the one that inference runtimes have a kernel for (docs/decisions/0014).
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.head_dim = width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Tensor, by: Rotation, bias: Tensor, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """x (b, n, d); bias broadcasts to (b, k, n, n_past + n). by: rotation that divides logits by d_head ** 0.5.

        Returns the output, and the own keys and values (b, n, k, d_head).
        """
        queries_keys, value = self._project(x)
        # Queries and keys of one length bound the logits: stable at high rates.
        even = F.rms_norm(queries_keys, queries_keys.shape[-1:], eps=1e-6)
        query, key = rotate(even, by).chunk(2, dim=2)
        own = (key, value)
        if past is not None:
            key, value = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
        query, value = (rearrange(each, "b n k d -> b k n d") for each in (query, value))
        logits = query @ rearrange(key, "b n k d -> b k d n") + bias.to(query.dtype)
        mixed = logits.softmax(dim=-1) @ value
        return self.out(rearrange(mixed, "b k n d -> b n (k d)")), own

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(b, n, d) → queries and keys (b, n, 2 * k, d_head), and values (b, n, k, d_head).

        Two products, not one that is split: runtimes copy what they split.
        """
        values = 2 * x.shape[-1]
        queries_keys = F.linear(x, self.qkv.weight[:values], self.qkv.bias[:values])
        value = F.linear(x, self.qkv.weight[values:], self.qkv.bias[values:])
        pattern = "b n (k d) -> b n k d"
        return rearrange(queries_keys, pattern, d=self.head_dim), rearrange(value, pattern, d=self.head_dim)


class ActAdapter(nn.Module):
    """Action embedding added before attention, a linear layer after it (paper: A.7). Nothing at initialisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.action_in = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.action_in.weight)
        nn.init.eye_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def before(self, x: Tensor, action: Tensor, frames: Tensor) -> Tensor:
        """x (b, n, d), action (b, t, d), frames (n,): the row of `action` each token belongs to."""
        return x + self.action_in(action).index_select(1, frames)

    def after(self, attended: Tensor, action: Tensor, frames: Tensor) -> Tensor:
        """What attention gave, (b, n, d)."""
        del action, frames
        return self.out(attended)


class CrossAttentionAdapter(nn.Module):
    """The ablation: tokens look up the actions of their own and earlier frames. Nothing at initialisation."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def before(self, x: Tensor, action: Tensor, frames: Tensor) -> Tensor:
        """Attention itself does not see the action."""
        del action, frames
        return x

    def after(self, attended: Tensor, action: Tensor, frames: Tensor) -> Tensor:
        """attended (b, n, d) and what the actions (b, t, d) add to it."""
        heads = {"k": self.num_heads}
        query = rearrange(self.query(attended), "b n (k d) -> b k n d", **heads)
        key, value = rearrange(self.key_value(action), "b t (two k d) -> two b k t d", two=2, **heads)
        rows = torch.arange(action.shape[1], device=frames.device)
        distance = (frames[:, None] - rows).to(query.dtype)
        bias = torch.where(distance < 0, torch.full_like(distance, HIDDEN), -distance)  # near frames first
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return attended + self.out(rearrange(mixed, "b k n d -> b n (k d)"))


class Block(nn.Module):
    """One layer of the transformer.

    The action enters only by addition, the noise level only through the adaptive norm, so that at a
    fixed noise level every modulation is a constant (paper: A.7; design: folds into the exported step).
    """

    def __init__(self, width: int, num_heads: int, mlp_hidden: int, adapter: AdapterKind) -> None:
        super().__init__()
        self.attention = SelfAttention(width, num_heads)
        self.adapter = ActAdapter(width) if adapter == "act" else CrossAttentionAdapter(width, num_heads)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_hidden),
            nn.GELU(approximate="tanh"),
            nn.Linear(mlp_hidden, width),
        )

    def forward(
        self, x: Tensor, modulation: Modulation, context: Context, past: KeysValues | None = None
    ) -> tuple[Tensor, KeysValues]:
        """x (b, n, d). Returns it changed, and the keys and values of its own tokens."""
        h = modulated_norm(x, modulation.attention_shift, modulation.attention_scale)
        h = self.adapter.before(h, context.action, context.frames)
        attended, own = self.attention(h, context.rotation, context.bias, past)
        x = x + modulation.attention_gate * self.adapter.after(attended, context.action, context.frames)
        h = modulated_norm(x, modulation.mlp_shift, modulation.mlp_scale)
        return x + modulation.mlp_gate * self.mlp(h), own
