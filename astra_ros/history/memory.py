"""What the robot remembers: the last few seconds and the very first observation, and which of them fill the slots.

Host code, numpy only. Slots in the order of history/layout.py: the anchor is the first observation since the reset, for
ever; a slot of age k wants the frame observed at t0 - k * step_dt, and the last slot is the observation at t0 itself.
The slots are a fixed number, so the network's shapes are static; a slot without a frame is empty and its mask 0.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from astra_ros.history.layout import NUM_SLOTS, slot_ages
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray, Observation

# Of three stored frames the outer ones are at least this share of step_dt apart. It bounds the memory, and the
# encoding: at 5 Hz every frame of a camera at 30 Hz is kept, of one at 60 Hz every other. A slot that lies between two of them is missed by half of it at most.
# Which frames stay depends on stamps alone, so that the same observations always give the same prediction.
_MIN_SPACING = 0.3


@dataclass(frozen=True)
class HistorySlots:
    """What the network is given of the past, in the order of history/layout.py.

    latents: (s, c, h, w) float32; zeros where empty.
    actions: (s, a) float32, what led to each frame: joint positions or velocities as measured or, after a predicted chunk,
    as commanded. Slots from before the anchor repeat its action, so that nothing seems to move; in a gap they are
    interpolated.
    mask: (s,) float32, 1 = filled.
    """

    latents: FloatArray
    actions: FloatArray
    mask: FloatArray

    def append(self, latents: FloatArray, actions: FloatArray) -> HistorySlots:
        """The history after a predicted chunk: its frames are the newest, as many of the oldest leave, the anchor stays.

        latents: (t, c, h, w); actions: (t, a) that were commanded.
        """
        return HistorySlots(
            _moved_on(self.latents, latents),
            _moved_on(self.actions, actions),
            _moved_on(self.mask, np.ones(len(latents), np.float32)),
        )


@dataclass
class _Frame:
    observation: Observation
    latents: FloatArray | None = None

    @property
    def stamp_ns(self) -> int:
        return self.observation.stamp_ns


class HistoryMemory:
    """Bounded in time and in count. Single-threaded: the thread that pushes also asks for the slots.

    step_dt_s: seconds between two slots.
    tolerance_s: how far a frame may be from its slot's time; less than half a step, so that no frame fills two slots.
    """

    def __init__(self, step_dt_s: float, tolerance_s: float) -> None:
        if not 0 <= tolerance_s < step_dt_s / 2:
            raise ValueError(
                f"tolerance_s: expected 0 <= tolerance_s < step_dt_s / 2 = {step_dt_s / 2:g}, found {tolerance_s:g}"
            )
        self._step_ns = round(step_dt_s * NANOSECONDS)
        self._tolerance_ns = round(tolerance_s * NANOSECONDS)
        self._frames: list[_Frame] = []  # by stamp; the first is the anchor, whatever its age

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def newest_stamp_ns(self) -> int | None:
        """Stamp of the newest observation; None while the memory is empty."""
        return self._frames[-1].stamp_ns if self._frames else None

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
        last = self._stored(t0_ns)
        anchor, wanted_ns = self._frames[0], [t0_ns - age * self._step_ns for age in slot_ages()]
        frames = [anchor, *map(self._nearest, wanted_ns)]
        empty = np.zeros_like(_encoded(last, encode))
        return HistorySlots(
            np.stack([empty if frame is None else _encoded(frame, encode) for frame in frames]),
            _actions(frames, [anchor.stamp_ns, *wanted_ns]),
            np.array([frame is not None for frame in frames], np.float32),
        )

    def encoded(self, t0_ns: int, encode: Callable[[ByteArray], FloatArray]) -> FloatArray:
        """Latents (c, h, w) of the observation stamped t0_ns. encode and LookupError: as for slots."""
        return _encoded(self._stored(t0_ns), encode)

    def reset(self) -> None:
        """Forget everything."""
        self._frames.clear()

    def _stored(self, t0_ns: int) -> _Frame:
        frame = self._nearest(t0_ns)
        if frame is None or frame.stamp_ns != t0_ns:
            raise LookupError(
                f"t0_ns: expected the stamp of an observation in memory, found {t0_ns} (newest: {self.newest_stamp_ns},"
                f" stored: {len(self)}); call observe() with that observation first"
            )
        return frame

    def _nearest(self, stamp_ns: int) -> _Frame | None:
        """The stored frame nearest to a time, if within the tolerance."""

        def distance(frame: _Frame) -> int:
            return abs(frame.stamp_ns - stamp_ns)

        after = bisect_left(self._frames, stamp_ns, key=lambda frame: frame.stamp_ns)
        nearest = min(self._frames[max(after - 1, 0) : after + 1], key=distance, default=None)
        return nearest if nearest is not None and distance(nearest) <= self._tolerance_ns else None

    def _drop_superseded(self, stamp_ns: int) -> None:
        # The newest frame always stays until its successor comes: it may be a prediction's t0.
        if len(self._frames) > 1 and stamp_ns - self._frames[-2].stamp_ns < _MIN_SPACING * self._step_ns:
            self._frames.pop()

    def _drop_expired(self, newest_ns: int) -> None:
        # One step more than the slots span: a prediction may still be asked for the observation before the newest.
        oldest_ns = newest_ns - len(slot_ages()) * self._step_ns - self._tolerance_ns
        while self._frames[1:] and self._frames[1].stamp_ns < oldest_ns:
            del self._frames[1]


def _moved_on(slots: FloatArray, newest: FloatArray) -> FloatArray:
    return np.concatenate([slots[:1], slots[1 + len(newest) :], newest[-(NUM_SLOTS - 1) :]])


def _encoded(frame: _Frame, encode: Callable[[ByteArray], FloatArray]) -> FloatArray:
    if frame.latents is None:
        frame.latents = encode(frame.observation.pixels)
    return frame.latents


def _actions(frames: Sequence[_Frame | None], wanted_ns: Sequence[int]) -> FloatArray:
    """(s, a): as measured where a slot is filled, else at the slot's time between the frames around it."""
    origin_ns = wanted_ns[-1]  # nanoseconds since 1970 are too large for a float
    measured = {
        frame.stamp_ns - origin_ns: frame.observation.measured for frame in frames if frame is not None
    }
    at = [
        (stamp_ns if frame is None else frame.stamp_ns) - origin_ns
        for frame, stamp_ns in zip(frames, wanted_ns, strict=True)
    ]
    dims = np.stack(list(measured.values()), axis=1)
    return np.stack([np.interp(at, list(measured), dim) for dim in dims], axis=1).astype(np.float32)
