"""Who has his turn when, and what a time is divided by. No test waits for a clock."""

from __future__ import annotations

from itertools import count

import pytest

from astra_ros.benchmarking.interleaving import InterleavingConfig, Subject, interleave


def turns_of(seed: int, rounds: int = 5) -> list[str]:
    """Names in the order in which they ran."""
    ran: list[str] = []
    subjects = [Subject(name, lambda name=name: ran.append(name)) for name in "abcd"]  # type: ignore[misc]
    interleave(subjects, InterleavingConfig(rounds, seed, settle_s=0.0))
    return ran


def test_all_run_once_untimed_and_then_once_in_every_round() -> None:
    ran = turns_of(seed=0)
    assert [sorted(ran[start : start + 4]) for start in range(0, len(ran), 4)] == [list("abcd")] * 6


def test_the_order_is_another_in_every_round_and_the_same_with_the_same_seed() -> None:
    ran = turns_of(seed=1, rounds=8)
    assert len({tuple(ran[start : start + 4]) for start in range(4, len(ran), 4)}) > 2
    assert ran == turns_of(seed=1, rounds=8)
    assert ran != turns_of(seed=2, rounds=8)


def test_a_time_is_per_unit_and_excludes_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    paused_s: list[float] = []
    monkeypatch.setattr("time.sleep", paused_s.append)
    monkeypatch.setattr("time.perf_counter", map(float, count()).__next__)
    subjects = [Subject("one", lambda: None), Subject("four", lambda: None, units=4)]
    seconds = interleave(subjects, InterleavingConfig(rounds=3, settle_s=0.2))
    assert seconds["one"].tolist() == [1.0] * 3
    assert seconds["four"].tolist() == [0.25] * 3
    assert paused_s == [0.2] * 6


def test_progress_names_the_round_and_the_subject() -> None:
    said: list[str] = []
    interleave([Subject("matrix", lambda: None)], InterleavingConfig(2, settle_s=0.0), said.append)
    assert said == [
        "warming up 1 of 1: matrix",
        "timing round 1 of 2: matrix",
        "timing round 2 of 2, 0 min left: matrix",
    ]


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds: expected 1 or more, found 0"):
        InterleavingConfig(rounds=0)
