"""A predicted future as one picture for people: the observation, then every predicted frame with its time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from astra_ros.types import ByteArray

MAX_COLUMNS = 6
_BACKGROUND, _TEXT, _DIM = (22, 24, 29), (236, 238, 242), (150, 156, 168)
_OBSERVED, _PREDICTED, _WARNING = (94, 200, 130), (92, 164, 255), (255, 190, 92)
_MARGIN, _STRIPE, _LABEL, _TITLE = 6, 3, 20, 30


@dataclass(frozen=True)
class Caption:
    """title: what was predicted for. details: small print. is_warning: the title deserves a second look."""

    title: str
    details: str
    is_warning: bool


def contact_sheet(
    observed: ByteArray, frames: ByteArray, step_dt: float, caption: Caption, scale: int
) -> ByteArray:
    """observed: (h, w, 3), frames: (t, h, w, 3), uint8 RGB. scale: enlargement. Returns (H, W, 3) uint8 RGB."""
    num_frames, height, width, _ = frames.shape
    num_columns = _num_columns(num_frames + 1)
    cell_width, cell_height = scale * width + _MARGIN, scale * height + _STRIPE + _LABEL + _MARGIN
    num_rows = math.ceil((num_frames + 1) / num_columns)
    size = (num_columns * cell_width + _MARGIN, _TITLE + num_rows * cell_height)
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_caption(draw, caption, sheet.width)
    for index, (picture, label, colour) in enumerate(_cells(observed, frames, step_dt)):
        row, column = divmod(index, num_columns)
        corner = (_MARGIN + column * cell_width, _TITLE + row * cell_height)
        enlarged = Image.fromarray(picture).resize((scale * width, scale * height), Image.Resampling.BICUBIC)
        sheet.paste(enlarged, corner)
        _draw_label(draw, corner, enlarged.size, label, colour)
    return np.asarray(sheet)


def _num_columns(num_cells: int) -> int:
    """As few rows as MAX_COLUMNS allows, with the cells spread evenly over them."""
    num_rows = math.ceil(num_cells / MAX_COLUMNS)
    return math.ceil(num_cells / num_rows)


def _cells(
    observed: ByteArray, frames: ByteArray, step_dt: float
) -> Iterator[tuple[ByteArray, str, tuple[int, int, int]]]:
    yield observed, "observed", _OBSERVED
    for k, frame in enumerate(frames):
        yield frame, f"+{(k + 1) * step_dt:.1f} s", _PREDICTED


def _draw_caption(draw: ImageDraw.ImageDraw, caption: Caption, width: int) -> None:
    colour = _WARNING if caption.is_warning else _TEXT
    draw.text((_MARGIN, _TITLE / 2), caption.title, colour, _font(15), anchor="lm")
    used = draw.textlength(caption.title, _font(15)) + 3 * _MARGIN
    if used + draw.textlength(caption.details, _font(12)) + _MARGIN < width:
        draw.text((width - _MARGIN, _TITLE / 2), caption.details, _DIM, _font(12), anchor="rm")


def _draw_label(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    size: tuple[int, int],
    label: str,
    colour: tuple[int, int, int],
) -> None:
    left, bottom = corner[0], corner[1] + size[1]
    draw.rectangle((left, bottom, left + size[0] - 1, bottom + _STRIPE - 1), colour)
    draw.text((left, bottom + _STRIPE + _LABEL / 2), label, _TEXT, _font(13), anchor="lm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
