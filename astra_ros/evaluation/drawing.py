"""Pieces shared by the contact sheet and the video."""

from __future__ import annotations

from functools import cache

from PIL import Image, ImageDraw, ImageFont

from astra_ros.types import ByteArray

BACKGROUND = "#ffffff"
TEXT = "#1f2328"
MUTED = "#656d76"
PREDICTED = "#0969da"
ACTUAL = "#57606a"


@cache
def font(size_px: int) -> ImageFont.FreeTypeFont:
    """The font that comes with Pillow, so that the picture is the same on every machine."""
    loaded = ImageFont.load_default(size_px)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise RuntimeError(
            "this Pillow was built without FreeType; reinstall it: pip install --force-reinstall pillow"
        )
    return loaded


def tile(frame: ByteArray, size_px: int) -> Image.Image:
    """(h, w, 3) uint8 → a picture of that height."""
    width = round(frame.shape[1] * size_px / frame.shape[0])
    return Image.fromarray(frame).resize((width, size_px), Image.Resampling.LANCZOS)


def paste_framed(
    canvas: Image.Image, picture: Image.Image, left_top: tuple[int, int], colour: str, border_px: int
) -> None:
    """Paste with a border of that colour drawn around it."""
    left, top = left_top
    box = (
        left - border_px,
        top - border_px,
        left + picture.width + border_px - 1,
        top + picture.height + border_px - 1,
    )
    ImageDraw.Draw(canvas).rectangle(box, outline=colour, width=border_px)
    canvas.paste(picture, left_top)
