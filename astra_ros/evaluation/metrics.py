"""How far a predicted picture is from the real one. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from astra_ros.types import ByteArray, FloatArray

PEAK = 255.0
# Mean squared error of rounding to whole grey levels: what even a perfect picture may differ by. It bounds the PSNR
# at 58.9 dB, so that a mean over frames exists when some of them are identical.
ROUNDING_MSE = 1.0 / 12.0


def mean_squared_error(predicted: ByteArray, actual: ByteArray) -> FloatArray:
    """Per frame. predicted, actual: (..., h, w, 3) uint8. Returns (...) float32, grey levels squared.

    Raises ValueError when the shapes differ.
    """
    if predicted.shape != actual.shape:
        raise ValueError(
            f"pictures to compare: expected one shape, found {predicted.shape} and {actual.shape}"
        )
    difference = predicted.astype(np.float32) - actual.astype(np.float32)
    return np.asarray(np.mean(difference**2, axis=(-3, -2, -1), dtype=np.float64), np.float32)


def psnr(predicted: ByteArray, actual: ByteArray) -> FloatArray:
    """Peak signal-to-noise ratio of each frame, dB. predicted, actual: (..., h, w, 3) uint8. Returns (...) float32."""
    mse = np.maximum(mean_squared_error(predicted, actual), ROUNDING_MSE)
    return np.asarray(10 * np.log10(PEAK**2 / mse), np.float32)


@dataclass(frozen=True)
class Percentiles:
    """Distribution of a measured quantity, in its own unit."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


def percentiles(values: Sequence[float]) -> Percentiles:
    """Linear interpolation between order statistics. Raises ValueError for no values."""
    if not values:
        raise ValueError("percentiles: expected at least one value, found none")
    p50, p95, p99 = np.percentile(np.asarray(values, np.float64), (50, 95, 99))
    return Percentiles(len(values), float(p50), float(p95), float(p99), float(max(values)))
