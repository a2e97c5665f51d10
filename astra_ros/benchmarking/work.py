"""Floating point operations of a bundle's graphs, by the formulas of denoiser/cost.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from astra_ros.backends.manifest import Manifest
from astra_ros.backends.schema import decode
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.cost import Flops, flops
from astra_ros.denoiser.presets import PRESETS
from astra_ros.history.layout import BLOCKS, HistoryBlock, blocks_after

_SINUSOIDS = 256  # of the noise level


def bundle_flops(manifest: Manifest) -> Flops:
    """Of one run of remember, append and a step.

    Raises ValueError when the bundle does not tell its network's sizes.
    """
    return graph_flops(bundle_config(manifest))


def graph_flops(config: DenoiserConfig) -> Flops:
    """What an export leaves of `flops(config)`.

    The noise level is a constant, the adapter's output layer one with the attention's, and of the history's last layer
    nobody asks for more than keys and values. Raises ValueError for the ablation's adapter.
    """
    if config.adapter != "act":
        raise ValueError(
            f"adapter: expected act, whose exported graphs are known here, found {config.adapter}"
        )
    full, width = flops(config), config.width
    noise_level = 2 * width * (_SINUSOIDS + 9 * width)

    def history(operations: int, blocks: Sequence[HistoryBlock]) -> int:
        tokens = sum(map(config.block_tokens, blocks))
        unused = 2 * tokens * width * (width + 2 * config.history_tokens + 2 * config.mlp_hidden)
        return operations - noise_level - adapter(tokens) - unused

    def adapter(tokens: int) -> int:
        return config.depth * 2 * tokens * width * width

    return Flops(
        remember=history(full.remember, BLOCKS),
        append=history(full.append, blocks_after(config.chunk_len)),
        step=full.step - noise_level - adapter(config.chunk_len * config.tokens_per_frame),
    )


def bundle_config(manifest: Manifest) -> DenoiserConfig:
    """The preset with the changes that the bundle's provenance tells of, for the one action space it serves.

    Raises ValueError when that is not the network which the manifest describes.
    """
    if manifest.preset not in PRESETS:
        raise ValueError(f"preset: expected one of {', '.join(PRESETS)}, found {manifest.preset!r}")
    model = PRESETS[manifest.preset]().for_actions([manifest.action])
    config = _changed(model.denoiser, manifest.provenance)
    if config.actions.router == "hard":  # the export keeps the one expert that is taken
        config = replace(config, actions=replace(config.actions, router="single"))
    expected = {
        "chunk_len": manifest.chunk_len,
        "depth": manifest.network.depth,
        "num_heads": manifest.network.num_heads,
        "head_dim": manifest.network.head_dim,
        "history_tokens": manifest.history.num_tokens,
    }
    found = {name: getattr(config, name) for name in expected}
    if found != expected:
        raise ValueError(
            f"sizes of the network: expected {expected} (the manifest), found {found} by provenance"
        )
    return config


def _changed(config: DenoiserConfig, provenance: dict[str, Any]) -> DenoiserConfig:
    changes: Any = provenance
    for key in ("training", "train_config", "denoiser"):
        changes = changes.get(key) if isinstance(changes, dict) else None
    if not isinstance(changes, dict):
        return config
    fields: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    actions = {**fields["actions"], **changes.get("actions", {})}
    return decode(DenoiserConfig, {**fields, **changes, "actions": actions})
