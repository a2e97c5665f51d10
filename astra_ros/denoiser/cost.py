"""What a denoiser of given sizes costs: parameters and floating point operations, by formula. No torch.

A multiplication with its addition counts as two operations. Only matrix products and convolutions are counted; norms,
activations and softmax are not. tests/unit/denoiser/test_cost.py compares every number with the network itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.presets import PRESETS
from astra_ros.history.layout import BLOCKS, MAX_PATCH_SIDE, NUM_SLOTS, HistoryBlock, blocks_after

_SINUSOIDS = 256  # of the noise level
_KERNEL = 9  # of the convolutions


@dataclass(frozen=True)
class Flops:
    """Of one robot's prediction. remember: once. append: once per further chunk. step: per denoising step of a chunk.

    plan: of a step, what depends on the actions alone and could be done once per chunk.
    """

    remember: int
    append: int
    step: int
    plan: int


def parameters(config: DenoiserConfig) -> dict[str, int]:
    """Number of parameters by part, named as the modules of dit.Denoiser."""
    width, values = config.width, config.latent_channels * config.patch**2
    return {
        "history_embedder": sum(_linear(_patch_values(config, block), width) for block in _poolings()),
        "patch_embedder": _linear(2 * values, width),
        "position": config.tokens_per_frame * width,
        "action_encoder": _action_parameters(config),
        "pose_map": _pose_map_parameters(config),
        "noise_level": _linear(_SINUSOIDS, width)
        + _linear(width, width)
        + _linear(width, 6 * width)
        + _linear(width, 2 * width)
        + config.depth * 6 * width,
        "blocks": config.depth * _block_parameters(config),
        "head": _head_parameters(config),
    }


def flops(config: DenoiserConfig) -> Flops:
    """As the network runs; an exported graph saves what is constant at its noise level."""
    newest = blocks_after(config.chunk_len)
    return Flops(
        remember=_history_flops(config, BLOCKS),
        append=_history_flops(config, newest),
        step=_step_flops(config),
        plan=_plan_flops(config),
    )


def table() -> str:
    """The presets, as Markdown."""
    rows = [
        "| preset | pictures | tokens of a frame | of the history | of a chunk | parameters | remember | append | step |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, make in PRESETS.items():
        model = make()
        config = model.denoiser
        cost, count = flops(config), sum(parameters(config).values())
        tokens = config.tokens_per_frame
        numbers = (
            f"{tokens} | {config.history_tokens} | {config.chunk_len * tokens} | {count / 1e6:.1f} M",
            *map(_scaled, (cost.remember, cost.append, cost.step)),
        )
        rows.append(f"| `{name}` | {model.image_height}x{model.image_width} | {' | '.join(numbers)} |")
    return "\n".join(rows) + "\n"


def _scaled(number: int) -> str:
    size, unit = (1e12, "T") if number >= 1e12 else (1e9, "G")
    return f"{number / size:.3g} {unit}"


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _poolings() -> list[HistoryBlock]:
    """One block for each pooling: they share its projection."""
    return list({block.pooling: block for block in BLOCKS}.values())


def _patch_values(config: DenoiserConfig, block: HistoryBlock) -> int:
    """Latent values that become one token of a block."""
    side = min(block.pooling * config.patch, MAX_PATCH_SIDE)
    return config.latent_channels * block.num_frames * side**2


def _num_experts(config: DenoiserConfig) -> int:
    return 1 if config.actions.router == "single" else config.actions.num_experts


def _projector_inputs(config: DenoiserConfig) -> int:
    return max(config.actions.num_features) * (1 + 2 * config.actions.octaves)


def _action_parameters(config: DenoiserConfig) -> int:
    width, unified, experts = config.width, config.actions.unified, _num_experts(config)
    spaces = len(config.actions.num_features)
    projectors = spaces * _linear(_projector_inputs(config), unified)
    router = _linear(unified, experts) + spaces * experts
    return projectors + router + experts * (_linear(unified, width) + width * width)


def _pose_map_parameters(config: DenoiserConfig) -> int:
    if not config.pose_rank:
        return 0
    width, rank = config.width, config.pose_rank
    drawn = _linear(width, 2 * width) + _linear(2 * width, config.tokens_per_frame * rank) + rank * width
    painted = sum(_KERNEL * inputs * outputs + outputs for inputs, outputs in _painter(config))
    return drawn + painted


def _painter(config: DenoiserConfig) -> list[tuple[int, int]]:
    """Channels in and out of the convolutions that double a map's sides, of the one after them and of the sketch."""
    if not config.refiner:
        return []
    fine, doublings = config.refiner, int(math.log2(config.patch))
    inputs = [config.pose_rank, *doublings * [fine], fine]
    return list(zip(inputs, [*doublings * [4 * fine], fine, config.latent_channels], strict=True))


def _block_parameters(config: DenoiserConfig) -> int:
    width = config.width
    attention = _linear(width, 3 * width) + _linear(width, width)
    added = width * width if config.adapter == "act" else 3 * width * width
    mlp = _linear(width, config.mlp_hidden) + _linear(config.mlp_hidden, width)
    return attention + added + _linear(width, width) + mlp


def _head_parameters(config: DenoiserConfig) -> int:
    patch, channels, refiner = config.patch**2, config.latent_channels, config.refiner
    if not refiner:
        return _linear(config.width, channels * patch)
    convolutions = sum(_KERNEL * inputs * outputs + outputs for inputs, outputs in _convolutions(config))
    return _linear(config.width, refiner * patch) + convolutions


def _convolutions(config: DenoiserConfig) -> tuple[tuple[int, int], ...]:
    """Channels in and out of mix, flow, refine, out and gate."""
    channels, fine = config.latent_channels, config.refiner
    layers = (fine + 2 * channels, fine), (fine, 2), (fine + channels, fine), (fine, channels)
    return (*layers, (fine, channels)) if config.pose_rank else layers


def _history_flops(config: DenoiserConfig, blocks: tuple[HistoryBlock, ...]) -> int:
    """Of the tokens of `blocks`, which look at the whole history."""
    frames = NUM_SLOTS - blocks[0].slots[0]
    tokens = sum(map(config.block_tokens, blocks))
    embedding = sum(config.block_tokens(block) * _patch_values(config, block) for block in blocks)
    layers = config.depth * _block_flops(config, tokens, config.history_tokens, len(blocks))
    return 2 * embedding * config.width + _action_flops(config, frames) + _noise_level_flops(config) + layers


def _step_flops(config: DenoiserConfig) -> int:
    width, frames = config.width, config.chunk_len
    tokens = frames * config.tokens_per_frame
    embedding = 2 * tokens * 2 * config.latent_channels * config.patch**2 * width
    layers = config.depth * _block_flops(config, tokens, config.history_tokens + tokens, frames)
    actions = _encoded_action_flops(config)
    return embedding + actions + _noise_level_flops(config) + layers + _head_flops(config, frames)


def _encoded_action_flops(config: DenoiserConfig) -> int:
    """The actions of a chunk and what they draw, before any block."""
    return _action_flops(config, config.chunk_len) + _pose_map_flops(config, config.chunk_len)


def _plan_flops(config: DenoiserConfig) -> int:
    """And what the blocks' adapters make of the actions: one projection each, or keys and values."""
    projections = 1 if config.adapter == "act" else 2
    adapters = config.depth * 2 * config.chunk_len * projections * config.width**2
    return _encoded_action_flops(config) + adapters


def _block_flops(config: DenoiserConfig, tokens: int, seen: int, actions: int) -> int:
    width = config.width
    projections = 2 * tokens * 4 * width * width
    attention = 4 * tokens * seen * width
    mlp = 4 * tokens * width * config.mlp_hidden
    if config.adapter == "act":
        adapter = 2 * (actions + tokens) * width * width
    else:
        adapter = 2 * (2 * actions + 2 * tokens) * width * width + 4 * tokens * actions * width
    return projections + attention + adapter + mlp


def _action_flops(config: DenoiserConfig, frames: int) -> int:
    width, unified, experts = config.width, config.actions.unified, _num_experts(config)
    expert = unified * width + width * width
    return 2 * frames * (_projector_inputs(config) * unified + experts * (unified + expert))


def _pose_map_flops(config: DenoiserConfig, frames: int) -> int:
    if not config.pose_rank:
        return 0
    tokens, width, rank = config.tokens_per_frame, config.width, config.pose_rank
    drawn = 2 * width * width + 2 * width * tokens * rank + tokens * rank * width
    painted = sum(
        tokens * min(4**doublings, config.patch**2) * _KERNEL * inputs * outputs
        for doublings, (inputs, outputs) in enumerate(_painter(config))
    )
    return 2 * frames * (drawn + painted)


def _noise_level_flops(config: DenoiserConfig) -> int:
    return 2 * config.width * (_SINUSOIDS + 9 * config.width)


def _head_flops(config: DenoiserConfig, frames: int) -> int:
    patch, channels, refiner = config.patch**2, config.latent_channels, config.refiner
    tokens = frames * config.tokens_per_frame
    if not refiner:
        return 2 * tokens * config.width * channels * patch
    convolutions = _KERNEL * sum(inputs * outputs for inputs, outputs in _convolutions(config))
    return 2 * tokens * patch * (config.width * refiner + convolutions)
