"""Which remembered frame fills which slot, and what the network makes of the slots. Integers, and no torch.

Slots, oldest first: [anchor | 16 frames at 4x | 2 frames at 2x | last]. The anchor is the first frame of the episode, for
ever; 1x frames keep every token, a 2x or 4x block is pooled 2 or 4 times along each axis of the picture and along time
(paper: A.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from astra_ros.types import FloatArray

MAX_PATCH_SIDE = 8  # latents a side of what a projection of the history reads
ANCHOR_AGE = 24  # frames; the anchor stands at this fixed distance, whatever its true age


@dataclass(frozen=True)
class HistoryBlock:
    """Slots that become tokens together.

    slots: first and one past the last. age: of the newest frame, in frames before the observation. pooling: 1, 2 or 4.
    sees_past: False for blocks that are kept as they are when the window moves on; what they remember must not depend
    on what the window has lost since.
    """

    slots: tuple[int, int]
    age: int
    pooling: int
    sees_past: bool

    @property
    def num_frames(self) -> int:
        return self.slots[1] - self.slots[0]

    @property
    def time(self) -> float:
        """Mean time of its frames, in frames after the observation."""
        return -(self.age + (self.num_frames - 1) / 2)


BLOCKS = (
    HistoryBlock((0, 1), ANCHOR_AGE, 1, sees_past=False),
    HistoryBlock((1, 5), 15, 4, sees_past=False),
    HistoryBlock((5, 9), 11, 4, sees_past=False),
    HistoryBlock((9, 13), 7, 4, sees_past=False),
    HistoryBlock((13, 17), 3, 4, sees_past=False),
    HistoryBlock((17, 19), 1, 2, sees_past=True),
    HistoryBlock((19, 20), 0, 1, sees_past=True),
)
NUM_SLOTS = BLOCKS[-1].slots[1]
AGED = 4  # frames of a 4x block: chunks come in multiples of it, so that blocks move on whole
KEPT_BLOCKS = tuple(index for index, block in enumerate(BLOCKS) if block.pooling == AGED)


def slot_ages() -> tuple[int, ...]:
    """Frames before the observation of every slot after the anchor, oldest first: 18 … 0."""
    return tuple(reversed(range(NUM_SLOTS - 1)))


def slot_frames(now: int, stride: int, started: int = 0) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Frame of every slot at frame `now` of a recording that began at frame `started`, and the mask. Both (s,)."""
    frames = np.array([started, *(now - stride * age for age in slot_ages())])
    mask = (frames >= started).astype(np.float32)
    return np.maximum(frames, started), mask


def blocks_after(chunk_len: int) -> tuple[HistoryBlock, ...]:
    """The blocks that are new when a chunk is appended; the others are kept and moved. Raises ValueError."""
    if chunk_len % AGED or not 0 < chunk_len <= AGED * len(KEPT_BLOCKS):
        raise ValueError(
            f"chunk_len: expected a multiple of {AGED} up to {AGED * len(KEPT_BLOCKS)}, found {chunk_len}"
        )
    return BLOCKS[1 + len(KEPT_BLOCKS) - chunk_len // AGED :]
