"""The action contract: which joints, in which order and unit, how fast, and how they are normalised.

Run-time code (numpy only). Training fits a spec to recorded episodes; the bundle's manifest carries it to the robot.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from astra_ros.types import FloatArray


@dataclass(frozen=True)
class ActionSpec:
    """One action modality of a model.

    names, units: one entry per action dimension, in the order of every action array.
    step_dt: seconds between two latent frames; one action row per frame.
    mean, std: normalisation of positions; delta_std: of the change from one frame to the next.
    lower, upper: range seen in training; commands beyond it are clipped and flagged.
    """

    modality: str
    representation: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    step_dt: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    delta_std: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def __post_init__(self) -> None:
        for field in ("units", "mean", "std", "delta_std", "lower", "upper"):
            found = len(getattr(self, field))
            if found != self.dim:
                raise ValueError(f"action.{field}: expected {self.dim} entries (one per name), found {found}")
        if self.step_dt <= 0:
            raise ValueError(f"action.step_dt: expected seconds > 0, found {self.step_dt}")

    @property
    def dim(self) -> int:
        return len(self.names)

    @property
    def num_features(self) -> int:
        """Normalised positions, two normalised changes, and the past/current bit (paper: A.8)."""
        return 3 * self.dim + 1

    def features(self, positions: FloatArray, previous: FloatArray, *, is_past: bool) -> FloatArray:
        """Network input for consecutive frames.

        positions: (t, a) measured (past) or commanded (current) positions, one row per frame.
        previous: (a,) positions of the frame before the first row.
        Returns (t, f) float32: positions, change since the frame before, change since `previous`, past/current bit.
        """
        mean, std, delta_std = (np.asarray(v, np.float32) for v in (self.mean, self.std, self.delta_std))
        before = np.concatenate([previous[None], positions[:-1]])
        step, total = (positions - before) / delta_std, (positions - previous) / delta_std
        bit = np.full((len(positions), 1), float(is_past), np.float32)
        return np.concatenate([(positions - mean) / std, step, total, bit], axis=1).astype(np.float32)

    def clip(self, positions: FloatArray) -> FloatArray:
        """Positions limited to the range seen in training."""
        return np.clip(positions, np.asarray(self.lower, np.float32), np.asarray(self.upper, np.float32))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ActionSpec:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)
