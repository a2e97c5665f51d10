"""Timing on a machine that others use too: every subject has its turn in every round, so that all suffer alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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


def interleave(
    subjects: Sequence[Subject], config: InterleavingConfig, report: Callable[[str], None] = lambda text: None
) -> dict[str, Seconds]:
    """Seconds per unit of every subject by name, (rounds,). Each runs once untimed before the first round."""
    for number, subject in enumerate(subjects, start=1):
        report(f"warming up {number} of {len(subjects)}: {subject.name}")
        subject.run()
    order, started = np.random.default_rng(config.seed), time.monotonic()
    seconds = {subject.name: np.empty(config.rounds) for subject in subjects}
    turns = [
        (turn, int(index)) for turn in range(config.rounds) for index in order.permutation(len(subjects))
    ]
    for done, (turn, index) in enumerate(turns):
        subject = subjects[index]
        left_min = (time.monotonic() - started) / max(done, 1) * (len(turns) - done) / 60
        left = f", {left_min:.0f} min left" if turn else ""
        report(f"timing round {turn + 1} of {config.rounds}{left}: {subject.name}")
        seconds[subject.name][turn] = _time(subject, config.settle_s)
    return seconds


def _time(subject: Subject, settle_s: float) -> float:
    time.sleep(settle_s)
    started = time.perf_counter()
    subject.run()
    return (time.perf_counter() - started) / subject.units
