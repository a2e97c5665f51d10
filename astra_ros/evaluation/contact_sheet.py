"""The picture of a run: observed | predicted over what really happened, at a few moments with motion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from astra_ros.evaluation import drawing
from astra_ros.evaluation.metrics import mean_squared_error
from astra_ros.evaluation.scoring import ScoredFuture
from astra_ros.types import NANOSECONDS


@dataclass(frozen=True)
class SheetConfig:
    """num_moments: blocks, one above the other. num_columns: horizon steps shown, the last one included."""

    num_moments: int = 3
    num_columns: int = 5
    tile_px: int = 208
    gap_px: int = 10
    caption_px: int = 26
    margin_px: int = 28
    label_px: int = 40


def choose_moments(scored: list[ScoredFuture], count: int, apart_s: float = 2.0) -> list[ScoredFuture]:
    """The moments at which the picture changes most over the horizon, at least `apart_s` apart, in order of time.

    Only futures compared over the longest horizon are candidates.
    """
    longest = max((len(s.actual) for s in scored), default=0)
    candidates = [s for s in scored if len(s.actual) == longest]
    candidates.sort(
        key=lambda s: float(
            np.mean(mean_squared_error(np.broadcast_to(s.observed, s.actual.shape), s.actual))
        )
    )
    chosen: list[ScoredFuture] = []
    while candidates and len(chosen) < count:
        best = candidates.pop()
        if all(abs(best.future.stamp_ns - c.future.stamp_ns) >= apart_s * NANOSECONDS for c in chosen):
            chosen.append(best)
    return sorted(chosen, key=lambda s: s.future.stamp_ns)


def write_contact_sheet(
    path: Path, scored: list[ScoredFuture], title: str, subtitle: str, config: SheetConfig
) -> None:
    """Draw `choose_moments` of the scored futures to a PNG. Raises ValueError when there are none."""
    moments = choose_moments(scored, config.num_moments)
    if not moments:
        raise ValueError(
            "contact sheet: expected a future with its real frames, found none; play a longer recording"
        )
    _Sheet(moments, config).draw(title, subtitle, scored[0].future.stamp_ns).save(path, optimize=True)


class _Sheet:
    """Geometry and drawing of one sheet."""

    def __init__(self, moments: list[ScoredFuture], config: SheetConfig) -> None:
        self.moments, self.config = moments, config
        horizon = len(moments[0].actual)
        count = min(config.num_columns, horizon)
        self.steps = [round((column + 1) * horizon / count) - 1 for column in range(count)]
        height, width = moments[0].observed.shape[:2]
        self.tile_width = round(width * config.tile_px / height)
        self.observed_px = 2 * config.tile_px + config.caption_px
        self.observed_width = round(width * self.observed_px / height)
        self.grid_left = config.margin_px + self.observed_width + 2 * config.gap_px + config.label_px
        self.top = config.margin_px + 122
        self.block_height = self.observed_px + config.caption_px + 2 * config.gap_px

    def draw(self, title: str, subtitle: str, start_ns: int) -> Image.Image:
        config = self.config
        right = self._column_left(len(self.steps) - 1) + self.tile_width + config.margin_px
        bottom = self.top + len(self.moments) * self.block_height + config.margin_px // 2
        self.canvas = Image.new("RGB", (right, bottom), drawing.BACKGROUND)
        self.pen = ImageDraw.Draw(self.canvas)
        self.pen.text((config.margin_px, config.margin_px - 6), title, drawing.TEXT, drawing.font(34))
        if self.pen.textlength(subtitle, drawing.font(22)) > right - 2 * config.margin_px:
            subtitle = subtitle.replace(" · ", "\n", 1)  # of tall pictures the sheet is narrow
        self.pen.text((config.margin_px, config.margin_px + 40), subtitle, drawing.MUTED, drawing.font(22))
        self._column_titles()
        for row, moment in enumerate(self.moments):
            self._moment(moment, self.top + row * self.block_height, start_ns)
        return self.canvas

    def _column_titles(self) -> None:
        dt_s = self.moments[0].future.step_dt_ns / NANOSECONDS
        middle = self.top - 18
        centre = self.config.margin_px + self.observed_width // 2
        self.pen.text((centre, middle), "observed", drawing.TEXT, drawing.font(24), anchor="mm")
        for column, k in enumerate(self.steps):
            centre = self._column_left(column) + self.tile_width // 2
            self.pen.text(
                (centre, middle), f"+{(k + 1) * dt_s:.1f} s", drawing.TEXT, drawing.font(24), anchor="mm"
            )

    def _moment(self, moment: ScoredFuture, top: int, start_ns: int) -> None:
        config = self.config
        observed = drawing.tile(moment.observed, self.observed_px)
        drawing.paste_framed(self.canvas, observed, (config.margin_px, top), drawing.TEXT, 2)
        seconds = (moment.future.stamp_ns - start_ns) / NANOSECONDS
        below = (
            config.margin_px + self.observed_width // 2,
            top + self.observed_px + config.caption_px // 2 + 3,
        )
        self.pen.text(below, f"t = {seconds:.1f} s", drawing.MUTED, drawing.font(20), anchor="mm")
        lower = top + config.tile_px + config.caption_px
        self._side_label("predicted", top, drawing.PREDICTED)
        self._side_label("what really happened", lower, drawing.ACTUAL)
        for column, k in enumerate(self.steps):
            left = self._column_left(column)
            predicted = drawing.tile(moment.future.frames[k], config.tile_px)
            drawing.paste_framed(self.canvas, predicted, (left, top), drawing.PREDICTED, 3)
            drawing.paste_framed(
                self.canvas, drawing.tile(moment.actual[k], config.tile_px), (left, lower), drawing.ACTUAL, 2
            )
            self._caption(
                moment, k, left + self.tile_width // 2, top + config.tile_px + config.caption_px // 2
            )

    def _caption(self, moment: ScoredFuture, k: int, centre: int, middle: int) -> None:
        text = f"{moment.model_db[k]:.1f} dB"
        self.pen.text((centre, middle), text, drawing.PREDICTED, drawing.font(17), anchor="mm")

    def _side_label(self, text: str, top: int, colour: str) -> None:
        """Written upwards along the left edge of a row of tiles."""
        label = Image.new("RGB", (self.config.tile_px, self.config.label_px), drawing.BACKGROUND)
        middle = (label.width // 2, label.height // 2)
        ImageDraw.Draw(label).text(middle, text, colour, drawing.font(20), anchor="mm")
        left = self.grid_left - self.config.label_px - 2
        self.canvas.paste(label.transpose(Image.Transpose.ROTATE_90), (left, top))

    def _column_left(self, column: int) -> int:
        return self.grid_left + column * (self.tile_width + self.config.gap_px)
