"""Whether a recording's header stamps are of one clock: what arrives at the same moment was stamped at about the same moment.

Joint states come so often that one of them is near every picture, whatever its clock says; only the times of reception tell.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from astra_ros.data.bag import BagError
from astra_ros.types import NANOSECONDS

# What arrives with a picture may be stamped so much after it, for a picture is exposed, read out, encoded and sent: as late as the
# node takes it. And so much before it, for joint states and commands are sent at once.
_MOST_AFTER_S, _MOST_BEFORE_S = 0.5, 0.15


@dataclass(frozen=True)
class Stamps:
    """Of the messages of one topic, nanoseconds, in the order of reception: when they were received and what their headers say."""

    received: array[int] = field(default_factory=lambda: array("q"))
    stamped: array[int] = field(default_factory=lambda: array("q"))

    def add(self, received_ns: int, stamped_ns: int) -> None:
        self.received.append(received_ns)
        self.stamped.append(stamped_ns)

    def lateness_s(self, at_ns: np.ndarray) -> np.ndarray:
        """Seconds from stamp to reception, of what was being received at those times (t,)."""
        origin_ns = self.received[0]  # nanoseconds since 1970 are too large for a float
        received, stamped = (np.array(ns, np.int64) for ns in (self.received, self.stamped))
        late_s: np.ndarray = np.interp(
            at_ns - origin_ns, received - origin_ns, (received - stamped) / NANOSECONDS
        )
        return late_s


def stamp_of_receipt(pictures: Stamps) -> Callable[[int], int]:
    """When something happened that has no stamp, by when it was received, in the pictures' time.

    Which is that of reception, unless a simulator's clock stamps the pictures and the recorder's own tells their receipt.
    """
    received = np.array(pictures.received, np.int64)
    late_s = float(np.median(pictures.lateness_s(received)))
    if -_MOST_BEFORE_S <= late_s <= _MOST_AFTER_S:
        return lambda received_ns: received_ns
    return lambda received_ns: (
        received_ns - round(float(pictures.lateness_s(np.array([received_ns]))[0]) * NANOSECONDS)
    )


def require_one_clock(path: Path, topic: str, pictures: Stamps, others: Stamps) -> None:
    """Raises BagError where what came together with the pictures is stamped much earlier or later than they are.

    others: of `topic`, in the order of reception; judged where they came while the camera ran.
    """
    first, last = pictures.received[0], pictures.received[-1]
    received = np.array(others.received, np.int64)
    during = received[(received >= first) & (received <= last)]
    if not during.size:
        return
    behind_s = float(np.median(others.lateness_s(during) - pictures.lateness_s(during)))
    if not -_MOST_AFTER_S <= behind_s <= _MOST_BEFORE_S:
        way = "before" if behind_s > 0 else "after"
        raise BagError(
            f"{path}: {topic}: header.stamp: expected the stamps of pictures that arrive at the same time, or up to {_MOST_AFTER_S:g} s"
            f" after them, found {abs(behind_s):.3f} s {way} them; the clocks differ: synchronise them (chrony), and record again"
        )
