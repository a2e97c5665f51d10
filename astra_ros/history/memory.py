"""What the robot remembers: the observations of the last second or so, and which of them fill the history slots.

Host code, numpy only. Slot j (0 = oldest) of s wants the frame observed at t0 - (s - 1 - j) * step_dt; the last slot
is the observation at t0 itself. The slots are a fixed number, so the network's shapes are static; a slot without a
frame is empty and its mask 0.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from astra_ros.types import NANOSECONDS, ByteArray, FloatArray, Observation

# Two stored frames closer than this share of step_dt are one too many: it bounds the memory for any camera rate.
_MIN_SPACING = 0.1


@dataclass(frozen=True)
class HistorySlots:
    """The history of one chunk, oldest first.

    latents: (s, c, h, w) float32; zeros where empty.
    positions: (s, a) float32, measured (or, after a predicted chunk, commanded) joint positions. Before the first
    filled slot they repeat it, so that nothing seems to move; in a gap they are interpolated.
    mask: (s,) float32, 1 = filled.
    """

    latents: FloatArray
    positions: FloatArray
    mask: FloatArray

    def append(self, latents: FloatArray, positions: FloatArray) -> HistorySlots:
        """The history after a predicted chunk: its frames come in as the newest, as many of the oldest leave.

        latents: (t, c, h, w); positions: (t, a) that were commanded.
        """
        filled = np.ones(len(latents), np.float32)
        keep = slice(-len(self.mask), None)
        return HistorySlots(
            np.concatenate([self.latents, latents])[keep],
            np.concatenate([self.positions, positions])[keep],
            np.concatenate([self.mask, filled])[keep],
        )


@dataclass
class _Frame:
    observation: Observation
    latents: FloatArray | None = None


class HistoryMemory:
    """Bounded in time and in count. Single-threaded: the thread that pushes also asks for the slots.

    num_slots: frames of history the network takes.
    step_dt_s: seconds between two slots.
    tolerance_s: how far a frame may be from its slot's time; less than half a step, so that no frame fills two slots.
    """

    def __init__(self, num_slots: int, step_dt_s: float, tolerance_s: float) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots: expected at least 1, found {num_slots}")
        if not 0 <= tolerance_s < step_dt_s / 2:
            raise ValueError(
                f"tolerance_s: expected 0 <= tolerance_s < step_dt_s / 2 = {step_dt_s / 2:g}, found {tolerance_s:g}"
            )
        self._num_slots = num_slots
        self._step_ns = round(step_dt_s * NANOSECONDS)
        self._tolerance_ns = round(tolerance_s * NANOSECONDS)
        self._frames: deque[_Frame] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def newest_stamp_ns(self) -> int | None:
        """Stamp of the newest observation; None while the memory is empty."""
        return self._frames[-1].observation.stamp_ns if self._frames else None

    def push(self, observation: Observation) -> None:
        """Remember an observation.

        A stamp before the newest one means that time was reset (a bag that loops, a simulator that restarts):
        everything older is forgotten. A stamp seen already is ignored.
        """
        newest = self.newest_stamp_ns
        if newest == observation.stamp_ns:
            return
        if newest is not None and observation.stamp_ns < newest:
            self.reset()
        self._drop_superseded(observation.stamp_ns)
        self._frames.append(_Frame(observation))
        self._drop_expired(observation.stamp_ns)

    def slots(self, t0_ns: int, encode: Callable[[ByteArray], FloatArray]) -> HistorySlots:
        """Fill the slots for a prediction from the observation stamped t0_ns.

        encode: (h, w, 3) uint8 → (c, h, w) float32; called once per stored frame over the memory's life.
        Raises LookupError when no observation with that stamp is stored.
        """
        frames = [self._nearest(stamp_ns) for stamp_ns in self._slot_stamps(t0_ns)]
        last = frames[-1]
        if last is None or last.observation.stamp_ns != t0_ns:
            raise LookupError(
                f"t0_ns: expected the stamp of an observation in memory, found {t0_ns} (newest: {self.newest_stamp_ns},"
                f" stored: {len(self)}); call observe() with that observation first"
            )
        latents = _encoded(last, encode)
        empty = np.zeros_like(latents)
        return HistorySlots(
            np.stack([empty if frame is None else _encoded(frame, encode) for frame in frames]),
            _positions(frames),
            np.array([frame is not None for frame in frames], np.float32),
        )

    def reset(self) -> None:
        """Forget everything."""
        self._frames.clear()

    def _slot_stamps(self, t0_ns: int) -> list[int]:
        return [t0_ns - age * self._step_ns for age in reversed(range(self._num_slots))]

    def _nearest(self, stamp_ns: int) -> _Frame | None:
        def distance(frame: _Frame) -> int:
            return abs(frame.observation.stamp_ns - stamp_ns)

        nearest = min(self._frames, key=distance, default=None)
        return nearest if nearest is not None and distance(nearest) <= self._tolerance_ns else None

    def _drop_superseded(self, stamp_ns: int) -> None:
        # The newest frame always stays until its successor comes: it may be a prediction's t0.
        if len(self._frames) < 2:
            return
        if stamp_ns - self._frames[-2].observation.stamp_ns < _MIN_SPACING * self._step_ns:
            self._frames.pop()

    def _drop_expired(self, newest_ns: int) -> None:
        # One step more than the slots span: a prediction may still be asked for the observation before the newest.
        oldest_ns = newest_ns - self._num_slots * self._step_ns - self._tolerance_ns
        while self._frames[0].observation.stamp_ns < oldest_ns:
            self._frames.popleft()


def _encoded(frame: _Frame, encode: Callable[[ByteArray], FloatArray]) -> FloatArray:
    if frame.latents is None:
        frame.latents = encode(frame.observation.pixels)
    return frame.latents


def _positions(frames: Sequence[_Frame | None]) -> FloatArray:
    """(s, a): measured where a slot is filled, else from its neighbours."""
    measured = {slot: frame.observation.positions for slot, frame in enumerate(frames) if frame is not None}
    joints = np.stack(list(measured.values()), axis=1)
    slots = np.arange(len(frames))
    return np.stack([np.interp(slots, list(measured), joint) for joint in joints], axis=1).astype(np.float32)
