"""Sample strips: what a model in training predicts, row above row with what really happened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from astra_ros.evaluation.held_out import HeldOutRollout


def save_strips(rollouts: Sequence[HeldOutRollout], path: Path) -> None:
    """Two rows each: observed and predicted frames, then the observed frame and what happened."""
    rows = [
        np.concatenate([one.observed, *frames], axis=1)
        for one in rollouts
        for frames in (one.predicted, one.happened)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)
