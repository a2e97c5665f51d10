"""The picture of a plan: observed | predicted | goal, over the same with what really happened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from astra_ros.evaluation import drawing
from astra_ros.planning.recorded import PlannedTask, PlanningTask
from astra_ros.types import ByteArray

GOAL = "#1a7f37"


@dataclass(frozen=True)
class PlanSheetConfig:
    """num_columns: horizon steps shown, the last one included."""

    num_columns: int = 4
    tile_px: int = 208
    gap_px: int = 12
    line_px: int = 34
    margin_px: int = 24


def write_plan_sheet(
    path: Path, task: PlanningTask, planned: PlannedTask, config: PlanSheetConfig = PlanSheetConfig()
) -> None:
    """Draw to a PNG; one row where the recording ends before the horizon."""
    horizon, distance = len(planned.plan), planned.final_distance
    count = min(config.num_columns, horizon)
    steps = [round((column + 1) * horizon / count) - 1 for column in range(count)]
    plan = f"plan, as predicted: goal distance {distance.plan:.3f} in the end; holding still {distance.hold_still:.3f}"
    rows = [(plan, drawing.PREDICTED, planned.predicted)]
    if planned.happened is not None:
        really = f"what really happened: {distance.happened:.3f}; its actions, as predicted {distance.recorded_actions:.3f}"
        rows.append((really, drawing.ACTUAL, planned.happened))

    titles = ["observed", *(f"+{(k + 1) * planned.step_dt:.1f} s" for k in steps), "goal"]
    height, width = task.goal.shape[:2]
    tile_width = round(width * config.tile_px / height)
    lefts = [config.margin_px + column * (tile_width + config.gap_px) for column in range(len(titles))]
    row_px = config.line_px + config.tile_px + config.gap_px
    size = (lefts[-1] + tile_width + config.margin_px, config.line_px + len(rows) * row_px + config.margin_px)
    canvas = Image.new("RGB", size, drawing.BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for left, title in zip(lefts, titles, strict=True):
        middle = (left + tile_width // 2, config.line_px // 2 + 4)
        pen.text(middle, title, drawing.TEXT, drawing.font(22), anchor="mm")
    for row, (label, colour, frames) in enumerate(rows):
        top = config.line_px + row * row_px
        pen.text((config.margin_px, top + config.line_px // 2), label, colour, drawing.font(19), anchor="lm")
        tiles: list[tuple[ByteArray, str]] = [(task.episode.pixels[task.now], drawing.TEXT)]
        tiles += [(frames[k], colour) for k in steps]
        tiles.append((task.goal, GOAL))
        for left, (frame, border) in zip(lefts, tiles, strict=True):
            picture = drawing.tile(frame, config.tile_px)
            drawing.paste_framed(canvas, picture, (left, top + config.line_px), border, 3)
    canvas.save(path, optimize=True)
