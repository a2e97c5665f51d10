"""Names, shapes and dtypes of every exported graph: the one source for export, golden vectors and binding."""

from __future__ import annotations

from dataclasses import dataclass

from astra_ros.history.layout import NUM_SLOTS, blocks_after

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ModelDims:
    """The sizes that fix every tensor of a bundle. Plain integers: the run-time path needs no network code."""

    image_height: int
    image_width: int
    latent_channels: int
    latent_height: int
    latent_width: int
    chunk_len: int
    num_features: int
    depth: int
    num_heads: int
    head_dim: int
    history_tokens: int


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph by name, in order; everything is float32."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


def graph_specs(dims: ModelDims, num_steps: int) -> dict[str, GraphSpec]:
    """encode, remember, append, step_0 … step_{K-1}, decode."""
    pixels = (1, 3, dims.image_height, dims.image_width)
    frame = (1, dims.latent_channels, dims.latent_height, dims.latent_width)
    chunk = (1, dims.chunk_len, *frame[1:])
    keys = (dims.depth, 1, dims.num_heads, dims.history_tokens, dims.head_dim)
    cache = {"history_keys": keys, "history_values": keys, "history_bias": (1, dims.history_tokens)}
    step = {
        "noisy_latents": chunk,
        "last_latents": frame,
        "actions": (1, dims.chunk_len, dims.num_features),
        **cache,
    }
    appended = {f"new_{name}": shape for name, shape in cache.items()}
    newest = NUM_SLOTS - blocks_after(dims.chunk_len)[0].slots[0]
    return {
        "encode": GraphSpec({"pixels": pixels}, {"latents": frame}),
        "remember": GraphSpec(_slots(dims, NUM_SLOTS), cache),
        "append": GraphSpec({**cache, **_slots(dims, newest)}, appended),
        **{f"step_{k}": GraphSpec(step, {"latents": chunk}) for k in range(num_steps)},
        "decode": GraphSpec({"latents": frame}, {"pixels": pixels}),
    }


def _slots(dims: ModelDims, count: int) -> dict[str, Shape]:
    return {
        "history_latents": (1, count, dims.latent_channels, dims.latent_height, dims.latent_width),
        "history_actions": (1, count, dims.num_features),
        "history_mask": (1, count),
    }
