"""What several cameras saw at one instant as one picture: beside each of the first camera's the others' nearest in time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from astra_ros.frames.preprocess import stacked
from astra_ros.ros.inbox import Frame
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.types import NANOSECONDS

# Of each camera; that many come within the slop only from one that is far too fast for the history.
_MOST_KEPT = 64


def camera_source(number: int) -> str:
    """What the topic of a camera is called, from 1: image, image_2, image_3, ..."""
    return "image" if number == 1 else f"image_{number}"


class Views:
    """Pictures wait here until no other camera can have a nearer one. A lone camera's never wait.

    topics: of the cameras, by number. For one thread.
    """

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = tuple(topics)
        self._waiting: deque[Frame] = deque()
        self._others: list[deque[Frame]] = [deque(maxlen=_MOST_KEPT) for _ in topics[1:]]

    def clear(self) -> None:
        self._waiting.clear()
        for seen in self._others:
            seen.clear()

    @property
    def are_waiting(self) -> bool:
        return bool(self._waiting)

    def add(self, camera: int, frame: Frame) -> None:
        """camera: its number. frame: of that camera alone, newer than all before it."""
        (self._others[camera - 1] if camera else self._waiting).append(frame)

    def take(self, slop_s: float) -> list[Frame | Refusal]:
        """Pictures of all cameras that are as good as they get, or why one cannot be. slop_s: furthest apart that they may be."""
        taken = []
        while self._waiting and self._is_ready(self._waiting[0], slop_s):
            taken.append(self._whole(self._waiting.popleft(), round(slop_s * NANOSECONDS)))
        return taken

    def _is_ready(self, first: Frame, slop_s: float) -> bool:
        return (
            all(seen and seen[-1].stamp_ns >= first.stamp_ns for seen in self._others)
            or time.monotonic() >= first.received_s + slop_s
            or len(self._waiting) == _MOST_KEPT
        )

    def _whole(self, first: Frame, slop_ns: int) -> Frame | Refusal:
        pixels = [first.pixels]
        for topic, seen in zip(self._topics[1:], self._others, strict=True):
            while len(seen) > 1 and seen[1].stamp_ns <= first.stamp_ns:
                seen.popleft()
            nearest = min(seen, key=lambda frame: abs(frame.stamp_ns - first.stamp_ns), default=None)
            if nearest is None or abs(nearest.stamp_ns - first.stamp_ns) > slop_ns:
                return Refusal(Drop.NO_OTHER_PICTURE, self._why_none(topic, nearest, first, slop_ns))
            pixels.append(nearest.pixels)
        return replace(first, pixels=stacked(pixels)) if self._others else first

    def _why_none(self, topic: str, nearest: Frame | None, first: Frame, slop_ns: int) -> str:
        expected = f"{topic}: expected a picture within {slop_ns / NANOSECONDS:g} s (sync_slop_s) of that on {self._topics[0]}"
        if nearest is None:
            return f"{expected}, found none; start that camera, or remap its topic"
        apart_s = (nearest.stamp_ns - first.stamp_ns) / NANOSECONDS
        return (
            f"{expected}, found the nearest {abs(apart_s):.3f} s {'newer' if apart_s > 0 else 'older'}: it stopped, is slow, or has"
            " another clock; check `ros2 topic hz`, synchronise the clocks, or raise sync_slop_s"
        )
