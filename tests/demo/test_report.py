"""Futures against what happened: which frames are compared, and what the pictures show."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from astra_ros.evaluation.contact_sheet import SheetConfig, choose_moments, write_contact_sheet
from astra_ros.evaluation.metrics import percentiles
from astra_ros.evaluation.recording import CameraTrack, Future, Recording
from astra_ros.evaluation.report import Report
from astra_ros.evaluation.scoring import ScoredFuture, quality_by_step, score
from astra_ros.evaluation.video import VideoConfig, write_video
from astra_ros.types import ByteArray

PERIOD_NS, STEP_NS = 100_000_000, 200_000_000
SIZE = 32


def _grey(value: float) -> ByteArray:
    return np.full((SIZE, SIZE, 3), round(value), np.uint8)


def _camera(count: int) -> CameraTrack:
    """Frame i is taken at i * 0.1 s and is i grey levels bright."""
    return CameraTrack(np.arange(count) * PERIOD_NS, np.stack([_grey(i) for i in range(count)]))


def _future(start: int, horizon: int, error: float = 0.0, step_ns: int = STEP_NS) -> Future:
    """Predicts the brightness of `_camera` from frame `start`, `error` too bright."""
    per_step = step_ns // PERIOD_NS
    frames = np.stack([_grey(start + per_step * (k + 1) + error) for k in range(horizon)])
    return Future(
        start * PERIOD_NS, step_ns, frames, is_hold_still=False, inference_time_s=0.01, model_id="m"
    )


def test_frames_are_compared_with_those_of_their_own_time() -> None:
    (scored,) = score(Recording(_camera(30), [_future(start=4, horizon=5, error=3.0)]))
    np.testing.assert_array_equal(scored.actual[:, 0, 0, 0], [6, 8, 10, 12, 14])
    np.testing.assert_allclose(scored.model_db, 20 * np.log10(255 / 3), atol=1e-4)
    np.testing.assert_allclose(scored.copy_db, 20 * np.log10(255 / np.array([2, 4, 6, 8, 10])), atol=1e-4)


def test_quality_counts_only_what_the_camera_saw() -> None:
    recording = Recording(
        _camera(12), [_future(0, 5, error=1), _future(6, 5, error=2), _future(11, 5), _future(40, 5)]
    )
    steps = quality_by_step(score(recording))
    assert [(step.seconds, step.count) for step in steps] == [
        (0.2, 2),
        (0.4, 2),
        (0.6, 1),
        (0.8, 1),
        (1.0, 1),
    ]
    expected = (20 * np.log10(255 / 1) + 20 * np.log10(255 / 2)) / 2
    assert steps[0].model_db == pytest.approx(expected, abs=1e-4)
    assert steps[0].gain_db == pytest.approx(expected - 20 * np.log10(255 / 2), abs=1e-4)


def test_a_gap_in_the_video_ends_the_comparison() -> None:
    camera = _camera(30)
    seen = np.delete(np.arange(30), [8])
    (scored,) = score(Recording(CameraTrack(camera.stamps_ns[seen], camera.frames[seen]), [_future(2, 5)]))
    assert len(scored.actual) == 2  # frames 4 and 6


@pytest.mark.parametrize(
    ("at_ms", "frame"), [(200, 2), (249, 2), (251, None), (440, None), (451, 3), (599, 4)]
)
def test_a_frame_stands_for_half_a_period_around_it(at_ms: int, frame: int | None) -> None:
    stamps_ns = np.array([0, 100, 200, 500, 600]) * 1_000_000
    seen = CameraTrack(stamps_ns, np.stack([_grey(i) for i in range(5)])).at(at_ms * 1_000_000)
    assert (None if seen is None else int(seen[0, 0, 0])) == frame


def test_an_empty_camera_saw_nothing() -> None:
    assert CameraTrack(np.zeros(0, np.int64), np.zeros((0, SIZE, SIZE, 3), np.uint8)).at(0) is None


def _scored(count: int = 60, horizon: int = 10) -> list[ScoredFuture]:
    return score(Recording(_camera(count), [_future(i, horizon) for i in range(count)]))


def test_moments_have_motion_and_are_apart() -> None:
    frames = np.stack([_grey(0 if i < 30 else 4 * (i - 30)) for i in range(60)])  # still, then ever brighter
    camera = CameraTrack(np.arange(60) * PERIOD_NS, frames)
    moments = choose_moments(
        score(Recording(camera, [_future(i, 5) for i in range(60)])), count=2, apart_s=1.0
    )
    starts = [moment.future.stamp_ns / 1e9 for moment in moments]
    assert starts == sorted(starts)
    assert starts[0] >= 2.5
    assert starts[1] - starts[0] >= 1.0


def test_contact_sheet_shows_each_frame_in_its_place(tmp_path: Path) -> None:
    config = SheetConfig(num_moments=1, num_columns=5, tile_px=40)
    scored = _scored(count=31, horizon=10)
    (moment,) = choose_moments(scored, 1)
    write_contact_sheet(tmp_path / "sheet.png", scored, "title", "subtitle", config)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    start = moment.future.stamp_ns // PERIOD_NS
    shown = [start, *(start + 2 * (k + 1) for k in (1, 3, 5, 7, 9))]
    for value in shown:
        area = int((sheet == value).all(axis=2).sum())
        assert area >= 0.9 * 40 * 40, f"frame {value} covers {area} pixels"


def test_what_is_said_above_narrow_pictures_is_not_cut_off(tmp_path: Path) -> None:
    """Of several cameras, one below the other."""
    told = "150 predictions on a recording · PSNR at +1.0 s: 17.6 dB, repeating the observed frame 16.2 dB"
    config = SheetConfig(num_moments=1, num_columns=5, tile_px=90)
    write_contact_sheet(tmp_path / "sheet.png", _scored(count=31, horizon=10), "title", told, config)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png")).astype(int)
    margin = sheet[: config.margin_px + 90, -config.margin_px // 2 :]
    assert np.ptp(margin) == 0, "nothing is written into the margin"


def test_contact_sheet_needs_something_to_show(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="play a longer recording"):
        write_contact_sheet(tmp_path / "sheet.png", [], "title", "subtitle", SheetConfig())


def test_video_plays_in_browsers_and_in_real_time(tmp_path: Path) -> None:
    scored = _scored(count=60, horizon=10)
    write_video(tmp_path / "demo.mp4", scored, VideoConfig(fps=10, panel_px=96))
    with av.open(str(tmp_path / "demo.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 10)
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert pictures[0].shape[0] % 2 == pictures[0].shape[1] % 2 == 0
    # Predictions 1 s ahead exist for frames 10 … 59.
    assert len(pictures) == 50
    middle = 56 + 48  # below the header, inside the panels
    left, predicted, actual = (
        int(pictures[20][middle, x].mean()) for x in (16 + 48, 2 * 16 + 144, 3 * 16 + 240)
    )
    assert (left, predicted, actual) == pytest.approx((20, 30, 30), abs=3)


def test_video_of_a_short_horizon_looks_as_far_as_it_goes(tmp_path: Path) -> None:
    write_video(tmp_path / "demo.mp4", _scored(count=12, horizon=2), VideoConfig(fps=10, panel_px=96))
    with av.open(str(tmp_path / "demo.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8  # frames 4 … 11


def test_report_tells_drops_and_gains() -> None:
    report = Report(
        model_id="m",
        bag="b",
        rate=1.0,
        predictions=3,
        predictions_without_plan=1,
        drops={"stale": 2, "bad_image": 0},
        latency_ms=percentiles([10.0, 20.0]),
        inference_ms=percentiles([5.0]),
        psnr=tuple(quality_by_step(_scored())),
    )
    table = report.table()
    assert "2: stale 2" in table
    assert "bad_image" not in table
    assert "+1.0 s" in table
    nearest = report.at(1.0)
    assert nearest is not None
    assert nearest.seconds == pytest.approx(1.0)
    assert report.to_json()["psnr"][0]["gain_db"] == pytest.approx(report.psnr[0].gain_db)
    assert report.to_json()["machine"]["cores"] >= 1
