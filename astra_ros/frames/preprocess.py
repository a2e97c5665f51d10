"""Camera picture ⇄ network pixels: the first and the last stage of the flow.

A picture is (h, w, 3) uint8 RGB; the network sees (1, 3, h, w) float32 in [-1, 1].
Training and run time call the same functions, so a model never meets another resize filter than its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from astra_ros.types import ByteArray, FloatArray

_HALF_RANGE = np.float32(127.5)


def fit(rgb: ByteArray, height: int, width: int) -> ByteArray:
    """Centre crop to the target's aspect ratio, then average over areas down to its size.

    rgb: (H, W, 3) uint8. Returns (height, width, 3) uint8; a picture of that size already comes back as it is.
    Raises ValueError for any other dtype or shape.
    """
    _require_picture(rgb)
    if rgb.shape[:2] == (height, width):
        return rgb
    box = centre_crop(rgb.shape[0], rgb.shape[1], height, width)
    resized = Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX, box=box)
    return np.asarray(resized, np.uint8)


def stack(views: Sequence[ByteArray], height: int, width: int) -> ByteArray:
    """One picture of what several cameras saw at one instant: stacked from top to bottom, in equal shares of the height.

    views: (H, W, 3) uint8 each, of any size; `fit` crops and resizes each to its share. Returns (height, width, 3) uint8.
    Raises ValueError as `fit` and `share_of` do.
    """
    share = share_of(height, len(views))
    return stacked([fit(view, share, width) for view in views])


def fit_stacked(rgb: ByteArray, num_cameras: int, height: int, width: int) -> ByteArray:
    """`stack` for pictures that are stacked in one already: rgb (H, W, 3), H / num_cameras rows for each camera."""
    share_of(rgb.shape[0], num_cameras)
    return stack(np.split(rgb, num_cameras), height, width)


def stacked(views: Sequence[ByteArray]) -> ByteArray:
    """(..., h, w, 3) of each camera → (..., n * h, w, 3), one below the other; a lone one comes back as it is."""
    return views[0] if len(views) == 1 else np.concatenate(views, axis=-3)


def share_of(height: int, num_cameras: int) -> int:
    """Rows of one camera in a stacked picture. Raises ValueError when the height does not divide evenly."""
    if height % num_cameras:
        raise ValueError(
            f"height: expected a multiple of {num_cameras}, the number of cameras one below the other, found {height}"
        )
    return height // num_cameras


def centre_crop(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int, int, int]:
    """Largest centred (left, top, right, bottom) of a picture with the target's aspect ratio.

    Whole pixels, so that cropping alone never blurs.
    """
    crop_width = min(width, max(1, round(height * target_width / target_height)))
    crop_height = min(height, max(1, round(width * target_height / target_width)))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def unenlarged(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int]:
    """(height, width) to store a picture at without enlarging it: the target's, or the centre crop's if that is smaller."""
    left, top, right, bottom = centre_crop(height, width, target_height, target_width)
    cropped = (bottom - top, right - left)
    return min(cropped, (target_height, target_width), key=lambda size: size[0] * size[1])


def to_network(rgb: ByteArray, out: FloatArray | None = None) -> FloatArray:
    """(h, w, 3) uint8 → (1, 3, h, w) float32 in [-1, 1], contiguous; into `out` if given."""
    _require_picture(rgb)
    pixels: FloatArray = np.empty((1, 3, *rgb.shape[:2]), np.float32) if out is None else out
    pixels[0] = rgb.transpose(2, 0, 1)
    pixels /= _HALF_RANGE
    pixels -= 1
    return pixels


def from_network(
    pixels: FloatArray, out: ByteArray | None = None, scratch: FloatArray | None = None
) -> ByteArray:
    """(1, 3, h, w) float32 → (h, w, 3) uint8, into `out` if given; values beyond [-1, 1] saturate.

    scratch: room for float32 of the shape of `pixels`, which may be `pixels` itself; None: allocated.
    """
    scaled: FloatArray = np.add(pixels, 1, out=scratch)
    scaled *= _HALF_RANGE
    np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
    frame = np.empty((*scaled.shape[2:], 3), np.uint8) if out is None else out
    np.copyto(frame, scaled[0].transpose(1, 2, 0), casting="unsafe")
    return frame


def _require_picture(rgb: ByteArray) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(
            f"picture: expected (height, width, 3) uint8 RGB, found {rgb.shape} {rgb.dtype};"
            " convert it with astra_ros.ros.conversions or PIL.Image.convert('RGB')"
        )
