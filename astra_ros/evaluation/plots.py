"""Curves of the evaluation, as PNG. Needs the `train` extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from astra_ros.evaluation.intervals import Interval

Curve = Sequence[tuple[float, Interval]]


@dataclass(frozen=True)
class Axes:
    """logarithmic: of x, with a tick at each value."""

    title: str
    x_label: str
    y_label: str
    logarithmic: bool = True


def save_curves(panels: Sequence[tuple[Axes, Mapping[str, Curve]]], path: Path) -> None:
    """Panels side by side, each with one line per name and its intervals as a band."""
    figure = Figure(figsize=(6.4 * len(panels), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (axes, curves) in enumerate(panels, 1):
        _draw(figure, (len(panels), place), axes, curves)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(figure: Figure, place: tuple[int, int], axes: Axes, curves: Mapping[str, Curve]) -> None:
    plot = figure.add_subplot(1, *place)
    plot.set(title=axes.title, xlabel=axes.x_label, ylabel=axes.y_label)
    if axes.logarithmic:
        plot.set_xscale("log")
        ticks = sorted({x for curve in curves.values() for x, _ in curve})
        plot.xaxis.set_major_locator(FixedLocator(ticks))
        plot.xaxis.set_major_formatter(FixedFormatter([f"{x:g}" for x in ticks]))
        plot.xaxis.set_minor_locator(NullLocator())
    for name, curve in curves.items():
        x = [place for place, _ in curve]
        (line,) = plot.plot(x, [value.mean for _, value in curve], marker="o", markersize=4, label=name)
        low = [value.mean if value.low is None else value.low for _, value in curve]
        high = [value.mean if value.high is None else value.high for _, value in curve]
        plot.fill_between(x, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    plot.grid(alpha=0.3)
    plot.legend(fontsize=8)
