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


# The axis of each part of the history's cache along which candidates lie.
CACHE_AXES = {"history_keys": 1, "history_values": 1, "history_bias": 0}


def graph_specs(dims: ModelDims, num_steps: int, batches: tuple[int, ...] = (1,)) -> dict[str, GraphSpec]:
    """encode, remember, decode, and for every batch append and step_0 … step_{K-1} (named by `batched`)."""
    pixels = (1, 3, dims.image_height, dims.image_width)
    frame = (1, dims.latent_channels, dims.latent_height, dims.latent_width)
    graphs = {
        "encode": GraphSpec({"pixels": pixels}, {"latents": frame}),
        "remember": GraphSpec(_slots(dims, 1, NUM_SLOTS), _cache(dims, 1)),
    }
    for batch in batches:
        graphs |= {
            batched(stage, batch): spec for stage, spec in _chunk_specs(dims, num_steps, batch).items()
        }
    return {**graphs, "decode": GraphSpec({"latents": frame}, {"pixels": pixels})}


def comparison_specs(dims: ModelDims) -> dict[str, GraphSpec]:
    """Graphs that a bundle may hold beside those it needs, to compare with.

    fused: all denoising steps in one graph. step_t: one step, whose noise levels are inputs instead of constants.
    """
    step = _chunk_specs(dims, 1, 1)["step_0"]
    levels: dict[str, Shape] = {"sigma": (1,), "sigma_next": (1,)}
    return {"fused": step, "step_t": GraphSpec({**step.inputs, **levels}, step.outputs)}


def batched(stage: str, batch: int) -> str:
    """Name of the graph that runs a stage for so many candidates at once."""
    return stage if batch == 1 else f"{stage}_x{batch}"


def newest_slots(dims: ModelDims) -> int:
    """Remembered frames, the last ones, that append reads."""
    return NUM_SLOTS - blocks_after(dims.chunk_len)[0].slots[0]


def _chunk_specs(dims: ModelDims, num_steps: int, batch: int) -> dict[str, GraphSpec]:
    cache = _cache(dims, batch)
    frame = (batch, dims.latent_channels, dims.latent_height, dims.latent_width)
    chunk = (batch, dims.chunk_len, *frame[1:])
    step = {
        "noisy_latents": chunk,
        "last_latents": frame,
        "actions": (batch, dims.chunk_len, dims.num_features),
        **cache,
    }
    appended = {f"new_{name}": shape for name, shape in cache.items()}
    return {
        "append": GraphSpec({**cache, **_slots(dims, batch, newest_slots(dims))}, appended),
        **{f"step_{k}": GraphSpec(step, {"latents": chunk}) for k in range(num_steps)},
    }


def _cache(dims: ModelDims, batch: int) -> dict[str, Shape]:
    keys = (dims.depth, batch, dims.history_tokens, dims.num_heads, dims.head_dim)
    return {"history_keys": keys, "history_values": keys, "history_bias": (batch, dims.history_tokens)}


def _slots(dims: ModelDims, batch: int, count: int) -> dict[str, Shape]:
    return {
        "history_latents": (batch, count, dims.latent_channels, dims.latent_height, dims.latent_width),
        "history_actions": (batch, count, dims.num_features),
        "history_mask": (batch, count),
    }
