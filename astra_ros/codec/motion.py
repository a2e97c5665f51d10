"""Do latents move with the picture? If they do, a flow can move what they show by less than a latent.

An encoder that strides by 8 pixels need not care: the latents of a picture moved by one pixel may be as far from the moved
latents of that picture as from those that stand still (docs/decisions/0013).
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from astra_ros.codec.autoencoder import Codec

_ROUNDING = 1e-3  # of a pixel
# Directions of the channels that hold less of the mean variance than this are rounding to a denoiser.
_LEAST_DIRECTION = 1e-3


def moved(x: Tensor, by: Tensor) -> Tensor:
    """x (b, c, h, w), each moved by (b, 2) shares of its width to the right and of its height down. Edges are repeated."""
    return F.grid_sample(x.float(), _places(x, by), padding_mode="border", align_corners=False)


def was_inside(x: Tensor, by: Tensor) -> Tensor:
    """(b, 1, h, w): 1 where `moved` shows what was within the picture, 0 where an edge was repeated."""
    across, down = _places(x, by).abs().unbind(dim=-1)
    height, width = x.shape[-2:]
    inside = (across <= 1.0 - (1.0 - _ROUNDING) / width) & (down <= 1.0 - (1.0 - _ROUNDING) / height)
    return inside[:, None].float()


def motion_error(latents: Tensor, of_moved: Tensor, by: Tensor) -> Tensor:
    """Squared error of moving the latents, as a share of the error of leaving them where they are. Returns a scalar.

    latents: (b, c, h, w) of the pictures. of_moved: (b, c, h, w) of the moved pictures. by: (b, 2) as for `moved`.
    Errors are measured in units of the covariance, over the c channels, of the error of leaving them: an encoder cannot hide
    an error by making other directions large. The share is taken per picture and then averaged: otherwise a scene full of
    texture would hide one of flat colours. An eighth of the latents at each edge is left out: what lies beyond the picture
    is not moved into it, and an encoder sees that far.
    """
    inside = rearrange(_eroded(was_inside(latents, by), min(latents.shape[-2:]) // 8), "b 1 h w -> b (h w) 1")
    error, still = (
        inside * rearrange(one.float() - of_moved.float(), "b c h w -> b (h w) c")
        for one in (moved(latents, by), latents)
    )
    with torch.autocast(latents.device.type, enabled=False):  # small directions are lost in bfloat16
        covariance = torch.einsum("bnc,bnd->cd", still, still) / inside.sum()
        least = _LEAST_DIRECTION * covariance.diagonal().mean() + 1e-9
        floor = least * torch.eye(len(covariance), device=latents.device)
        units = torch.linalg.inv_ex(covariance + floor).inverse
        error, still = (torch.einsum("bnc,cd,bnd->b", one, units, one) for one in (error, still))
    # A picture in which next to nothing changes has no share to speak of.
    return (error / still.clamp(min=0.01 * still.detach().mean() + 1e-9)).mean()


@torch.inference_mode()
def motion_error_of(codec: Codec, pixels: Tensor, distance: int) -> float:
    """Of pictures (b, 3, H, W), moved by `distance` pixels to the right and down."""
    height, width = pixels.shape[-2:]
    by = torch.tensor([distance / width, distance / height], device=pixels.device).repeat(len(pixels), 1)
    return float(motion_error(codec.encode(pixels), codec.encode(moved(pixels, by)), by))


def _eroded(inside: Tensor, margin: int) -> Tensor:
    """(b, 1, h, w): 1 only where everything is inside that is no farther than `margin`, beyond the edges nothing."""
    outside = F.pad(1.0 - inside, (margin,) * 4, value=1.0)
    return 1.0 - F.max_pool2d(outside, 2 * margin + 1, stride=1)


def _places(x: Tensor, by: Tensor) -> Tensor:
    """(b, h, w, 2): where each place of the moved x was before, as grid_sample counts, from -1 to 1."""
    still = torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1)
    still[:, :, 2] = -2.0 * by
    with torch.autocast(x.device.type, enabled=False):  # bfloat16 misses by a quarter of a pixel in 128
        return F.affine_grid(still, [len(x), 1, *x.shape[-2:]], align_corners=False)
