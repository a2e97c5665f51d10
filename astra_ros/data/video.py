"""Pictures in files: videos (H.264 written; whatever FFmpeg decodes is read), JPEG and PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from PIL import Image

from astra_ros.data.schema import EpisodeError
from astra_ros.types import ByteArray

CODEC, PIXEL_FORMAT = "h264", "yuv444p"
# Visually lossless, with chroma at full resolution: on pictures this small a quarter of it is not enough. A key frame
# every 10 frames keeps random access cheap for other programs. One thread and no macroblock tree, whose result depends on
# what was in memory before: the same frames give the same file.
_OPTIONS = {"crf": "14", "preset": "medium", "g": "10", "mbtree": "0"}
_MAX_DENOMINATOR = 1001  # 30000/1001 frames per second and the like


def encode_video(path: Path, pixels: ByteArray, fps: float) -> None:
    """Write (t, h, w, 3) uint8 RGB frames as an MP4 file."""
    rate = Fraction(fps).limit_denominator(_MAX_DENOMINATOR)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=_OPTIONS)
        stream.pix_fmt, stream.thread_count = PIXEL_FORMAT, 1
        stream.height, stream.width = pixels.shape[1:3]
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        container.mux(stream.encode(None))


def decode_video(path: Path, start_s: float = 0.0) -> Iterator[ByteArray]:
    """Frames from `start_s` on, (h, w, 3) uint8 RGB, in the order of their time. Raises EpisodeError when damaged."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            half_period = 0.5 / float(stream.average_rate or 30)
            if start_s > 0:
                container.seek(int(start_s * av.time_base))
            for frame in container.decode(stream):
                if frame.time is None or frame.time >= start_s - half_period:
                    yield cast("ByteArray", frame.to_ndarray(format="rgb24"))
    except (av.FFmpegError, IndexError) as error:
        raise EpisodeError(path, "video", "decodable frames", str(error)) from None


def read_video(path: Path) -> ByteArray:
    """All frames, (t, h, w, 3) uint8 RGB. Raises EpisodeError when the file is damaged."""
    frames = list(decode_video(path))
    if not frames:
        raise EpisodeError(path, "video", "decodable frames", "none")
    return np.stack(frames)


def decode_picture(data: bytes, where: Path | str) -> ByteArray:
    """A JPEG or PNG file's content as (h, w, 3) uint8 RGB. Raises EpisodeError with `where` when damaged."""
    try:
        return np.asarray(Image.open(io.BytesIO(data), formats=("JPEG", "PNG")).convert("RGB"), np.uint8)
    except (OSError, SyntaxError) as error:
        raise EpisodeError(where, "picture", "a JPEG or PNG file", str(error)) from None
