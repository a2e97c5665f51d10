"""Loss curves of a run as a picture, from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Of the held-out values only what is gained over copying the last frame is drawn.
HELD_OUT, GAIN, CODEC = "held out", "_gain", "_codec"
_HIDDEN = {"stage", "step", "share", "elapsed_s", "seconds_per_step", "gradient_norm", "skipped"}


def draw_curves(log: Path, picture: Path) -> None:
    """One panel per stage, against the share of its budget; nothing while the log has no line."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    lines = [line for line in lines if any(_is_drawn(line["stage"], name) for name in line)]
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    if not stages:
        return
    figure = Figure(figsize=(4.8 * len(stages), 3.2), layout="constrained")
    for panel, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        _draw(panel, stage, [line for line in lines if line["stage"] == stage])
    figure.savefig(picture)


def _draw(panel: Axes, stage: str, lines: list[dict[str, Any]]) -> None:
    for name in sorted({name for line in lines for name in line if _is_drawn(stage, name)}):
        points = [(line["share"], line[name]) for line in lines if name in line]
        panel.plot(*zip(*points, strict=True), marker=".", label=name.removesuffix(GAIN))
    panel.set(title=stage, xlim=(0.0, 1.0), xlabel="share of the budget")
    if stage == HELD_OUT:
        panel.set_ylabel("dB over copying, at 1 s")
        panel.axhline(0.0, color="grey", linewidth=0.8)
    else:
        panel.set_yscale("log")
    panel.legend(fontsize="small")


def _is_drawn(stage: str, name: str) -> bool:
    return name.endswith(GAIN) if stage == HELD_OUT else name not in _HIDDEN
