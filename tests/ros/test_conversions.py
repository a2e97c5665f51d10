"""Encodings: the colours that come out, and the line that comes with a refusal."""

from __future__ import annotations

import io
from array import array
from typing import Any

import numpy as np
import PIL.Image
import pytest
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from astra_ros.ros.conversions import to_image, to_jpeg, to_rgb
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.types import ByteArray

RED, GREEN = (255, 10, 20), (30, 240, 50)


def raw_image(
    encoding: str, pixels: np.ndarray[Any, Any], *, padding: int = 0, is_bigendian: bool = False
) -> Image:
    """pixels: (h, w, channels)."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return Image(
        height=height, width=width, encoding=encoding, step=rows.shape[1], is_bigendian=int(is_bigendian),
        data=array("B", rows.tobytes()),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("encoding", "stored"),
    [
        ("rgb8", [RED, GREEN]),
        ("bgr8", [RED[::-1], GREEN[::-1]]),
        ("rgba8", [(*RED, 7), (*GREEN, 8)]),
        ("bgra8", [(*RED[::-1], 7), (*GREEN[::-1], 8)]),
        ("8UC3", [RED[::-1], GREEN[::-1]]),
        ("8UC4", [(*RED[::-1], 7), (*GREEN[::-1], 8)]),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings(encoding: str, stored: list[tuple[int, ...]], padding: int) -> None:
    rgb = to_rgb(raw_image(encoding, np.array([stored, stored], np.uint8), padding=padding))
    np.testing.assert_array_equal(rgb, [[RED, GREEN]] * 2)
    assert rgb.dtype == np.uint8


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_becomes_three_equal_channels(encoding: str) -> None:
    rgb = to_rgb(raw_image(encoding, np.array([[[0], [77], [255]]], np.uint8), padding=1))
    np.testing.assert_array_equal(rgb, [[[0] * 3, [77] * 3, [255] * 3]])


@pytest.mark.parametrize("is_bigendian", [False, True])
def test_mono16_is_scaled_and_its_byte_order_honoured(is_bigendian: bool) -> None:
    stored = np.array([[[0], [256], [32896], [65535]]], ">u2" if is_bigendian else "<u2")
    rgb = to_rgb(raw_image("mono16", stored, padding=2, is_bigendian=is_bigendian))
    np.testing.assert_array_equal(rgb[0, :, 0], [0, 1, 128, 255])


# ITU-R BT.601, video range: (y, u, v) → rgb.
YUV = [((16, 128, 128), (0, 0, 0)), ((235, 128, 128), (255, 255, 255)), ((81, 90, 240), (255, 0, 0)),
       ((145, 54, 34), (0, 255, 1)), ((41, 240, 110), (0, 0, 255))]  # fmt: skip


@pytest.mark.parametrize(("yuv", "rgb"), YUV)
@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")]
)
def test_yuv422_in_both_orders(encoding: str, order: str, yuv: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    named = dict(zip("yuv", yuv, strict=True))
    stored = np.array([named[letter] for letter in order], np.uint8).reshape(1, 2, 2)
    np.testing.assert_allclose(to_rgb(raw_image(encoding, stored))[0].astype(int), [rgb, rgb], atol=1)


def test_yuv422_keeps_every_luma_and_shares_chroma_by_two() -> None:
    stored = np.array([[[128, 50], [128, 100], [90, 81], [240, 41]]], np.uint8)
    rgb = to_rgb(raw_image("uyvy", stored)).astype(int)[0]
    assert rgb[0, 0] == rgb[0, 1] == round(1.164 * (50 - 16))
    assert rgb[1, 0] == round(1.164 * (100 - 16))
    assert rgb[2, 0] > 250
    assert rgb[2, 0] > rgb[3, 0] > rgb[3, 1]


@pytest.mark.parametrize(
    ("encoding", "channels", "dtype"),
    [("rgb8", 3, "u1"), ("bgr8", 3, "u1"), ("rgba8", 4, "u1"), ("bgra8", 4, "u1"), ("mono8", 1, "u1"),
     ("mono16", 1, "u2"), ("yuv422", 2, "u1"), ("yuv422_yuy2", 2, "u1")],
)  # fmt: skip
def test_same_bytes_as_cv_bridge(encoding: str, channels: int, dtype: str) -> None:
    cv_bridge = pytest.importorskip(
        "cv_bridge", reason="cv_bridge comes with an installed ROS", exc_type=ImportError
    )
    limits = np.iinfo(dtype)
    stored = np.random.default_rng(0).integers(limits.min, limits.max, (8, 6, channels), dtype, endpoint=True)
    message = raw_image(encoding, stored)
    np.testing.assert_array_equal(to_rgb(message), cv_bridge.CvBridge().imgmsg_to_cv2(message, "rgb8"))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"encoding": "bayer_rggb8"}, ["encoding", "'bayer_rggb8'", "DebayerNode"]),
        ({"encoding": "16UC1"}, ["encoding", "'16UC1'", "depth", "colour topic"]),
        ({"encoding": "32FC1"}, ["encoding", "'32FC1'", "depth"]),
        ({"encoding": ""}, ["encoding", "rgb8", "''"]),
        ({"height": 0}, ["height, width", "0 x 2"]),
        ({"width": 0}, ["height, width", "2 x 0"]),
        ({"step": 5}, ["step", "6 bytes", "found 5"]),
        ({"width": 3}, ["step", "9 bytes", "found 6"]),
        ({"height": 3}, ["data", "18 bytes", "found 12"]),
        ({"data": array("B")}, ["data", "12 bytes", "found 0"]),
        ({"encoding": "uyvy", "width": 3}, ["width", "even", "found 3"]),
    ],
)
def test_refused_images(fields: dict[str, Any], expected: list[str]) -> None:
    message = raw_image("rgb8", np.zeros((2, 2, 3), np.uint8))
    for name, value in fields.items():
        setattr(message, name, value)
    require_refused(lambda: to_rgb(message), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("message_format", "is_swapped"),
    [
        ("jpeg", False),
        ("", False),
        ("rgb8; jpeg compressed bgr8", False),
        ("bgr8; jpeg compressed bgr8", False),
        ("bgr8; png compressed ", False),
        ("rgb8; jpeg compressed rgb8", True),
    ],
)
def test_compressed_images(kind: str, message_format: str, is_swapped: bool) -> None:
    rgb = to_rgb(compressed(PIL.Image.new("RGB", (16, 8), RED), kind, message_format))
    assert rgb.shape == (8, 16, 3)
    expected = RED[::-1] if is_swapped else RED
    np.testing.assert_allclose(rgb[4, 8].astype(int), expected, atol=0 if kind == "PNG" else 2)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_compressed_images_of_other_modes_become_rgb(mode: str) -> None:
    picture = PIL.Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    rgb = to_rgb(compressed(picture, "JPEG" if mode == "CMYK" else "PNG", "png"))
    assert rgb.shape == (8, 8, 3)
    np.testing.assert_allclose(rgb.astype(int), 255, atol=2)


def test_16_bit_png_is_scaled_like_mono16() -> None:
    picture = PIL.Image.fromarray(np.full((4, 4), 32896, np.uint16))
    assert to_set(to_rgb(compressed(picture, "PNG", "mono16; png compressed "))) == {128}


@pytest.mark.parametrize(
    ("data", "message_format", "expected"),
    [
        (b"", "jpeg", ["data", "0 bytes", "'jpeg'"]),
        (b"not a picture", "jpeg", ["data", "13 bytes"]),
        (b"\xff\xd8\xff\xe0" + bytes(60), "jpeg", ["data", "64 bytes"]),
        (b"", "16UC1; compressedDepth png", ["format", "'16UC1'", "depth"]),
    ],
)
def test_refused_compressed_images(data: bytes, message_format: str, expected: list[str]) -> None:
    message = CompressedImage(format=message_format, data=array("B", data))
    require_refused(lambda: to_rgb(message), expected)


def test_cut_off_jpeg_is_refused() -> None:
    message = compressed(noise(64, 64), "JPEG", "jpeg")
    message.data = message.data[: len(message.data) // 2]
    require_refused(lambda: to_rgb(message), ["data", "do not decode"])


def test_raw_image_survives_the_round_trip() -> None:
    rgb = np.asarray(noise(9, 7))
    header = Header(frame_id="camera")
    message = to_image(rgb[:, ::-1], header)
    assert (message.encoding, message.step, message.header.frame_id) == ("rgb8", 27, "camera")
    np.testing.assert_array_equal(to_rgb(message), rgb[:, ::-1])


def test_jpeg_survives_the_round_trip_and_obeys_its_quality() -> None:
    rgb = np.full((32, 32, 3), RED, np.uint8)
    message = to_jpeg(rgb, Header(), 90)
    assert message.format == "rgb8; jpeg compressed bgr8"
    np.testing.assert_allclose(to_rgb(message).astype(int), rgb.astype(int), atol=3)
    picture = np.asarray(noise(64, 64))
    assert len(to_jpeg(picture, Header(), 30).data) < len(to_jpeg(picture, Header(), 95).data)


def compressed(picture: PIL.Image.Image, kind: str, message_format: str) -> CompressedImage:
    stream = io.BytesIO()
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    picture.save(stream, kind, **options)
    return CompressedImage(format=message_format, data=array("B", stream.getvalue()))


def noise(width: int, height: int) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def to_set(rgb: ByteArray) -> set[int]:
    return {int(value) for value in rgb.ravel()}


def require_refused(convert: Any, expected: list[str]) -> None:
    with pytest.raises(Refusal) as caught:
        convert()
    assert caught.value.cause is Drop.BAD_IMAGE
    line = str(caught.value)
    assert "\n" not in line
    assert "expected" in line
    for text in expected:
        assert text in line
