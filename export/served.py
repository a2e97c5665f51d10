"""A checkpoint → the same network as a robot runs it: for one action space, with what is constant there folded in."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from astra_ros.actions.config import ActionEncoderConfig
from astra_ros.actions.encoder import ActionEncoder
from astra_ros.denoiser.blocks import ActAdapter, Block
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.dit import Denoiser


def as_served(checkpoint: Checkpoint, space: str = "", num_steps: int = 0) -> Checkpoint:
    """A checkpoint that gives the same answers for `space` and knows no other; it shares nothing with the given one.

    The projectors of other spaces are gone, so that features need no padding; with a hard router also the experts that
    are never taken; and the linear layer of every action adapter is one with the layer before it.
    space: "" = the only one. num_steps: denoising steps of a chunk; 0 = the preset's. Raises ValueError.
    """
    space = space or (next(iter(checkpoint.actions)) if len(checkpoint.actions) == 1 else "")
    index, spec = checkpoint.space_index(space), checkpoint.actions[space]
    config = checkpoint.config.for_actions([spec])
    router = "single" if config.denoiser.actions.router == "hard" else config.denoiser.actions.router
    actions = replace(config.denoiser.actions, router=router)
    return replace(
        checkpoint,
        config=replace(
            config,
            num_steps=num_steps or config.num_steps,
            denoiser=replace(config.denoiser, actions=actions),
        ),
        actions={space: spec},
        codec=copy.deepcopy(checkpoint.codec),
        denoiser=_folded(checkpoint.denoiser, index, actions),
    )


class FoldedActAdapter(ActAdapter):
    """Its linear layer has become part of the attention's."""

    def __init__(self, adapter: ActAdapter) -> None:
        nn.Module.__init__(self)
        self.action_in = adapter.action_in

    def after(self, attended: Tensor, action: Tensor, frames: Tensor) -> Tensor:
        del action, frames
        return attended


@torch.no_grad()
def _folded(denoiser: Denoiser, index: int, config: ActionEncoderConfig) -> Denoiser:
    folded = copy.deepcopy(denoiser)
    folded.action_encoder = _one_space(denoiser.action_encoder, index, config)
    for block in folded.blocks:
        assert isinstance(block, Block)
        if isinstance(adapter := block.adapter, ActAdapter):
            out = block.attention.out
            out.bias.copy_(adapter.out(out.bias))
            out.weight.copy_(adapter.out.weight @ out.weight)
            block.adapter = FoldedActAdapter(adapter)
    return folded


def _one_space(encoder: ActionEncoder, index: int, config: ActionEncoderConfig) -> ActionEncoder:
    (own,), widest, octaves = config.num_features, max(encoder.config.num_features), config.octaves
    plain, sines, cosines = encoder.projector[index].split([widest, widest * octaves, widest * octaves])
    experts = slice(None)
    if encoder.config.router == "hard":
        taken = int(encoder.modality_of[index])
        experts = slice(taken, taken + 1)
    weights = encoder.state_dict() | {
        "projector": torch.cat([plain[:own], sines[: own * octaves], cosines[: own * octaves]])[None],
        # A padded feature is 0, and its cosines are 1 whatever happens.
        "projector_bias": (encoder.projector_bias[index] + cosines[own * octaves :].sum(dim=0))[None],
    }
    weights["router_prior"] = encoder.router_prior[index][None, experts]
    for name in ("router.weight", "router.bias", "expert_in", "expert_bias", "expert_out"):
        weights[name] = weights[name][experts]
    one = ActionEncoder(config, encoder.expert_out.shape[-1])
    one.load_state_dict(weights)
    return one
