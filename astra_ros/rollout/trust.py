"""Does the model know when it does not know? How unlike training a picture is, and how wrong a future may be.

The numbers are fitted to recordings by export/calibrate.py and live in a file of the bundle (manifest.trust). Host code,
numpy only; docs/decisions/0007.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.backends.arrays import read_arrays
from astra_ros.backends.bundle import Bundle, replace_file
from astra_ros.backends.manifest import BundleError
from astra_ros.types import FloatArray

# Latents are described on a grid of GRID x GRID fields, so that a hand before the camera is seen wherever it is.
GRID = 4
# Latents have unit variance: what is smaller counts as no error at all, and as a field without texture.
_LEAST, _FLAT = 1e-4, 0.05

_FIX = "make it again: python -m export.calibrate BUNDLE --data DATASET"


@dataclass(frozen=True)
class Familiarity:
    """A Gaussian of the descriptions of usual pictures.

    mean (p,). directions (p, r), orthonormal: in which they vary most. scales (r + 1,): standard deviation along each, and
    along any other direction.
    """

    mean: FloatArray
    directions: FloatArray
    scales: FloatArray

    def distances(self, latents: FloatArray) -> FloatArray:
        """(n, c, h, w) → (n,): Mahalanobis, root mean square over the p numbers of the description."""
        offset = describe(latents) - self.mean
        along = offset @ self.directions
        beside = np.maximum(np.square(offset).sum(axis=1) - np.square(along).sum(axis=1), 0)
        squares = np.square(along / self.scales[:-1]).sum(axis=1) + beside / self.scales[-1] ** 2
        return np.sqrt(squares / len(self.mean)).astype(np.float32)


@dataclass(frozen=True)
class Trust:
    """What a model's recordings say about its predictions.

    limit: largest usual distance. intercept, slope (horizon,): the log of a frame's error is about
    intercept + slope * log(spread). horizon: frames that were fitted; of later ones nothing is known.
    """

    familiarity: Familiarity
    limit: float
    intercept: FloatArray
    slope: FloatArray

    @property
    def horizon(self) -> int:
        return len(self.slope)

    def novelty(self, latents: FloatArray) -> float:
        """Novelty of a picture with latents (c, h, w); above 1 it is farther from training than usual pictures are."""
        return float(self.novelties(latents[None])[0])

    def novelties(self, latents: FloatArray) -> FloatArray:
        """Novelty of every picture: latents (n, c, h, w) → (n,)."""
        return self.familiarity.distances(latents) / np.float32(self.limit)

    def expected_error(self, spread: FloatArray) -> FloatArray:
        """Spread of samples (n, t), a standard deviation of latents → root mean square error of each frame, NaN kept.

        NaN for frames beyond the fitted horizon: no interval was ever tested on them.
        """
        error = np.full(spread.shape, np.nan, np.float32)
        logs = np.log(np.maximum(spread[:, : self.horizon], _LEAST))
        fitted = logs.shape[1]
        error[:, :fitted] = np.exp(self.intercept[:fitted] + self.slope[:fitted] * logs)
        return error

    def save(self, file: Path) -> None:
        lines = {"limit": np.float32(self.limit), "intercept": self.intercept, "slope": self.slope}
        arrays: dict[str, Any] = {**vars(self.familiarity), **lines}
        archive = BytesIO()
        np.savez_compressed(archive, **arrays)
        replace_file(file, archive.getvalue())


def describe(latents: FloatArray) -> FloatArray:
    """(n, c, h, w) → (n, p): mean and log standard deviation of every channel in every field of the grid."""
    rows, columns = (side // GRID for side in latents.shape[2:])
    whole = latents[:, :, : rows * GRID, : columns * GRID]
    places = whole.reshape(*latents.shape[:2], GRID, rows, GRID, columns)
    parts = places.mean(axis=(3, 5)), np.log(places.std(axis=(3, 5)) + _FLAT)
    return np.concatenate([part.reshape(len(latents), -1) for part in parts], axis=1)


def fit_familiarity(descriptions: FloatArray, rank: int = 128, shrinkage: float = 0.05) -> Familiarity:
    """Fit the Gaussian to descriptions (n, p) of usual pictures.

    rank: directions that are kept. shrinkage: share of the average variance in every direction, since pictures of few
    episodes do not fill them all.
    """
    mean = descriptions.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(descriptions - mean, rowvar=False))
    floored = (1 - shrinkage) * np.maximum(variances, 0) + shrinkage * variances.mean()
    kept = min(rank, len(mean) - 1)
    scales = np.sqrt(np.append(floored[-kept:], floored[:-kept].mean()))
    return Familiarity(*(part.astype(np.float32) for part in (mean, directions[:, -kept:], scales)))


def fit_spread(spread: FloatArray, error: FloatArray) -> tuple[FloatArray, FloatArray, float, float]:
    """Fit log(error) = intercept + slope * log(spread) to spreads and real errors (n, horizon) of n predictions.

    Returns intercept and slope, (horizon,) each, then low and high: nine of ten real errors lie between low and high times
    the expected one. The slope is shared by all frames, and at least 0: more spread never promises less error.
    """
    x, y = np.log(np.maximum(spread, _LEAST)), np.log(np.maximum(error, _LEAST))
    x_centred, y_centred = x - x.mean(axis=0), y - y.mean(axis=0)
    slope = max(0.0, float((x_centred * y_centred).sum() / max(np.square(x_centred).sum(), _LEAST)))
    intercept = (y - slope * x).mean(axis=0)
    low, high = np.exp(np.quantile(y - intercept - slope * x, (0.05, 0.95)))
    return intercept.astype(np.float32), np.full_like(intercept, slope, np.float32), float(low), float(high)


def load_trust(bundle: Bundle, precision: str) -> Trust | None:
    """What a bundle was calibrated to for this precision (Manifest.trust_for), or None if it never was.

    Raises BundleError when its file holds something else.
    """
    spec = bundle.manifest.trust_for(precision)
    if spec is None:
        return None
    found = read_arrays(bundle.file(spec.file), "the arrays of a calibration", _FIX)
    _require_arrays(found, bundle)
    familiarity = Familiarity(*(found[field.name] for field in fields(Familiarity)))
    return Trust(familiarity, float(found["limit"]), found["intercept"], found["slope"])


def _require_arrays(found: dict[str, FloatArray], bundle: Bundle) -> None:
    size = 2 * bundle.manifest.latents.channels * GRID**2
    rank = found["directions"].shape[-1] if "directions" in found and found["directions"].ndim == 2 else 1
    horizon = max(1, found["slope"].size) if "slope" in found else 1
    expected = {
        "mean": (size,),
        "directions": (size, rank),
        "scales": (rank + 1,),
        "limit": (),
        "intercept": (horizon,),
        "slope": (horizon,),
    }
    if set(found) != set(expected):
        raise BundleError(f"trust.file: expected {sorted(expected)}, found {sorted(found)[:9]}; {_FIX}")
    for name, array in found.items():
        if array.shape != expected[name] or array.dtype != np.float32 or not np.isfinite(array).all():
            raise BundleError(
                f"trust.{name}: expected finite float32 of shape {expected[name]}, found {array.dtype} of {array.shape}; {_FIX}"
            )
