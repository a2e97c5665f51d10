"""The picture for people."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.ros.preview import MAX_COLUMNS, Caption, contact_sheet
from astra_ros.types import ByteArray

CAPTION = Caption(title="if the robot follows its plan", details="tiny, 80 ms", is_warning=False)


def flat(*colours: tuple[int, int, int], size: int = 32) -> ByteArray:
    return np.stack([np.full((size, size, 3), colour, np.uint8) for colour in colours])


def positions_of(sheet: ByteArray, colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Top, left and area of everything in exactly this colour."""
    rows, columns = np.nonzero((sheet == colour).all(axis=2))
    return int(rows.min()), int(columns.min()), len(rows)


def test_shows_the_observation_and_every_frame_in_order_and_enlarged() -> None:
    observed, red, green = (1, 2, 250), (250, 1, 2), (1, 250, 2)
    sheet = contact_sheet(flat(observed)[0], flat(red, green), 0.2, CAPTION, scale=2)
    found = [positions_of(sheet, colour) for colour in (observed, red, green)]
    assert [area for _, _, area in found] == [64 * 64] * 3
    assert found[0][1] < found[1][1] < found[2][1]
    assert len({top for top, _, _ in found}) == 1


@pytest.mark.parametrize(
    ("num_frames", "num_rows", "num_columns"), [(1, 1, 2), (5, 1, 6), (6, 2, 4), (10, 2, 6), (16, 3, 6)]
)
def test_cells_spread_evenly(num_frames: int, num_rows: int, num_columns: int) -> None:
    sheet = contact_sheet(flat((9, 9, 9))[0], flat(*[(9, 9, 9)] * num_frames), 0.2, CAPTION, scale=2)
    assert num_columns <= MAX_COLUMNS
    assert sheet.shape[1] // (64 + 6) == num_columns
    assert sheet.shape[0] // (64 + 20) == num_rows
    assert sheet.dtype == np.uint8


def test_holding_still_looks_different() -> None:
    frames = flat((9, 9, 9), (9, 9, 9), (9, 9, 9))
    warning = Caption(title=CAPTION.title, details=CAPTION.details, is_warning=True)
    sheets = [contact_sheet(frames[0], frames, 0.2, caption, 2) for caption in (CAPTION, warning)]
    assert not np.array_equal(sheets[0], sheets[1])
    np.testing.assert_array_equal(sheets[0][40:], sheets[1][40:])
