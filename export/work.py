"""Floating point operations of a bundle's graphs, by the formulas of denoiser/cost.py: they go into the manifest."""

from __future__ import annotations

from collections.abc import Sequence

from astra_ros.backends.manifest import FlopsSpec
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.cost import flops
from astra_ros.history.layout import BLOCKS, HistoryBlock, blocks_after

_SINUSOIDS = 256  # of the noise level


def graph_flops(config: DenoiserConfig) -> FlopsSpec | None:
    """What an export leaves of `flops(config)`; None for the ablation's adapter, of whose graphs nobody has the formulas.

    The noise level is a constant, the adapter's output layer one with the attention's, and of the history's last layer
    nobody asks for more than keys and values. config: of the network as it is served.
    """
    if config.adapter != "act":
        return None
    full, width = flops(config), config.width
    noise_level = 2 * width * (_SINUSOIDS + 9 * width)

    def history(operations: int, blocks: Sequence[HistoryBlock]) -> int:
        tokens = sum(map(config.block_tokens, blocks))
        unused = 2 * tokens * width * (width + 2 * config.history_tokens + 2 * config.mlp_hidden)
        return operations - noise_level - adapter(tokens) - unused

    def adapter(tokens: int) -> int:
        return config.depth * 2 * tokens * width * width

    return FlopsSpec(
        remember=history(full.remember, BLOCKS),
        append=history(full.append, blocks_after(config.chunk_len)),
        step=full.step - noise_level - adapter(config.chunk_len * config.tokens_per_frame),
        plan=full.plan,
    )
