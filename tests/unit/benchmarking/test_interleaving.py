"""Who has his turn when, and what a time is divided by. No test waits for a clock."""

from __future__ import annotations

from functools import partial
from itertools import count

import pytest

from astra_ros.benchmarking.interleaving import InterleavingConfig, Subject, interleave


def turns_of(seed: int, rounds: int = 5) -> list[str]:
    """Names in the order in which they had their turns."""
    taken: list[str] = []

    def turn(name: str) -> float:
        taken.append(name)
        return 1.0

    interleave({name: partial(turn, name) for name in "abcd"}, InterleavingConfig(rounds, seed, settle_s=0.0))
    return taken


def test_all_have_a_turn_for_nothing_and_then_one_in_every_round() -> None:
    taken = turns_of(seed=0)
    assert [sorted(taken[start : start + 4]) for start in range(0, len(taken), 4)] == [list("abcd")] * 6


def test_the_order_is_another_in_every_round_and_the_same_with_the_same_seed() -> None:
    taken = turns_of(seed=1, rounds=8)
    assert len({tuple(taken[start : start + 4]) for start in range(4, len(taken), 4)}) > 2
    assert taken == turns_of(seed=1, rounds=8)
    assert taken != turns_of(seed=2, rounds=8)


def test_results_are_kept_by_name_and_round(monkeypatch: pytest.MonkeyPatch) -> None:
    paused_s: list[float] = []
    monkeypatch.setattr("time.sleep", paused_s.append)
    turns = {"up": map(float, count()).__next__, "down": map(float, count(0, -1)).__next__}
    seconds = interleave(turns, InterleavingConfig(rounds=3, settle_s=0.2))
    # The first of each was for nothing.
    assert {name: values.tolist() for name, values in seconds.items()} == {
        "up": [1.0, 2.0, 3.0],
        "down": [-1.0, -2.0, -3.0],
    }
    assert paused_s == [0.2] * 6


def test_a_time_is_per_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", map(float, count()).__next__)
    assert Subject("one", lambda: None).seconds() == 1.0
    assert Subject("four", lambda: None, units=4).seconds() == 0.25


def test_progress_names_the_round_and_the_subject() -> None:
    said: list[str] = []
    interleave({"matrix": lambda: 1.0}, InterleavingConfig(2, settle_s=0.0), said.append)
    assert said == [
        "warming up 1 of 1: matrix",
        "timing round 1 of 2: matrix",
        "timing round 2 of 2, 0 min left: matrix",
    ]


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds: expected 1 or more, found 0"):
        InterleavingConfig(rounds=0)
