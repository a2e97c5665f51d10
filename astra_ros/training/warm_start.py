"""Begin a training, or a student, at the weights of an earlier model, for the same or for other action spaces."""

from __future__ import annotations

import torch
from torch import Tensor

from astra_ros.denoiser.checkpoint import Checkpoint

_PROJECTOR, _BIAS = "action_encoder.projector", "action_encoder.projector_bias"


@torch.no_grad()
def start_at(checkpoint: Checkpoint, start: Checkpoint) -> None:
    """Give `checkpoint` the weights of `start`, in place. An action space that `start` does not know keeps its projector.

    Raises ValueError when the networks differ in more than their action spaces.
    """
    projector, bias = (checkpoint.denoiser.state_dict()[name].clone() for name in (_PROJECTOR, _BIAS))
    for index, space in enumerate(checkpoint.actions):
        if space in start.actions:
            projector[index], bias[index] = _projector(start, space, len(projector[index]))
    weights = {**start.denoiser.state_dict(), _PROJECTOR: projector, _BIAS: bias}
    try:
        checkpoint.denoiser.load_state_dict(weights, strict=True)
        checkpoint.codec.load_state_dict(start.codec.state_dict(), strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"start_from: expected a model of the same sizes, found {' '.join(str(error).split())}"
        ) from error


def _projector(start: Checkpoint, space: str, num_inputs: int) -> tuple[Tensor, Tensor]:
    """Weights and bias of an action space where features are padded to another width."""
    config, index = start.config.denoiser.actions, start.space_index(space)
    before, own = max(config.num_features), start.actions[space].num_features
    weights, bias = (
        start.denoiser.action_encoder.projector[index],
        start.denoiser.action_encoder.projector_bias[index],
    )
    parts = weights.split([before, before * config.octaves, before * config.octaves])
    after = num_inputs // (1 + 2 * config.octaves)
    projector = weights.new_zeros(num_inputs, weights.shape[1])
    for part, rows in zip(
        projector.split([after, after * config.octaves, after * config.octaves]), parts, strict=True
    ):
        kept = own * len(part) // after
        part[:kept] = rows[:kept]
    # Padding is 0, and so are its sines; its cosines are 1: a constant, which the bias takes over.
    return projector, bias + parts[2][own * config.octaves :].sum(dim=0)
