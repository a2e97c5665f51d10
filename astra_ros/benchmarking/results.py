"""What a run of `astra bench` finds, and what it is held against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from astra_ros.benchmarking.candidates import Agreement
from astra_ros.benchmarking.footprint import Footprint
from astra_ros.benchmarking.medians import Median
from astra_ros.benchmarking.peaks import Peak


@dataclass(frozen=True)
class Speed:
    """Of one subject, per unit: a chunk, a run of a graph, a frame of a candidate, or a predicted frame.

    runs: runtime, precision and device that really ran. faster: how many times as fast as `reference`.
    gflops: GFLOP/s. share_of_peak: of the GEMM rate in this precision in the same round.
    None: the subject has no such number, or what it takes was not timed.
    """

    runs: str
    milliseconds: Median
    per_second: Median
    reference: str | None
    faster: Median | None
    gflops: Median | None
    share_of_peak: Median | None


@dataclass(frozen=True)
class IdeaGain:
    """before, after: subjects that differ by nothing but the idea. faster: how many times."""

    idea: str
    before: str
    after: str
    faster: Median


@dataclass(frozen=True)
class Goal:
    """wanted: the number to reach. is_reached: by the median; None where it was not measured."""

    name: str
    wanted: str
    found: Median | None
    is_reached: bool | None


@dataclass(frozen=True)
class SpeedResult:
    """speeds: by name. flops: of one run of remember, append and a step. skipped: what did not run, and why.

    seconds: per unit of every subject, round by round. load_average: of the machine, before and after.
    """

    peaks: tuple[Peak, ...]
    flops: dict[str, int]
    speeds: dict[str, Speed]
    ideas: tuple[IdeaGain, ...]
    agreement: Agreement | None
    footprints: dict[str, Footprint]
    goals: tuple[Goal, ...]
    skipped: dict[str, str]
    load_average: tuple[float, float]
    seconds: dict[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def group(self, name: str) -> dict[str, Speed]:
        """The speeds of one group of the catalogue."""
        return {key: speed for key, speed in self.speeds.items() if key.startswith(f"{name}/")}
