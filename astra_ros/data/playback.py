"""What to play of a recording and how, and how its time maps to this machine's. No ROS."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from astra_ros.types import NANOSECONDS


def _option(description: str, *, default: Any) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True)
class PlaybackConfig:
    """Command-line options and parameters of the player, one to one; their descriptions are beside them."""

    bag: Path = field(metadata={"description": "rosbag2 folder, or a lone .mcap or .db3 file"})
    rate: float = _option("speed; 1 plays as recorded", default=1.0)
    loop: bool = _option("start again at the end; with clock, time jumps back", default=False)
    start_s: float = _option("seconds of the recording to skip", default=0.0)
    duration_s: float = _option("seconds of the recording to play; 0 plays to the end", default=0.0)
    topics: tuple[str, ...] = _option("topics to play; all when none are given", default=())
    clock_hz: float = _option(
        "publish /clock at least this often, for nodes with use_sim_time; 0 does not", default=0.0
    )
    restamp: bool = _option("move the header stamps to now, for nodes on the system's clock", default=False)
    decompress: bool = _option(
        "publish raw Image in place of CompressedImage, on the topic less /compressed", default=False
    )
    wait_s: float = _option(
        "longest wait for a subscriber on every played topic before the first message", default=0.0
    )

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ValueError(f"rate: expected more than 0, found {self.rate:g}; 1 plays as recorded")
        for name in ("start_s", "duration_s", "clock_hz", "wait_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, found {getattr(self, name):g}")
        if self.restamp and self.clock_hz:
            raise ValueError(
                "restamp and clock_hz: expected one of them, found both; header stamps follow either the system's"
                " clock (restamp) or /clock (clock_hz)"
            )


@dataclass(frozen=True)
class PlaybackProgress:
    """seconds: played in this lap, of the recording's total_s. messages: published in all laps."""

    seconds: float
    total_s: float
    messages: int
    lap: int


@dataclass(frozen=True)
class Lap:
    """One pass through a recording: its time ⇄ this machine's clocks.

    start_ns: first stamp of the pass. system_ns, monotonic_s: the clocks when it began.
    """

    start_ns: int
    rate: float
    system_ns: int
    monotonic_s: float

    @classmethod
    def begin(cls, start_ns: int, rate: float) -> Lap:
        return cls(start_ns, rate, time.time_ns(), time.monotonic())

    def due_s(self, bag_ns: int) -> float:
        """Monotonic time at which a message of that stamp is due."""
        return self.monotonic_s + (bag_ns - self.start_ns) / NANOSECONDS / self.rate

    def now_ns(self) -> int:
        """Present time of the recording."""
        return self.start_ns + round((time.monotonic() - self.monotonic_s) * self.rate * NANOSECONDS)

    def to_system_ns(self, bag_ns: int) -> int:
        """Stamp on the system's clock: distances between stamps are divided by the rate."""
        return self.system_ns + round((bag_ns - self.start_ns) / self.rate)
