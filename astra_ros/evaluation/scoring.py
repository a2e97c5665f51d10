"""Every prediction of a recording beside what really happened, and beside repeating the last frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from astra_ros.evaluation.metrics import psnr
from astra_ros.evaluation.recording import CameraTrack, Future, Recording
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray


@dataclass(frozen=True)
class ScoredFuture:
    """A future next to what happened.

    observed: (h, w, 3) frame at t0. actual: (t, h, w, 3) frames at the futures' stamps.
    model_db, copy_db: (t,) PSNR of the prediction, and of `observed` taken as the prediction.
    """

    future: Future
    observed: ByteArray
    actual: ByteArray
    model_db: FloatArray
    copy_db: FloatArray


@dataclass(frozen=True)
class StepQuality:
    """Mean PSNR at one horizon step over the predictions that could be compared."""

    seconds: float
    model_db: float
    copy_db: float
    count: int

    @property
    def gain_db(self) -> float:
        return self.model_db - self.copy_db


def score(recording: Recording) -> list[ScoredFuture]:
    """Every future whose observation and first step the camera saw, cut to the frames that it saw without a gap."""
    scored = (_score(future, recording.camera) for future in recording.futures)
    return [s for s in scored if s is not None]


def quality_by_step(scored: list[ScoredFuture]) -> list[StepQuality]:
    """One row per horizon step that any scored future reaches."""
    longest = max((len(s.actual) for s in scored), default=0)
    return [_step_quality([s for s in scored if len(s.actual) > k], k) for k in range(longest)]


def _score(future: Future, camera: CameraTrack) -> ScoredFuture | None:
    observed = camera.at(future.stamp_ns)
    seen: list[ByteArray] = []
    for stamp_ns in future.stamps_ns():
        frame = camera.at(stamp_ns)
        if frame is None:
            break
        seen.append(frame)
    if observed is None or not seen:
        return None
    actual = np.stack(seen)
    model_db = psnr(future.frames[: len(seen)], actual)
    copy_db = psnr(np.broadcast_to(observed, actual.shape), actual)
    return ScoredFuture(future, observed, actual, model_db, copy_db)


def _step_quality(scored: list[ScoredFuture], k: int) -> StepQuality:
    return StepQuality(
        seconds=(k + 1) * scored[0].future.step_dt_ns / NANOSECONDS,
        model_db=float(np.mean([s.model_db[k] for s in scored])),
        copy_db=float(np.mean([s.copy_db[k] for s in scored])),
        count=len(scored),
    )
