"""Names, shapes and dtypes of every exported graph: the one source for export, golden vectors and binding."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModelDims:
    """The sizes that fix every tensor of a bundle. Plain integers: the run-time path needs no network code."""

    image_height: int
    image_width: int
    latent_channels: int
    latent_height: int
    latent_width: int
    history_slots: int
    chunk_len: int
    num_features: int
    depth: int
    num_heads: int
    head_dim: int
    tokens_per_frame: int


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph by name, in order; everything is float32."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


def graph_specs(dims: ModelDims, num_steps: int) -> dict[str, GraphSpec]:
    """encode, remember, step_0 … step_{K-1}, decode."""
    pixels = (1, 3, dims.image_height, dims.image_width)
    frame = (1, dims.latent_channels, dims.latent_height, dims.latent_width)
    history = (1, dims.history_slots, *frame[1:])
    chunk = (1, dims.chunk_len, *frame[1:])
    history_tokens = dims.history_slots * dims.tokens_per_frame
    cache = {
        "history_keys": (dims.depth, 1, dims.num_heads, history_tokens, dims.head_dim),
        "history_values": (dims.depth, 1, dims.num_heads, history_tokens, dims.head_dim),
        "history_bias": (1, history_tokens),
    }
    remember = {
        "history_latents": history,
        "history_actions": (1, dims.history_slots, dims.num_features),
        "history_mask": (1, dims.history_slots),
    }
    step = {
        "noisy_latents": chunk,
        "last_latents": frame,
        "actions": (1, dims.chunk_len, dims.num_features),
        **cache,
    }
    steps = {f"step_{k}": GraphSpec(step, {"latents": chunk}) for k in range(num_steps)}
    return {
        "encode": GraphSpec({"pixels": pixels}, {"latents": frame}),
        "remember": GraphSpec(remember, cache),
        **steps,
        "decode": GraphSpec({"latents": frame}, {"pixels": pixels}),
    }
