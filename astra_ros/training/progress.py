"""What a training run tells while it works: a line now and then, and a JSON-lines log."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic


class Progress:
    """Averages losses between lines. One line every `every_s` seconds; silent where `log` is None (other processes)."""

    def __init__(self, name: str, log: Path | None, every_s: float = 20.0) -> None:
        self._name, self._log, self._every_s = name, log, every_s
        self._started = self._last = monotonic()
        self._steps = self._since = self._added = 0
        self._sums: dict[str, float] = {}
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)

    def add(self, **values: float) -> None:
        """Values of one optimiser step, for the averages of the next line."""
        self._added += 1
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value

    def step(self, steps: int, share: float, skipped: int = 0) -> None:
        """`steps` optimiser steps are done, the last one begun at `share` of the budget; 1 = it was the last of all."""
        self._steps, self._since = steps, self._since + 1
        now = monotonic()
        if self._added and (now - self._last >= self._every_s or share >= 1.0):
            means = {key: total / self._added for key, total in self._sums.items()}
            counted = {"skipped": float(skipped)} if skipped else {}
            self.report(share, seconds_per_step=(now - self._last) / self._since, **means, **counted)
            self._last, self._since, self._added, self._sums = now, 0, 0, {}

    def report(self, share: float, **values: float) -> None:
        """Print and log values now."""
        if self._log is None:
            return
        line = {"stage": self._name, "step": self._steps, "share": round(share, 4), **values}
        with self._log.open("a") as stream:
            stream.write(json.dumps({**line, "elapsed_s": round(monotonic() - self._started, 1)}) + "\n")
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        print(f"{self._name} {100 * share:5.1f} %  step {self._steps}  {shown}", flush=True)  # noqa: T201


class EpisodeCount:
    """Episodes of a dataset as they pass: a line now and then, and one for each that cannot be used."""

    def __init__(self, activity: str, total: int, every_s: float = 20.0) -> None:
        self._activity, self._total, self._every_s = activity, total, every_s
        self._last = monotonic()
        self._good = self._bad = 0

    def good(self) -> None:
        """One more."""
        self._good += 1
        if monotonic() - self._last >= self._every_s:
            self._last = monotonic()
            self._print(f"{self._good} of {self._total} episodes")

    def skip(self, error: Exception) -> None:
        """One that cannot be used; `error` is one line."""
        self._bad += 1
        self._print(f"skipped a bad episode: {error}")

    def end(self) -> None:
        """All have passed."""
        if self._total:
            self._print(f"{self._good} episodes, {self._bad} bad")

    def _print(self, line: str) -> None:
        print(f"{self._activity}: {line}", flush=True)  # noqa: T201
