"""What a run of the node left in a bag: the camera's frames and the futures predicted from them, on one clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from astra_ros.data.bag import BagReader
from astra_ros.frames.encodings import to_rgb
from astra_ros.frames.preprocess import fit, share_of, stacked
from astra_ros.types import NANOSECONDS, ByteArray


@dataclass(frozen=True)
class Future:
    """One PredictedFuture. frames: (t, h, w, 3); frame k belongs to stamp_ns + (k + 1) * step_dt_ns.

    is_hold_still: predicted without a plan, for a robot that does not move.
    """

    stamp_ns: int
    step_dt_ns: int
    frames: ByteArray
    is_hold_still: bool
    inference_time_s: float
    model_id: str

    def stamps_ns(self) -> list[int]:
        """Stamps of the frames."""
        return [self.stamp_ns + (k + 1) * self.step_dt_ns for k in range(len(self.frames))]


class CameraTrack:
    """What the camera saw. stamps_ns: (n,) ascending; frames: (n, h, w, 3) uint8."""

    def __init__(self, stamps_ns: npt.NDArray[np.int64], frames: ByteArray) -> None:
        self.stamps_ns = stamps_ns
        self.frames = frames
        # A frame stands for an instant when it is nearer to it than half a camera period.
        self._tolerance_ns = int(np.median(np.diff(stamps_ns))) // 2 if len(stamps_ns) > 1 else 0

    def at(self, stamp_ns: int) -> ByteArray | None:
        """The (h, w, 3) frame taken at that instant; None when there was none."""
        if not len(self.stamps_ns):
            return None
        nearest = self.nearest(stamp_ns)
        if abs(int(self.stamps_ns[nearest]) - stamp_ns) > self._tolerance_ns:
            return None
        frame: ByteArray = self.frames[nearest]
        return frame

    def nearest(self, stamp_ns: int) -> int:
        """Index of the frame that was taken nearest to that instant, of a track that is not empty."""
        return int(np.argmin(np.abs(self.stamps_ns - stamp_ns)))


@dataclass(frozen=True)
class Recording:
    """The camera's frames, or those of several one below the other, at the model's size; and the futures in the order of their observations."""

    camera: CameraTrack
    futures: list[Future]


def read_recording(bag: Path, image_topics: Sequence[str], future_topic: str) -> Recording:
    """Read the pictures and PredictedFuture messages of one bag. image_topics: of the model's cameras, in its order.

    Raises BagError when a topic is missing, ValueError when nothing was predicted.
    """
    with BagReader(bag) as reader:
        futures = [_future(reader.deserialize(m)) for m in reader.messages([future_topic])]
        if not futures:
            raise ValueError(f"{bag}: no message on {future_topic}: the node predicted nothing; see its log")
        height, width = futures[0].frames.shape[1:3]
        share = share_of(height, len(image_topics)), width
        first, *others = (_track(reader, topic, share) for topic in image_topics)
    beside = [track.frames[[track.nearest(stamp) for stamp in first.stamps_ns]] for track in others]
    camera = CameraTrack(first.stamps_ns, stacked([first.frames, *beside]))
    return Recording(camera, sorted(futures, key=lambda future: future.stamp_ns))


def _track(reader: BagReader, topic: str, size: tuple[int, int]) -> CameraTrack:
    images = (reader.deserialize(message) for message in reader.messages([topic]))
    seen = sorted(
        ((_nanoseconds(image.header.stamp), fit(to_rgb(image), *size)) for image in images),
        key=lambda one: one[0],
    )
    stamps_ns = np.array([stamp for stamp, _ in seen], np.int64)
    return CameraTrack(stamps_ns, np.array([frame for _, frame in seen], np.uint8))


def _future(message: Any) -> Future:
    return Future(
        stamp_ns=_nanoseconds(message.header.stamp),
        step_dt_ns=_nanoseconds(message.step_dt),
        frames=np.stack([to_rgb(image) for image in (*message.compressed_frames, *message.frames)]),
        is_hold_still=bool(message.flags & message.FLAG_HOLD_STILL),
        inference_time_s=_nanoseconds(message.inference_time) / NANOSECONDS,
        model_id=message.model_id,
    )


def _nanoseconds(time: Any) -> int:
    return int(time.sec) * NANOSECONDS + int(time.nanosec)
