"""Actions of a history and of a chunk as network input. Numpy only: training and the robot share it."""

from __future__ import annotations

import numpy as np

from astra_ros.actions.spec import ActionSpec
from astra_ros.history.layout import AGED, BLOCKS, HistoryBlock
from astra_ros.types import FloatArray


def history_features(
    spec: ActionSpec, actions: FloatArray, blocks: tuple[HistoryBlock, ...] = BLOCKS
) -> FloatArray:
    """(s, a) actions that led to the frames in the slots of `blocks` → (s, f).

    A 4x block is told of changes inside of it only, so that its features stay when the window moves on.
    """
    parts, start = [], blocks[0].slots[0]
    for block in blocks:
        first, end = (slot - start for slot in block.slots)
        before = first if first == 0 or block.pooling == AGED else first - 1
        parts.append(spec.features(actions[first:end], actions[before], is_past=True))
    return np.concatenate(parts)


def chunk_features(spec: ActionSpec, actions: FloatArray, last: FloatArray) -> FloatArray:
    """(t, a) planned actions after the one that led to the newest remembered frame, (a,) → (t, f)."""
    return spec.features(actions, last, is_past=False)
