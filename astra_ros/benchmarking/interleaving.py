"""Timing on a machine that others use too: every subject has a turn in every round, so that all suffer alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]


@dataclass(frozen=True)
class InterleavingConfig:
    """rounds: turns of every subject. seed: of the order of the turns, anew in every round.

    settle_s: pause before a turn, in which the waiting threads of the subject before fall asleep.
    """

    rounds: int = 20
    seed: int = 0
    settle_s: float = 0.2

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"rounds: expected 1 or more, found {self.rounds}")


@dataclass(frozen=True)
class Subject:
    """Something to time. run: does `units` of it one after another and returns when the last is finished."""

    name: str
    run: Callable[[], object]
    units: int = 1

    def seconds(self) -> float:
        """Per unit, of one run."""
        started = time.perf_counter()
        self.run()
        return (time.perf_counter() - started) / self.units


def interleave(
    turns: Mapping[str, Callable[[], float]],
    config: InterleavingConfig,
    report: Callable[[str], None] = lambda text: None,
) -> dict[str, Seconds]:
    """What every turn returns, (rounds,), by name. Each is taken once before the first round, for nothing."""
    for number, (name, turn) in enumerate(turns.items(), start=1):
        report(f"warming up {number} of {len(turns)}: {name}")
        turn()
    order, started = np.random.default_rng(config.seed), time.monotonic()
    seconds = {name: np.empty(config.rounds) for name in turns}
    schedule = [(number, name) for number in range(config.rounds) for name in order.permutation(list(turns))]
    for done, (number, name) in enumerate(schedule):
        left_min = (time.monotonic() - started) / max(done, 1) * (len(schedule) - done) / 60
        left = f", {left_min:.0f} min left" if number else ""
        report(f"timing round {number + 1} of {config.rounds}{left}: {name}")
        time.sleep(config.settle_s)
        seconds[name][number] = turns[name]()
    return seconds
