"""The action contract: one robot's way of acting, declared in one place.

names, units, rate and normalisation of an action space. Run-time code (numpy only). Training fits a spec to recorded
episodes; the bundle's manifest carries it to the robot. The network sees only features: a new action space touches no
network code, and a new way of acting is one more class in representations.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from astra_ros.actions.representations import REPRESENTATIONS, Representation, Scales
from astra_ros.types import FloatArray

# The paper's three kinds of action (A.8, A.10) with driving apart from cameras, as in its released code.
MODALITIES = ("arm", "drive", "camera", "command")


@dataclass(frozen=True)
class ActionSpec:
    """One action space.

    space: its name within a model. modality: arm, drive, camera or command. representation: what a row means
    (representations.py). names, units: one entry per action dimension, in the order of every action array.
    step_dt: seconds between two latent frames; one action row per frame.
    mean, std: normalisation of a row; delta_std: of what it adds up to.
    lower, upper: range seen in training; commands beyond it are clipped and flagged.
    """

    space: str
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
            count = len(getattr(self, field))
            if count != self.dim:
                raise ValueError(f"action.{field}: expected {self.dim} entries (one per name), found {count}")
        if len(set(self.names)) != self.dim:
            raise ValueError(f"action.names: expected every name once, found {', '.join(self.names)}")
        if self.step_dt <= 0:
            raise ValueError(f"action.step_dt: expected seconds > 0, found {self.step_dt}")
        for field, known in (("modality", MODALITIES), ("representation", tuple(REPRESENTATIONS))):
            if getattr(self, field) not in known:
                found = str(getattr(self, field))[:80]
                raise ValueError(f"action.{field}: expected one of {', '.join(known)}, found {found!r}")
        self._require_ranges()
        self._kind.check_dim(self.dim)

    def _require_ranges(self) -> None:
        for field in ("std", "delta_std"):
            if not all(scale > 0 for scale in getattr(self, field)):
                raise ValueError(
                    f"action.{field}: expected more than 0 everywhere, found {getattr(self, field)}"
                )
        for name, lower, upper in zip(self.names, self.lower, self.upper, strict=True):
            if not lower <= upper:  # every plan would become the upper one
                raise ValueError(f"action.lower: {name}: expected at most its upper {upper}, found {lower}")

    @property
    def dim(self) -> int:
        return len(self.names)

    @property
    def num_features(self) -> int:
        """Features of one frame: those that the representation makes of a row, and the past/current bit (paper: A.8)."""
        return self._kind.features_per_dim * self.dim + 1

    def steps(self, recorded: FloatArray, frames: np.ndarray, stride: int) -> FloatArray:
        """Rows of recorded actions (t, a) at camera rate → (n, a) per-step actions that led to `frames` (n,)."""
        return self._kind.steps(recorded, frames, stride).astype(np.float32)

    def features(self, actions: FloatArray, previous: FloatArray, *, is_past: bool) -> FloatArray:
        """Network input for consecutive frames.

        actions: (t, a) rows that were measured (past) or are commanded (current).
        previous: (a,) row of the frame before the first.
        Returns (t, f) float32: the normalised row, its change or sum, and the past/current bit. Sums since
        the observation are given for current actions only (0 for past ones), so the features of a past frame never change.
        """
        mean, std, delta_std = (np.asarray(v, np.float32) for v in (self.mean, self.std, self.delta_std))
        scales = Scales(mean, std, delta_std, self.step_dt)
        values = self._kind.features(actions, previous, scales, is_past=is_past)
        bit = np.full((len(actions), 1), float(is_past), np.float32)
        return np.concatenate([values, bit], axis=1).astype(np.float32)

    def rest(self, measured: FloatArray) -> FloatArray:
        """(a,) the action of a robot that stays where it is. measured: (a,) what it did last."""
        return self._kind.rest(measured)

    def clip(self, actions: FloatArray) -> FloatArray:
        """Actions limited to the range seen in training."""
        return np.clip(actions, np.asarray(self.lower, np.float32), np.asarray(self.upper, np.float32))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ActionSpec:
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return cls(**values)

    @property
    def _kind(self) -> Representation:
        return REPRESENTATIONS[self.representation]
