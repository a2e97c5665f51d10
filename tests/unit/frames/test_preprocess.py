from __future__ import annotations

import numpy as np
import pytest

from astra_ros.frames.preprocess import centre_crop, fit, from_network, to_network
from astra_ros.types import ByteArray


def picture(height: int, width: int) -> ByteArray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("size", "target", "box"),
    [
        ((480, 640), (128, 128), (80, 0, 560, 480)),  # landscape camera, square model
        ((640, 480), (128, 128), (0, 80, 480, 560)),  # portrait
        ((128, 128), (64, 128), (0, 32, 128, 96)),  # wide model
        ((100, 100), (128, 128), (0, 0, 100, 100)),
        ((480, 641), (128, 128), (80, 0, 560, 480)),  # odd rest: whole pixels
        ((1, 1000), (128, 128), (499, 0, 500, 1)),
    ],
)
def test_centre_crop(size: tuple[int, int], target: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert centre_crop(*size, *target) == box


def test_fit_averages_areas() -> None:
    rgb = picture(256, 384)  # exactly 2 x 2 pixels of the middle 256 columns for each of the result's
    areas = rgb[:, 64:320].reshape(128, 2, 128, 2, 3).mean(axis=(1, 3))
    assert np.abs(fit(rgb, 128, 128) - areas).max() <= 1  # rounded once per direction


def test_fit_returns_a_picture_of_the_right_size_untouched() -> None:
    rgb = picture(128, 128)
    assert fit(rgb, 128, 128) is rgb


@pytest.mark.parametrize("size", [(480, 640), (33, 57), (1, 1), (2000, 3)])
def test_fit_reaches_every_size(size: tuple[int, int]) -> None:
    fitted = fit(picture(*size), 128, 96)
    assert (fitted.shape, fitted.dtype) == ((128, 96, 3), np.uint8)


def test_fit_accepts_a_view_with_row_padding() -> None:
    padded = picture(240, 330)
    assert np.array_equal(fit(padded[:, :320], 64, 64), fit(padded[:, :320].copy(), 64, 64))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_other_arrays_are_refused_with_what_was_found(wrong: ByteArray) -> None:
    for convert in (lambda: fit(wrong, 4, 4), lambda: to_network(wrong)):
        with pytest.raises(ValueError, match=r"expected \(height, width, 3\) uint8 RGB, found \("):
            convert()


def test_network_range_and_layout() -> None:
    rgb = np.zeros((2, 3, 3), np.uint8)
    rgb[1, 2] = (255, 0, 51)
    pixels = to_network(rgb)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((1, 3, 2, 3), np.float32, True)
    assert pixels[0, :, 1, 2] == pytest.approx([1.0, -1.0, -0.6], abs=1e-6)


def test_network_round_trip_is_exact_for_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.array_equal(from_network(to_network(levels)), levels)


def test_from_network_saturates() -> None:
    pixels = np.full((1, 3, 1, 2), [-7.0, 7.0], np.float32)
    assert from_network(pixels)[0].tolist() == [[0, 0, 0], [255, 255, 255]]
