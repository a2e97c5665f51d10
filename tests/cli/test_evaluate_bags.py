"""`astra evaluate BUNDLE` on folders of recordings, with an untrained model. No quality is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from astra_ros.cli.main import main
from astra_ros.history.layout import NUM_SLOTS
from tests.recordings import write_pictures, write_recording

HORIZON = 3
# At 20 ticks a second, pictures at 10 Hz, steps of 0.2 s.
ENOUGH = 4 * (NUM_SLOTS + HORIZON)


def test_recordings_are_cut_where_their_camera_paused_and_bad_ones_passed_over(
    untrained_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What comes after a pause is not what came next. The camera is smaller than the model's, in another shape."""
    data = tmp_path / "bags"
    resumed = ENOUGH + 100
    write_pictures(data / "monday", [*range(0, ENOUGH, 2), *range(resumed, resumed + ENOUGH, 2)], 40)
    write_pictures(data / "slow", range(0, 60, 3), 40)
    write_recording(data / "torn", 1.0, 40)
    (storage,) = (data / "torn").glob("*.mcap")
    storage.write_bytes(storage.read_bytes()[:1000])
    file = tmp_path / "held_out.json"
    words = [
        "evaluate",
        str(untrained_bundle),
        "--data",
        str(data),
        "--horizon",
        str(HORIZON),
        "--json",
        str(file),
    ]
    assert main(words) == 0
    result = json.loads(file.read_text())
    assert result["episodes"] == ["monday_segment_00", "monday_segment_01"]
    shown = capsys.readouterr().out
    assert shown.count("skipped: ") == 2
    assert "skipped: slow: camera period 0.150 s does not divide step_dt 0.2 s" in shown
    assert f"skipped: {data}/torn: " in shown
    # Which recordings a model was trained on is known of datasets alone: what is published says so.
    unchecked = f"Not checked: whether the model was trained on the recordings in {data}, since recordings go by names"
    assert unchecked in shown
    assert unchecked in file.with_suffix(".md").read_text()
    assert result["unchecked"] == [str(data)]
