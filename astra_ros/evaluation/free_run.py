"""A rollout of minutes on real, repeated actions: does the picture stay a picture of this world?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from astra_ros.actions.spec import ActionSpec
from astra_ros.evaluation import drawing
from astra_ros.evaluation.metrics import colour, sharpness
from astra_ros.evaluation.movements import opposite
from astra_ros.evaluation.scenes import HeldOutData, Predictor, Sampling, UnsuitableDataError
from astra_ros.types import ByteArray, FloatArray

# How far the colours may leave what the real frames span: grey levels of the mean, shares of the standard deviation.
MEAN_MARGIN = 16.0
CONTRAST_MARGIN = (0.5, 1.5)


@dataclass(frozen=True)
class Colours:
    """Mean colour and standard deviation of a frame, grey levels, per channel; sharpness: energy of the Laplacian."""

    seconds: float
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    sharpness: float


@dataclass(frozen=True)
class FreeRun:
    """What became of a long rollout.

    finite: no NaN or infinity. in_colour: at every shown time the mean colour lay within MEAN_MARGIN of what the real
    frames span, and the contrast within CONTRAST_MARGIN of theirs. real_sharpness: median of the real frames.
    """

    seconds: float
    finite: bool
    in_colour: bool
    real_sharpness: float
    shown: tuple[Colours, ...]


def looped(spec: ActionSpec, rows: FloatArray, length: int) -> FloatArray:
    """Recorded per-step actions (t, a) made `length` steps long without a jump.

    Rates repeat. What adds up goes there and back: joint positions in reverse order, camera steps undone one by one.
    """
    if spec.representation != "rate":
        undone = rows if spec.representation == "joint_position" else opposite(spec, rows[None], rows[:1])[0]
        rows = np.concatenate([rows, undone[::-1]])
    return np.tile(rows, (-(-length // len(rows)), 1))[:length]


def free_run(
    model: Predictor, data: HeldOutData, seconds: float, every_s: float, seed: int
) -> tuple[FreeRun, ByteArray]:
    """Roll out from the start of the longest recording. Returns the verdict, and observed and shown frames (n, h, w, 3)."""
    steps, every = (max(1, round(length * data.second)) for length in (seconds, every_s))
    index = int(np.argmax([len(episode.pixels) for episode in data.episodes]))
    longest = replace(data, episodes=(data.episodes[index],), latents=(data.latents[index],))
    if not longest.longest_horizon():
        raise UnsuitableDataError(f"{data.name}: expected a recording longer than a second, found none")
    scenes = longest.scenes(longest.longest_horizon(), 1)
    plan = looped(data.spec, scenes.plan[0], steps)[None]
    marks = tuple(range(every - 1, steps, every))
    real = np.concatenate([episode.pixels for episode in data.episodes])
    try:
        frames = model.predict(scenes, plan, Sampling(seed, frames=marks))[0]
    except FloatingPointError:
        frames = scenes.observed[:0]
    finite = len(frames) > 0
    run = FreeRun(
        seconds=seconds,
        finite=finite,
        in_colour=finite and within(frames, real),
        real_sharpness=round(float(np.median(sharpness(real))), 2),
        shown=_colours(frames, [(mark + 1) / data.second for mark in marks[: len(frames)]]),
    )
    return run, np.concatenate([scenes.observed, frames])


def within(frames: ByteArray, real: ByteArray) -> bool:
    """Whether the colours of all frames (n, h, w, 3) stay with those of the real ones (m, h, w, 3)."""
    (mean, spread), (real_mean, real_spread) = colour(frames), colour(real)
    low, high = real_mean.min(axis=0) - MEAN_MARGIN, real_mean.max(axis=0) + MEAN_MARGIN
    flat, glaring = CONTRAST_MARGIN[0] * real_spread.min(axis=0), CONTRAST_MARGIN[1] * real_spread.max(axis=0)
    return bool(((mean >= low) & (mean <= high) & (spread >= flat) & (spread <= glaring)).all())


def save_minutes(rows: dict[str, ByteArray], every_s: float, path: Path, tile_px: int = 128) -> None:
    """One row per dataset, below its name: the observed frame, then the shown ones."""
    line, gap = 18, 4
    label = 2 * line + gap
    count = max(len(frames) for frames in rows.values())
    widths = [drawing.tile(frames[0], tile_px).width for frames in rows.values()]
    canvas = Image.new(
        "RGB",
        (count * (max(widths) + gap) + gap, len(rows) * (tile_px + label + gap) + gap),
        drawing.BACKGROUND,
    )
    pen = ImageDraw.Draw(canvas)
    for row, (name, frames) in enumerate(rows.items()):
        top = gap + row * (tile_px + label + gap)
        pen.text((gap, top), name, drawing.TEXT, drawing.font(15))
        for column, frame in enumerate(frames):
            left = gap + column * (widths[row] + gap)
            text = "observed" if column == 0 else f"{column * every_s / 60:g} min"
            pen.text((left, top + line), text, drawing.TEXT, drawing.font(15))
            canvas.paste(drawing.tile(frame, tile_px), (left, top + label))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path, optimize=True)


def _colours(frames: ByteArray, seconds: Sequence[float]) -> tuple[Colours, ...]:
    mean, spread = (np.round(values, 1).tolist() for values in colour(frames))
    sharp = np.round(sharpness(frames), 2).tolist()
    return tuple(
        Colours(s, tuple(m), tuple(d), e) for s, m, d, e in zip(seconds, mean, spread, sharp, strict=True)
    )
