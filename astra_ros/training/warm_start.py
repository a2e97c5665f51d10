"""Begin a training, or a student, at the weights of an earlier model: for the same or other actions, or none of them."""

from __future__ import annotations

import torch
from torch import Tensor

from astra_ros.denoiser.checkpoint import Checkpoint, Weights

_PROJECTOR, _BIAS, _PRIOR = (
    f"action_encoder.{name}" for name in ("projector", "projector_bias", "router_prior")
)


_POSITION = "position"


@torch.no_grad()
def start_at(checkpoint: Checkpoint, start: Checkpoint) -> None:
    """Give `checkpoint` the weights of `start`, in place. An action space that `start` does not know keeps its projector.

    Raises ValueError when the networks differ in more than their action spaces.
    """
    own, theirs = checkpoint.denoiser.state_dict(), start.denoiser.state_dict()
    projector, bias, prior = (own[name].clone() for name in (_PROJECTOR, _BIAS, _PRIOR))
    try:
        for index, space in enumerate(checkpoint.actions):
            if space in start.actions:
                projector[index], bias[index] = _projector(start, space, len(projector[index]))
                prior[index] = theirs[_PRIOR][start.space_index(space)]
        weights = {**theirs, _PROJECTOR: projector, _BIAS: bias, _PRIOR: prior}
        checkpoint.denoiser.load_state_dict(weights, strict=True)
        checkpoint.codec.load_state_dict(start.codec.state_dict(), strict=True)
    except RuntimeError as error:
        raise ValueError(
            f"start_from: expected a model of the same sizes, found {' '.join(str(error).split())}"
        ) from error


@torch.no_grad()
def start_at_video_model(checkpoint: Checkpoint, start: Weights) -> None:
    """Give the denoiser what `start` knows of pictures; whatever reads actions begins anew, of any kind (the paper starts at Wan2.1).

    `start` may be of one camera, whose pictures are as large as each of several in `checkpoint`.
    Raises ValueError when the codecs' latents or the networks' sizes differ.
    """
    own, theirs = (
        {k: v for k, v in codec.items() if k.startswith("encoder.")}
        for codec in (checkpoint.codec.state_dict(), start.codec)
    )
    # The checkpoint's codec has encoded its data by now, where it was fastest.
    if own.keys() != theirs.keys() or not all(torch.equal(own[name].cpu(), theirs[name]) for name in own):
        raise ValueError("video_model: expected a model of the same codec; give its run as codec_run too")
    pictures = {k: v for k, v in start.denoiser.items() if not _reads_actions(k)}
    count = max(1, len(checkpoint.config.cameras))
    if _POSITION in pictures and count * len(pictures[_POSITION]) == len(
        checkpoint.denoiser.state_dict()[_POSITION]
    ):
        pictures[_POSITION] = pictures[_POSITION].repeat(
            count, 1
        )  # every camera's pictures begin as the one camera's
    expected = {k: v.shape for k, v in checkpoint.denoiser.state_dict().items() if not _reads_actions(k)}
    if (found := {k: v.shape for k, v in pictures.items()}) != expected:
        name = next(iter(dict(expected.items() ^ found.items())))
        raise ValueError(
            f"video_model: {name}: expected {expected.get(name, 'none')}, found {found.get(name, 'none')}"
        )
    checkpoint.denoiser.load_state_dict(pictures, strict=False)


def _reads_actions(name: str) -> bool:
    return name.startswith(("action_encoder.", "pose_map.", "head.gate.")) or ".adapter." in name


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
