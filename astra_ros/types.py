"""Values that cross stages. Standard library and numpy only.

Dimension letters: b batch, t frames, c channels, h w grid, n tokens, d width, a action dims, f action
features, k heads, l layers, s history slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Observation:
    """What the robot sensed at one instant, already in the model's terms.

    stamp_ns: capture time of the image, nanoseconds of the ROS clock.
    pixels:   (h, w, 3) uint8 RGB at the model's size.
    measured: (a,) what the robot did, in the action contract's order and units: joint positions at the stamp, or mean velocities
    of the step that ends there.
    """

    stamp_ns: int
    pixels: ByteArray
    measured: FloatArray


@dataclass(frozen=True)
class Prediction:
    """A predicted future.

    frames: (t, h, w, 3) uint8 RGB; frame k belongs to observation stamp + (k + 1) * step_dt. latents: (t, c, h, w) of them.
    inference_time_s: seconds spent in the backend, encode and decode included.
    novelty: of the observation that it starts from, above 1 = unlike all of training; NaN = nobody knows.
    """

    frames: ByteArray
    latents: FloatArray
    seed: int
    inference_time_s: float
    novelty: float = float("nan")
