"""Mixture of action experts: features of any action space → one embedding per latent frame (paper: A.8).

    features ─► projector of the action space ─► router ─► one expert ─► embedding

Runs once per latent frame; the blocks share the result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from astra_ros.actions.config import ActionEncoderConfig


class Routing(NamedTuple):
    """probabilities (b, t, e): the router's; chosen (b, t): the expert that ran; by_modality (b, t): that of `hard`."""

    probabilities: Tensor
    chosen: Tensor
    by_modality: Tensor


class ActionEncoder(nn.Module):
    """See the module docstring.

    Sines of the features go in beside them, because where an arm appears in a picture is a trigonometric function of
    its joints and a few milliradians must show. Features are padded to the widest space, so that a batch may mix
    robots.
    """

    def __init__(self, config: ActionEncoderConfig, width: int) -> None:
        super().__init__()
        self.config = config
        spaces, experts = len(config.num_features), 1 if config.router == "single" else config.num_experts
        inputs = max(config.num_features) * (1 + 2 * config.octaves)
        self.projector = nn.Parameter(torch.randn(spaces, inputs, config.unified) * inputs**-0.5)
        self.projector_bias = nn.Parameter(torch.zeros(spaces, config.unified))
        modality_of = torch.tensor(config.modality_of) % experts
        self.router = nn.Linear(config.unified, experts)
        # The router begins with one expert per modality and may learn better (docs/decisions/0009).
        self.router_prior = nn.Parameter(4.0 * F.one_hot(modality_of, experts))
        # Experts begin alike, so that it does not matter yet which one an unlearned router takes (docs/decisions/0009).
        first, last = (torch.randn(size, width) * size**-0.5 for size in (config.unified, width))
        self.expert_in = nn.Parameter(first.repeat(experts, 1, 1))
        self.expert_bias = nn.Parameter(torch.zeros(experts, width))
        self.expert_out = nn.Parameter(last.repeat(experts, 1, 1))
        self.register_buffer("frequencies", 2.0 ** torch.arange(config.octaves), persistent=False)
        self.register_buffer("modality_of", modality_of, persistent=False)

    frequencies: Tensor
    modality_of: Tensor

    def forward(self, features: Tensor, space: Tensor) -> tuple[Tensor, Routing]:
        """features (b, t, f), up to the widest space's with zeros; space (b,) indices. Returns (b, t, d) and the routing."""
        unified = self._project(features, space)
        probabilities = (self.router(unified) + self.router_prior[space][:, None]).softmax(dim=-1)
        by_modality = self.modality_of[space][:, None].expand(probabilities.shape[:2])
        chosen = by_modality if self.config.router == "hard" else probabilities.argmax(dim=-1)
        taken = F.one_hot(chosen, probabilities.shape[-1]).to(probabilities.dtype)
        if self.config.router == "learned" and probabilities.requires_grad:
            # A factor of 1, through which the router learns from the result. The probability itself would make actions
            # faint as long as the router is unsure (docs/decisions/0009).
            taken = taken * (probabilities / probabilities.detach())
        # Experts are a few thousand multiplications per frame: running all and keeping one beats gathering weights.
        hidden = F.silu(unified @ rearrange(self.expert_in, "e u d -> u (e d)") + self.expert_bias.flatten())
        kept = rearrange(
            rearrange(hidden, "b t (e d) -> b t e d", e=taken.shape[-1]) * taken[..., None],
            "b t e d -> b t (e d)",
        )
        return kept @ rearrange(self.expert_out, "e d o -> (e d) o"), Routing(
            probabilities, chosen, by_modality
        )

    def _project(self, features: Tensor, space: Tensor) -> Tensor:
        if missing := max(self.config.num_features) - features.shape[-1]:
            features = F.pad(features, (0, missing))
        angles = rearrange(features[..., None] * self.frequencies, "b t f o -> b t (f o)")
        inputs = torch.cat([features, angles.sin(), angles.cos()], dim=-1)
        projected = inputs @ self.projector[space]
        return F.silu(projected + self.projector_bias[space][:, None])


def balance_loss(routing: Routing) -> Tensor:
    """Load-balancing loss of the Switch Transformer, less its value at one expert per modality; never below 0.

    The Switch Transformer's loss is the number of experts times the sum over experts of (share of frames that chose it x
    mean probability); it is 1 when the load is even. What one expert per modality costs is free: a batch of two modalities
    need not be spread over four experts. Returns a scalar.
    """
    experts = routing.probabilities.shape[-1]
    share, by_modality = (
        F.one_hot(taken, experts).to(routing.probabilities.dtype).mean(dim=(0, 1))
        for taken in (routing.chosen, routing.by_modality)
    )
    uneven = experts * (share * routing.probabilities.mean(dim=(0, 1))).sum()
    return F.relu(uneven - experts * by_modality.square().sum())
