"""How far a predicted picture is from the real one. numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from astra_ros.types import ByteArray, FloatArray

PEAK = 255.0
# Mean squared error of rounding to whole grey levels: what even a perfect picture may differ by. It bounds the PSNR
# at 58.9 dB, so that a mean over frames exists when some of them are identical.
ROUNDING_MSE = 1.0 / 12.0
# Grey levels by which a pixel must change to count as moving: twice what video compression and sensor noise do.
MOVING_LEVELS = 20


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


def moving_pixels(happened: ByteArray, observed: ByteArray) -> npt.NDArray[np.bool_]:
    """Where a real frame differs visibly from the observed one.

    happened: (..., t, h, w, 3) uint8, observed: (..., h, w, 3). Returns (..., t, h, w): True where some channel changed
    by more than MOVING_LEVELS.
    """
    change = np.abs(happened.astype(np.int16) - observed[..., None, :, :, :].astype(np.int16))
    return change.max(axis=-1) > MOVING_LEVELS


def masked_psnr(predicted: ByteArray, actual: ByteArray, mask: npt.NDArray[np.bool_]) -> FloatArray:
    """PSNR over the masked pixels of all frames of each future, dB.

    predicted, actual: (n, t, h, w, 3) uint8; mask: (n, t, h, w). Returns (n,), nan where the mask is empty.
    """
    difference = predicted.astype(np.float32) - actual.astype(np.float32)
    squared = (difference**2).mean(axis=-1) * mask
    count = mask.sum(axis=(1, 2, 3))
    with np.errstate(invalid="ignore"):
        mse = squared.sum(axis=(1, 2, 3), dtype=np.float64) / count
    return np.asarray(10 * np.log10(PEAK**2 / np.maximum(mse, ROUNDING_MSE)), np.float32)


def colour(frames: ByteArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each channel, grey levels. (..., h, w, 3) uint8 → (..., 3) each."""
    values = frames.astype(np.float32)
    return values.mean(axis=(-3, -2)), values.std(axis=(-3, -2))


def sharpness(frames: ByteArray) -> FloatArray:
    """Energy of the Laplacian of the luma: high for edges and texture, low for blur. (..., h, w, 3) uint8 → (...)."""
    luma = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    neighbours = luma[..., :-2, 1:-1] + luma[..., 2:, 1:-1] + luma[..., 1:-1, :-2] + luma[..., 1:-1, 2:]
    energy: FloatArray = ((neighbours - 4 * luma[..., 1:-1, 1:-1]) ** 2).mean(axis=(-2, -1))
    return energy


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
