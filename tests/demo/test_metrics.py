"""Quality and latency numbers against closed-form values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from astra_ros.evaluation.metrics import mean_squared_error, percentiles, psnr


def _constant(value: int, frames: int = 1) -> np.ndarray:
    return np.full((frames, 8, 6, 3), value, np.uint8)


@pytest.mark.parametrize("difference", [1, 10, 255])
def test_psnr_of_a_constant_difference(difference: int) -> None:
    expected = 20 * math.log10(255 / difference)
    assert psnr(_constant(difference), _constant(0))[0] == pytest.approx(expected, abs=1e-4)


def test_psnr_of_known_noise() -> None:
    rng = np.random.default_rng(0)
    clean = np.full((1, 256, 256, 3), 128, np.uint8)
    noisy = (clean + rng.choice([-6, 6], clean.shape)).astype(np.uint8)
    assert psnr(noisy, clean)[0] == pytest.approx(10 * math.log10(255**2 / 36), abs=1e-4)


def test_identical_frames_have_the_psnr_of_rounding() -> None:
    assert psnr(_constant(7), _constant(7))[0] == pytest.approx(10 * math.log10(255**2 * 12), abs=1e-4)


def test_frames_are_judged_one_by_one_and_differences_do_not_wrap() -> None:
    predicted = np.concatenate([_constant(0), _constant(255)])
    np.testing.assert_allclose(mean_squared_error(predicted, _constant(1, 2)), [1, 254**2])


def test_pictures_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one shape, found \(1, 8, 6, 3\) and \(8, 6, 3\)"):
        psnr(_constant(0), _constant(0)[0])


def test_percentiles_interpolate() -> None:
    result = percentiles([float(value) for value in range(101)])
    assert (result.count, result.p50, result.p95, result.p99, result.max) == (101, 50, 95, 99, 100)
    assert percentiles([4.0, 8.0]).p50 == 6


def test_no_values_have_no_percentiles() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        percentiles([])
