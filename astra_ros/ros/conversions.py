"""sensor_msgs pictures ⇄ numpy, without cv_bridge (its binary is tied to one numpy). Out: rgb8, raw or JPEG."""

from __future__ import annotations

import io
from array import array

import numpy as np
import PIL.Image
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from astra_ros.frames import encodings
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.types import ByteArray


def to_rgb(message: Image | CompressedImage) -> ByteArray:
    """(h, w, 3) uint8 RGB; may share the message's memory, so it must not be written to. Raises Refusal."""
    try:
        return encodings.to_rgb(message)
    except encodings.PictureError as error:
        raise Refusal(Drop.BAD_IMAGE, str(error)) from error


def to_image(rgb: ByteArray, header: Header) -> Image:
    """rgb: (h, w, 3) uint8."""
    height, width, _ = rgb.shape
    return Image(
        header=header, height=height, width=width, encoding="rgb8", step=3 * width, data=_byte_array(rgb)
    )


def to_jpeg(rgb: ByteArray, header: Header, quality: int) -> CompressedImage:
    """rgb: (h, w, 3) uint8. quality: 1..100."""
    stream = io.BytesIO()
    PIL.Image.fromarray(rgb).save(stream, "JPEG", quality=quality)
    return CompressedImage(
        header=header, format="rgb8; jpeg compressed bgr8", data=array("B", stream.getvalue())
    )


def _byte_array(pixels: ByteArray) -> array[int]:
    # rosidl copies an array('B') at once and anything else, numpy included, byte by byte.
    data = array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    return data
