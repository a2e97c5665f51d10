"""The film of a run: what the node saw | what it predicted for one second later | what really happened then."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from astra_ros.evaluation import drawing
from astra_ros.evaluation.recording import Future
from astra_ros.evaluation.scoring import ScoredFuture
from astra_ros.types import NANOSECONDS, ByteArray


@dataclass(frozen=True)
class VideoConfig:
    """lead_s: how far ahead the shown prediction looks, or the whole horizon if that is shorter.

    fps: of the film, which plays in real time.
    """

    lead_s: float = 1.0
    fps: int = 10
    panel_px: int = 448
    gap_px: int = 16
    header_px: int = 56
    footer_px: int = 48
    crf: int = 18


@dataclass(frozen=True)
class _Moment:
    """One picture of the film; the three frames belong together."""

    seconds: float
    lead_s: float
    observed: ByteArray
    predicted: ByteArray
    actual: ByteArray
    model_db: float
    copy_db: float


def write_video(path: Path, scored: list[ScoredFuture], config: VideoConfig) -> None:
    """Write an H.264 MP4 that browsers play. Raises ValueError when nothing can be shown."""
    moments = _moments(scored, config.lead_s)
    if not moments:
        raise ValueError(
            f"video: expected predictions {config.lead_s} s ahead, found none; play a longer recording"
        )
    pictures = (_draw(moment, config) for moment in _at_rate(moments, config.fps))
    encode(path, pictures, config.fps, config.crf)


def encode(path: Path, pictures: Iterator[ByteArray], fps: int, crf: int) -> None:
    """Write (h, w, 3) uint8 pictures of one, even size as H.264, 4:2:0, index first."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            if number == 0:  # the encoder opens with the first picture and takes no other size afterwards
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _moments(scored: list[ScoredFuture], lead_s: float) -> list[_Moment]:
    reaching = [(s, _step_at(s.future, lead_s)) for s in scored]
    start_ns = scored[0].future.stamp_ns if scored else 0
    return [
        _Moment(
            seconds=(s.future.stamps_ns()[k] - start_ns) / NANOSECONDS,
            lead_s=(k + 1) * s.future.step_dt_ns / NANOSECONDS,
            observed=s.observed,
            predicted=s.future.frames[k],
            actual=s.actual[k],
            model_db=float(s.model_db[k]),
            copy_db=float(s.copy_db[k]),
        )
        for s, k in reaching
        if k < len(s.actual)
    ]


def _step_at(future: Future, lead_s: float) -> int:
    return min(max(1, round(lead_s * NANOSECONDS / future.step_dt_ns)), len(future.frames)) - 1


def _at_rate(moments: list[_Moment], fps: int) -> Iterator[_Moment]:
    """The newest moment at each instant of the film: a prediction stays until the next one is due."""
    seconds = [moment.seconds for moment in moments]
    for tick in range(round((seconds[-1] - seconds[0]) * fps) + 1):
        yield moments[max(0, bisect_right(seconds, seconds[0] + tick / fps + 1e-6) - 1)]


def _draw(moment: _Moment, config: VideoConfig) -> ByteArray:
    labels = (
        (f"observed {moment.lead_s:.1f} s before", moment.observed, drawing.TEXT),
        (f"predicted {moment.lead_s:.1f} s ahead", moment.predicted, drawing.PREDICTED),
        ("what really happened", moment.actual, drawing.ACTUAL),
    )
    tiles = [drawing.tile(frame, config.panel_px) for _, frame, _ in labels]
    width = sum(t.width for t in tiles) + (len(tiles) + 1) * config.gap_px
    height = config.header_px + config.panel_px + config.footer_px
    canvas = Image.new("RGB", (width + width % 2, height + height % 2), drawing.BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    left = config.gap_px
    for (text, _, colour), picture in zip(labels, tiles, strict=True):
        pen.text(
            (left + picture.width // 2, config.header_px // 2), text, colour, drawing.font(26), anchor="mm"
        )
        drawing.paste_framed(canvas, picture, (left, config.header_px), colour, 3)
        left += picture.width + config.gap_px
    _footer(pen, moment, config, canvas.width)
    return np.asarray(canvas, np.uint8)


def _footer(pen: ImageDraw.ImageDraw, moment: _Moment, config: VideoConfig, width: int) -> None:
    middle = config.header_px + config.panel_px + config.footer_px // 2 + 2
    pen.text(
        (config.gap_px, middle), f"t = {moment.seconds:4.1f} s", drawing.MUTED, drawing.font(22), anchor="lm"
    )
    quality = f"PSNR {moment.model_db:.1f} dB · repeating the observed frame {moment.copy_db:.1f} dB"
    pen.text((width - config.gap_px, middle), quality, drawing.MUTED, drawing.font(22), anchor="rm")
