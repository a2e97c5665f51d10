"""Picture messages → RGB, for the live topics and for recordings alike (no ROS needed: any object with the fields).

Any usual encoding → (h, w, 3) uint8 RGB, the colours that cv_bridge's "rgb8" has; the untyped 8UC1, 8UC3 and 8UC4 are
read as mono8, bgr8 and bgra8, as rviz does.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import PIL.Image

from astra_ros.types import ByteArray

# What PIL calls the bytes that it was given.
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")


class RawPicture(Protocol):
    """The fields of sensor_msgs/Image that matter."""

    height: int
    width: int
    encoding: str
    is_bigendian: Any
    step: int
    data: Any


class CompressedPicture(Protocol):
    """The fields of sensor_msgs/CompressedImage that matter."""

    format: str
    data: Any


class PictureError(ValueError):
    """A picture that cannot be used. One line: the field, what was expected, what was found, and what fixes it."""


# Image → (h, w, channels) of the encoding's dtype → (h, w, 3) uint8 RGB.
_Picture = npt.NDArray[np.uint8 | np.uint16]
_Channels = tuple[str, int, Callable[[_Picture], ByteArray]]

_DEPTH_ENCODINGS = ("16UC1", "32FC1")


def to_rgb(message: RawPicture | CompressedPicture) -> ByteArray:
    """(h, w, 3) uint8 RGB; may share the message's memory, so it must not be written to. Raises PictureError."""
    # By its field, because a recording's messages and a topic's are of different classes.
    if hasattr(message, "format"):
        return _decompress(cast("CompressedPicture", message))
    return _unpack(message)


def _unpack(message: RawPicture) -> ByteArray:
    if message.encoding not in _ENCODINGS:
        raise PictureError(_unknown_encoding(message.encoding))
    dtype, num_channels, to_colour = _ENCODINGS[message.encoding]
    return to_colour(_pixels(message, np.dtype(dtype), num_channels))


def _decompress(message: CompressedPicture) -> ByteArray:
    # image_transport writes "ENCODING; jpeg compressed ORDER"; drivers of cameras that compress write "jpeg".
    encoding, _, rest = message.format.partition(";")
    if encoding.strip() in _DEPTH_ENCODINGS:
        raise PictureError("format: " + _unknown_encoding(encoding.strip()))
    try:
        with PIL.Image.open(io.BytesIO(message.data), formats=("JPEG", "PNG")) as picture:
            rgb = _picture_to_rgb(picture)
    # A decoder that is fed arbitrary bytes may raise anything.
    except Exception as error:
        raise PictureError(
            f"data: expected a JPEG or PNG file, found {len(message.data)} bytes with format {message.format!r} that do"
            f" not decode ({_ADDRESS.sub('', str(error))}); of a camera: republish with image_transport's 'compressed', or set"
            " image_transport:=raw",
        ) from error
    # The file of a publisher that did not bring its picture to OpenCV's order has red and blue exchanged.
    return rgb[..., ::-1] if "compressed rgb" in rest else rgb


def _pixels(message: RawPicture, dtype: np.dtype[np.uint8 | np.uint16], num_channels: int) -> _Picture:
    row_bytes = message.width * num_channels * dtype.itemsize
    if not message.height or not message.width:
        raise PictureError(
            f"height, width: expected at least 1 x 1, found {message.height} x {message.width}; check the driver",
        )
    if message.step < row_bytes:
        raise PictureError(
            f"step: expected at least {row_bytes} bytes for a row of {message.width} {message.encoding} pixels,"
            f" found {message.step}; the driver must set step to the bytes of one row",
        )
    if len(message.data) != message.height * message.step:
        raise PictureError(
            f"data: expected height * step = {message.height * message.step} bytes, found {len(message.data)};"
            " the driver must send all rows",
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)[:, :row_bytes]
    order = dtype.newbyteorder(">" if message.is_bigendian else "<")
    pixels = np.ascontiguousarray(rows).view(order)
    return pixels.reshape(message.height, message.width, num_channels)


def _picture_to_rgb(picture: PIL.Image.Image) -> ByteArray:
    if picture.mode.startswith("I"):
        return _grey_16_bit(np.asarray(picture).astype(np.uint16)[..., None])
    return np.asarray(picture.convert("RGB"), np.uint8)


def _rgb(pixels: _Picture) -> ByteArray:
    return pixels[..., :3].astype(np.uint8, copy=False)


def _bgr(pixels: _Picture) -> ByteArray:
    return pixels[..., 2::-1].astype(np.uint8, copy=False)


def _grey(pixels: _Picture) -> ByteArray:
    return np.repeat(pixels.astype(np.uint8, copy=False), 3, axis=2)


def _grey_16_bit(pixels: _Picture) -> ByteArray:
    return _grey(np.rint(pixels * (255 / 65535)).astype(np.uint8))


def _uyvy(pixels: _Picture) -> ByteArray:
    return _yuv_to_rgb(luma=pixels[..., 1], chroma=pixels[..., 0])


def _yuyv(pixels: _Picture) -> ByteArray:
    return _yuv_to_rgb(luma=pixels[..., 0], chroma=pixels[..., 1])


def _yuv_to_rgb(luma: _Picture, chroma: _Picture) -> ByteArray:
    """ITU-R BT.601, video range, in the 20-bit fixed point of OpenCV: same bytes.

    luma: (h, w). chroma: (h, w), u in even columns and v in odd ones.
    """
    if luma.shape[1] % 2:
        raise PictureError(
            f"width: expected an even number for yuv422, found {luma.shape[1]}; check the driver",
        )
    u, v = (np.repeat(chroma[:, i::2], 2, axis=1).astype(np.int32) - 128 for i in (0, 1))
    grey = np.maximum(luma.astype(np.int32) - 16, 0) * 1220542 + (1 << 19)
    rgb = np.stack([grey + 1673527 * v, grey - 852492 * v - 409993 * u, grey + 2116026 * u], axis=2)
    return np.clip(rgb >> 20, 0, 255).astype(np.uint8)


def _unknown_encoding(encoding: str) -> str:
    if encoding in _DEPTH_ENCODINGS:
        fix = "this is depth, the model sees colour: remap image:= to the colour topic of that camera"
    elif encoding.startswith("bayer"):
        fix = "run image_proc's DebayerNode and remap image:= to its colour output"
    else:
        fix = "convert with image_proc, or set the driver's encoding to rgb8"
    return f"encoding: expected one of {', '.join(_ENCODINGS)}; found {encoding!r}; {fix}"


_ENCODINGS: dict[str, _Channels] = {
    "rgb8": ("u1", 3, _rgb),
    "bgr8": ("u1", 3, _bgr),
    "rgba8": ("u1", 4, _rgb),
    "bgra8": ("u1", 4, _bgr),
    "mono8": ("u1", 1, _grey),
    "mono16": ("u2", 1, _grey_16_bit),
    "8UC1": ("u1", 1, _grey),
    "8UC3": ("u1", 3, _bgr),
    "8UC4": ("u1", 4, _bgr),
    "yuv422": ("u1", 2, _uyvy),
    "uyvy": ("u1", 2, _uyvy),
    "yuv422_yuy2": ("u1", 2, _yuyv),
    "yuyv": ("u1", 2, _yuyv),
}
