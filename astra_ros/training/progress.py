"""What a training run tells while it works: a line now and then, and a JSON-lines log."""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic


class Progress:
    """Averages losses between lines. One line every `every_s` seconds."""

    def __init__(self, name: str, log: Path, every_s: float = 20.0) -> None:
        self._name, self._log, self._every_s = name, log, every_s
        self._started = self._last = monotonic()
        self._steps = self._since = 0
        self._sums: dict[str, float] = {}
        log.parent.mkdir(parents=True, exist_ok=True)

    def step(self, share: float, **values: float) -> None:
        """One optimiser step done; `share` of the budget spent."""
        self._steps, self._since = self._steps + 1, self._since + 1
        for key, value in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
        now = monotonic()
        if now - self._last >= self._every_s or share >= 1.0:
            means = {key: total / self._since for key, total in self._sums.items()}
            self.report(share, seconds_per_step=(now - self._last) / self._since, **means)
            self._last, self._since, self._sums = now, 0, {}

    def report(self, share: float, **values: float) -> None:
        """Print and log values now."""
        line = {"stage": self._name, "step": self._steps, "share": round(share, 4), **values}
        with self._log.open("a") as stream:
            stream.write(json.dumps({**line, "elapsed_s": round(monotonic() - self._started, 1)}) + "\n")
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        print(f"{self._name} {100 * share:5.1f} %  step {self._steps}  {shown}", flush=True)  # noqa: T201
