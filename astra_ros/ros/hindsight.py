"""When the future arrives, compare: each published prediction against what the camera then saw, and against copying."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from astra_ros.types import NANOSECONDS, ByteArray

# Frames further ahead than this are not kept, and no more predictions than this are.
_KEPT_S, _MAX_PREDICTIONS = 2.0, 64
# Share of a step by which a picture may miss the time that a frame was predicted for.
_TOLERANCE = 0.15
# Variance of rounding to whole grey levels: pictures of 8 bits can agree no better.
_ROUNDING = 1 / 12


@dataclass(frozen=True)
class Comparison:
    """One predicted frame and the picture of its time. Mean squared errors in grey levels of 255.

    t0_ns: stamp of the picture that the prediction started from; copied: error of that picture. seconds_ahead: how far ahead the
    frame was predicted.
    """

    t0_ns: int
    seconds_ahead: float
    predicted: float
    copied: float


@dataclass
class _Prediction:
    """pixels: (h, w, 3), what it started from. frames: (t, h, w, 3). due: indices that are not compared yet."""

    t0_ns: int
    pixels: ByteArray
    frames: ByteArray
    due: set[int] = field(init=False)

    def __post_init__(self) -> None:
        self.due = set(range(len(self.frames)))


class Hindsight:
    """Predictions whose time has not come. step_dt: seconds between two frames. Single-threaded."""

    def __init__(self, step_dt: float) -> None:
        self._step_dt = step_dt
        self._step_ns = round(step_dt * NANOSECONDS)
        self._num_kept = max(1, round(_KEPT_S / step_dt))
        self._predictions: deque[_Prediction] = deque(maxlen=_MAX_PREDICTIONS)

    def remember(self, t0_ns: int, pixels: ByteArray, frames: ByteArray) -> None:
        """A prediction was published. pixels: (h, w, 3), the observation at t0. frames: (t, h, w, 3)."""
        self._predictions.append(_Prediction(t0_ns, pixels, frames[: self._num_kept].copy()))

    def compare(self, stamp_ns: int, pixels: ByteArray) -> list[Comparison]:
        """What a picture (h, w, 3) says about the predictions of its time; each frame is compared once."""
        end_ns = self._num_kept * self._step_ns
        while self._predictions and stamp_ns - self._predictions[0].t0_ns > end_ns + self._step_ns:
            self._predictions.popleft()
        found = []
        for prediction in self._predictions:
            ahead = round((stamp_ns - prediction.t0_ns) / self._step_ns)
            missed_ns = abs(stamp_ns - prediction.t0_ns - ahead * self._step_ns)
            if ahead - 1 in prediction.due and missed_ns <= _TOLERANCE * self._step_ns:
                prediction.due.remove(ahead - 1)
                found.append(
                    Comparison(
                        t0_ns=prediction.t0_ns,
                        seconds_ahead=ahead * self._step_dt,
                        predicted=_squared_error(prediction.frames[ahead - 1], pixels),
                        copied=_squared_error(prediction.pixels, pixels),
                    )
                )
        return found

    def clear(self) -> None:
        self._predictions.clear()


def psnr(squared_error: float) -> float:
    """Decibels of a mean squared error in grey levels; at most 58.9."""
    return float(10 * np.log10(255**2 / max(squared_error, _ROUNDING)))


def _squared_error(one: ByteArray, other: ByteArray) -> float:
    return float(np.square(one.astype(np.float32) - other).mean())
