"""How a robot might get from what it sees to a goal picture: plans that a world model then judges.

A small network, learned from the recordings (training/proposals.py, python -m export.proposals), proposes what the robot's driver
did between two such pictures: every picture of a recording is a goal that was reached (hindsight, Andrychowicz et al. 2017, arXiv
1707.01495). It has many answers to one question, each with its probability, because there are many ways. Host code, numpy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends.arrays import read_arrays
from astra_ros.backends.bundle import Bundle, replace_file
from astra_ros.backends.manifest import BundleError, LatentSpec, ProposalsSpec
from astra_ros.types import FloatArray

STRIDES = (1, 2, 2)  # of the three convolutions
_SCALE = ".scale"
LEARN = "learn them from its recordings: python -m export.proposals BUNDLE --data DATASET"
_FIX = "make it again: python -m export.proposals BUNDLE --data DATASET"


@dataclass(frozen=True)
class Proposed:
    """Likeliest first. plans: (n, horizon, a) inside the trained range. probabilities: (n,) of the driver's taking that way."""

    plans: FloatArray
    probabilities: FloatArray


class Proposals:
    """weights: by name, as `ProposalNetwork` has them."""

    def __init__(self, weights: Mapping[str, FloatArray], action: ActionSpec) -> None:
        self._weights, self._action = weights, action

    @property
    def count(self) -> int:
        """Plans that one question gets."""
        return len(self._weights["ways"])

    @property
    def horizon(self) -> int:
        """Rows of the longest plan."""
        return self._weights["shapes"].shape[1] // self._action.dim

    def propose(self, observed: FloatArray, goal: FloatArray, measured: FloatArray, horizon: int) -> Proposed:
        """All plans that lead there in so many rows.

        observed, goal: latents (c, h, w). measured: (a,) where the robot is, or its velocity. Raises ValueError.
        """
        if not 1 <= horizon <= self.horizon:
            raise ValueError(f"horizon: expected 1 to {self.horizon} rows, found {horizon}")
        _require_finite("goal", goal, observed.shape)
        _require_finite("measured", measured, (self._action.dim,))
        action, rest = self._action, self._action.rest(measured)
        mean, std = np.array(action.mean, np.float32), np.array(action.std, np.float32)
        rows, scores = self._forward(observed, goal, (measured - mean) / std, horizon / self.horizon)
        order = np.argsort(-scores, kind="stable")
        probabilities = np.exp(scores[order] - scores.max())
        plans = self._switched(rest + rows[order, :horizon] * std)
        return Proposed(action.clip(plans), probabilities / probabilities.sum())

    def _switched(self, plans: FloatArray) -> FloatArray:
        """What is told one of two levels, as most grippers are, gets one of them: nobody was ever shown what lies between."""
        low, high = self._weights["switch_low"], self._weights["switch_high"]
        level = np.where(plans > (low + high) / 2, high, low)
        return np.where(high > low, level, plans)

    def _forward(
        self, observed: FloatArray, goal: FloatArray, pose: FloatArray, time: float
    ) -> tuple[FloatArray, FloatArray]:
        """Rows (n, h, a) in the action space's deviations from rest, and log probabilities (n,) but for a constant."""
        weights = self._weights
        first, last = ((one - weights["latent_mean"]) / weights["latent_std"] for one in (observed, goal))
        seen = np.concatenate([first, last - first])
        for number, stride in enumerate(STRIDES):
            seen = _silu(_convolved(seen, *self._layer(f"see.{number}"), stride))
        known = np.concatenate([seen.ravel(), pose, [time, time * time]]).astype(np.float32)
        features = _silu(self._linear("gather", known))
        features = features + _silu(self._linear("think", features))
        way = _silu(self._linear("choose", features) + weights["ways"])
        way = way + _silu(self._linear("go", way))
        rows = self._linear("draw", way) @ weights["shapes"]
        return rows.reshape(len(rows), self.horizon, -1), self._linear("judge", features)

    def _layer(self, name: str) -> tuple[FloatArray, FloatArray]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def _linear(self, name: str, x: FloatArray) -> FloatArray:
        weight, bias = self._layer(name)
        return x @ weight.T + bias


def save_proposals(weights: Mapping[str, FloatArray], file: Path) -> None:
    """Matrices in eight bits, one scale per row: a quarter of the size, and hardly other plans (docs/decisions/0017)."""
    arrays: dict[str, Any] = {}
    for name, values in weights.items():
        if not _is_matrix(values.shape):
            arrays[name] = values.astype(np.float32)
            continue
        scale = np.abs(values).reshape(len(values), -1).max(axis=1) / 127 + 1e-12
        arrays[name] = np.round(values / _per_row(scale, values)).astype(np.int8)
        arrays[name + _SCALE] = scale.astype(np.float32)
    archive = BytesIO()
    np.savez_compressed(archive, **arrays)
    replace_file(file, archive.getvalue())


def load_proposals(bundle: Bundle) -> Proposals | None:
    """Of a bundle; None where export/proposals.py was not run. Raises BundleError when its file holds something else."""
    spec, manifest = bundle.manifest.proposals, bundle.manifest
    if spec is None:
        return None
    found = read_arrays(bundle.file(spec.file), "the network of a bundle's proposals", _FIX)
    _require_arrays(found, expected_shapes(spec, manifest.latents, manifest.action.dim))
    weights = {
        name: values * _per_row(found[name + _SCALE], values) if name + _SCALE in found else values
        for name, values in found.items()
        if not name.endswith(_SCALE)
    }
    return Proposals(weights, manifest.action)


def expected_shapes(spec: ProposalsSpec, latents: LatentSpec, dim: int) -> dict[str, tuple[int, ...]]:
    """Of every weight, by name."""
    width, features = spec.width, spec.features
    channels = (2 * latents.channels, width, 2 * width, 2 * width)
    height, breadth = (-(-side // 4) for side in (latents.height, latents.width))
    layers = {f"see.{k}": (channels[k + 1], channels[k], 3, 3) for k in range(len(STRIDES))} | {
        "gather": (features, channels[-1] * height * breadth + dim + 2),
        "think": (features, features),
        "choose": (features, features),
        "go": (features, features),
        "draw": (spec.rank, features),
        "judge": (spec.count, features),
    }
    return (
        {f"{name}.weight": shape for name, shape in layers.items()}
        | {f"{name}.bias": shape[:1] for name, shape in layers.items()}
        | {
            "ways": (spec.count, features),
            "shapes": (spec.rank, spec.horizon * dim),
            "switch_low": (dim,),
            "switch_high": (dim,),
            "latent_mean": (latents.channels, 1, 1),
            "latent_std": (latents.channels, 1, 1),
        }
    )


def _require_arrays(found: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    kinds = {name: (np.int8 if _is_matrix(shape) else np.float32, shape) for name, shape in expected.items()}
    kinds |= {name + _SCALE: (np.float32, shape[:1]) for name, shape in expected.items() if _is_matrix(shape)}
    if set(found) != set(kinds):
        raise BundleError(
            f"proposals.file: expected {sorted(kinds)[:9]}, …, found {sorted(found)[:9]}; {_FIX}"
        )
    for name, (kind, shape) in kinds.items():
        array = found[name]
        if array.shape != shape or array.dtype != kind or not np.isfinite(array).all():
            raise BundleError(
                f"proposals.{name}: expected finite {np.dtype(kind)} of shape {shape}, found {array.dtype} of {array.shape}; {_FIX}"
            )


def _require_finite(name: str, found: FloatArray, shape: tuple[int, ...]) -> None:
    if found.shape != shape or not np.isfinite(found).all():
        raise ValueError(
            f"{name}: expected finite numbers of shape {shape}, found shape {found.shape}: {found.ravel()[:9]}"
        )


def _convolved(x: FloatArray, weight: FloatArray, bias: FloatArray, stride: int) -> FloatArray:
    """(c, h, w) by 3 x 3 windows, zeros around it."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), axis=(1, 2))
    summed: FloatArray = np.tensordot(weight, windows[:, ::stride, ::stride], axes=([1, 2, 3], [0, 3, 4]))
    return summed + bias[:, None, None]


def _silu(x: FloatArray) -> FloatArray:
    return x / (1 + np.exp(-np.clip(x, -30, 30)))


def _is_matrix(shape: tuple[int, ...]) -> bool:
    """More than one number per row."""
    return math.prod(shape[1:]) > 1


def _per_row(scale: FloatArray, values: FloatArray) -> FloatArray:
    return scale.reshape(-1, *(1,) * (values.ndim - 1))
