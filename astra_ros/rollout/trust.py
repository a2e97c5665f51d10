"""Does the model know when it does not know? How unlike training a picture is, and how wrong a future may be.

The numbers are fitted to recordings by export/calibrate.py and live in a file of the bundle (manifest.trust). Host code,
numpy only; docs/decisions/0007.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from astra_ros.backends.bundle import Bundle
from astra_ros.backends.manifest import BundleError
from astra_ros.types import FloatArray

# Latents are described on a grid of GRID x GRID fields, so that a hand before the camera is seen wherever it is.
GRID = 4
# Latents have unit variance: what is smaller counts as no error at all, and as a field without texture.
_LEAST, _FLAT = 1e-4, 0.05

_FIX = "make it again: python -m export.calibrate BUNDLE --data DATASET"


@dataclass(frozen=True)
class Trust:
    """What a model's recordings say about its predictions.

    mean (p,) and whitening (p, p): of the descriptions of training pictures. limit (): largest usual distance from their
    mean. intercept, slope (horizon,): the log of a frame's error is about intercept + slope * log(spread).
    """

    mean: FloatArray
    whitening: FloatArray
    limit: np.float32
    intercept: FloatArray
    slope: FloatArray

    def novelty(self, latents: FloatArray) -> float:
        """Of a picture's latents (c, h, w); above 1 it is farther from training than a usual one."""
        return float(self.novelties(latents[None])[0])

    def novelties(self, latents: FloatArray) -> FloatArray:
        """(n, c, h, w) → (n,)."""
        return distances(latents, self.mean, self.whitening) / self.limit

    def expected_error(self, spread: FloatArray) -> FloatArray:
        """Spread of samples (n, horizon), a standard deviation of latents → root mean square error of each frame, NaN kept.

        Frames beyond the fitted horizon count as its last.
        """
        frame = np.minimum(np.arange(spread.shape[1]), len(self.slope) - 1)
        error = np.exp(self.intercept[frame] + self.slope[frame] * np.log(np.maximum(spread, _LEAST)))
        return error.astype(np.float32)

    def save(self, file: Path) -> None:
        np.savez_compressed(file, **asdict(self))


def describe(latents: FloatArray) -> FloatArray:
    """(n, c, h, w) → (n, p): mean and log standard deviation of every channel in every field of the grid."""
    rows, columns = (side // GRID for side in latents.shape[2:])
    whole = latents[:, :, : rows * GRID, : columns * GRID]
    places = whole.reshape(*latents.shape[:2], GRID, rows, GRID, columns)
    parts = places.mean(axis=(3, 5)), np.log(places.std(axis=(3, 5)) + _FLAT)
    return np.concatenate([part.reshape(len(latents), -1) for part in parts], axis=1)


def distances(latents: FloatArray, mean: FloatArray, whitening: FloatArray) -> FloatArray:
    """(n, c, h, w) → (n,): root mean square of the whitened descriptions (Mahalanobis)."""
    return np.sqrt(np.square((describe(latents) - mean) @ whitening).mean(axis=1))


def fit_familiarity(descriptions: FloatArray, shrinkage: float = 0.05) -> tuple[FloatArray, FloatArray]:
    """Mean (p,) and whitening (p, p) of training descriptions (n, p).

    shrinkage: share of the average variance in every direction, since pictures of few episodes do not fill them all.
    """
    mean = descriptions.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(descriptions - mean, rowvar=False))
    floored = (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * variances.mean()
    return mean.astype(np.float32), (directions / np.sqrt(floored)).astype(np.float32)


def fit_spread(spread: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
    """intercept, slope (horizon,), low, high, from spreads and real errors (n, horizon) of n predictions.

    The slope is shared by all frames, and at least 0: more spread never promises less error.
    """
    x, y = np.log(np.maximum(spread, _LEAST)), np.log(np.maximum(error, _LEAST))
    x_centred, y_centred = x - x.mean(axis=0), y - y.mean(axis=0)
    slope = max(0.0, float((x_centred * y_centred).sum() / max(np.square(x_centred).sum(), _LEAST)))
    intercept = (y - slope * x).mean(axis=0)
    low, high = np.exp(np.quantile(y - intercept - slope * x, (0.05, 0.95)))
    return intercept.astype(np.float32), np.full_like(intercept, slope, np.float32), float(low), float(high)


def load_trust(bundle: Bundle) -> Trust | None:
    """None for a bundle that was never calibrated. Raises BundleError for a file that is none."""
    spec = bundle.manifest.trust
    if spec is None:
        return None
    try:
        with np.load(bundle.file(spec.file), allow_pickle=False) as arrays:
            found = {field.name: arrays[field.name] for field in fields(Trust)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(
            f"{spec.file}: expected the arrays of a calibration, found {error!r}; {_FIX}"
        ) from error
    _require_shapes(found, bundle)
    return Trust(**found | {"limit": np.float32(found["limit"])})


def _require_shapes(found: dict[str, FloatArray], bundle: Bundle) -> None:
    size = 2 * bundle.manifest.latents.channels * GRID**2
    horizon = found["slope"].shape
    expected = {
        "mean": (size,),
        "whitening": (size, size),
        "limit": (),
        "intercept": horizon,
        "slope": (len(found["slope"]),) if found["slope"].ndim and len(found["slope"]) else (1,),
    }
    for name, array in found.items():
        if array.shape != expected[name] or array.dtype != np.float32 or not np.isfinite(array).all():
            raise BundleError(
                f"trust.{name}: expected finite float32 of shape {expected[name]}, found {array.dtype} of {array.shape}; {_FIX}"
            )
