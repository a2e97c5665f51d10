"""Which frames fill which slots: jitter, dropped frames, camera rates, resets, bounds."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.history.memory import HistoryMemory, HistorySlots
from astra_ros.types import ByteArray, FloatArray, Observation

MS = 1_000_000
STEP_MS = 200


class Encoder:
    """Encodes a frame to its number, and remembers which frames it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, pixels: ByteArray) -> FloatArray:
        number = int(pixels[0, 0].astype(int) @ [1, 256, 65536])
        self.asked.append(number)
        return np.full((1, 1, 1), number, np.float32)


def memory(num_slots: int = 4, tolerance_ms: float = 60) -> HistoryMemory:
    return HistoryMemory(num_slots, STEP_MS / 1000, tolerance_ms / 1000)


def observation(stamp_ms: float) -> Observation:
    """Its picture and its only joint both say the stamp."""
    number = round(stamp_ms)
    pixels = np.array([[[number % 256, number // 256 % 256, number // 65536]]], np.uint8)
    return Observation(round(stamp_ms * MS), pixels, np.array([number], np.float32))


def filled(slots: HistorySlots) -> list[int | None]:
    """Stamp in ms of the frame in each slot; None where empty."""
    return [int(x) if m else None for x, m in zip(slots.latents[:, 0, 0, 0], slots.mask, strict=True)]


def fill(stamps_ms: list[float], **sizes: float) -> tuple[HistoryMemory, HistorySlots]:
    history = memory(**sizes)  # type: ignore[arg-type]
    for stamp in stamps_ms:
        history.push(observation(stamp))
    return history, history.slots(round(stamps_ms[-1] * MS), Encoder())


@pytest.mark.parametrize(
    ("rate_hz", "expected"),
    [
        (5, [1400, 1600, 1800, 2000]),
        (10, [1400, 1600, 1800, 2000]),
        (15, [1400, 1600, 1800, 2000]),
        (30, [1400, 1600, 1800, 2000]),
        (12, [1417, 1583, 1833, 2000]),  # no frame on the slot's time: the nearest one
    ],
)
def test_camera_rates(rate_hz: int, expected: list[int]) -> None:
    stamps = [2000 - k * 1000 / rate_hz for k in reversed(range(2 * rate_hz))]
    _, slots = fill(stamps)
    assert filled(slots) == expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("rate_hz", [10, 15, 30])
def test_jitter_never_empties_a_slot_nor_fills_two_with_one_frame(rate_hz: int, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(-9, 9, 3 * rate_hz)
    stamps = [float(round(1000 + k * 1000 / rate_hz + j)) for k, j in enumerate(jitter)]
    _, slots = fill(stamps)
    chosen = filled(slots)
    assert None not in chosen
    assert len(set(chosen)) == 4
    wanted = [stamps[-1] - k * STEP_MS for k in (3, 2, 1, 0)]
    nearest = [min(stamps, key=lambda stamp, want=want: abs(stamp - want)) for want in wanted]  # type: ignore[misc]
    assert chosen == nearest


def test_a_dropped_frame_leaves_its_slot_empty() -> None:
    stamps = [float(stamp) for stamp in range(1000, 2001, 100) if stamp != 1600]
    _, slots = fill(stamps)
    assert filled(slots) == [1400, None, 1800, 2000]


def test_tolerance_is_inclusive() -> None:
    assert filled(fill([1740, 2000])[1])[2] == 1740
    assert filled(fill([1739, 2000])[1])[2] is None


def test_start_of_a_memory() -> None:
    _, slots = fill([1800, 2000])
    assert filled(slots) == [None, None, 1800, 2000]
    assert slots.mask.tolist() == [0, 0, 1, 1]
    assert not slots.latents[:2].any()
    assert slots.positions[:, 0].tolist() == [1800, 1800, 1800, 2000]


def test_positions_are_interpolated_in_a_gap() -> None:
    _, slots = fill([1400, 1800, 2000])
    assert slots.positions[:, 0].tolist() == [1400, 1600, 1800, 2000]
    assert slots.positions.dtype == np.float32


def test_a_frame_is_encoded_once() -> None:
    history, encode = memory(), Encoder()
    for stamp in range(0, 3001, 100):
        history.push(observation(stamp))
        if stamp >= 600:
            history.slots(stamp * MS, encode)
    assert sorted(encode.asked) == list(range(0, 3001, 100))


def test_only_frames_in_slots_are_encoded() -> None:
    history, encode = memory(), Encoder()
    for stamp in range(0, 1001, 50):
        history.push(observation(stamp))
    history.slots(1000 * MS, encode)
    assert sorted(encode.asked) == [400, 600, 800, 1000]


def test_an_earlier_observation_can_still_be_asked_for() -> None:
    history, _ = fill([1200, 1300, 1400, 1500, 1600, 1700, 1800, 1900, 2000])
    assert filled(history.slots(1900 * MS, Encoder())) == [1300, 1500, 1700, 1900]


def test_a_jump_backwards_forgets_everything_older() -> None:
    history, _ = fill([1400, 1600, 1800, 2000])
    history.push(observation(500))
    assert len(history) == 1
    assert filled(history.slots(500 * MS, Encoder())) == [None, None, None, 500]


def test_a_jump_forwards_keeps_nothing_that_is_too_old() -> None:
    history, _ = fill([1400, 1600, 1800, 2000])
    history.push(observation(60_000))
    assert len(history) == 1


def test_the_same_stamp_twice_is_one_frame() -> None:
    history, encode = memory(), Encoder()
    for stamp in (1800, 2000, 2000):
        history.push(observation(stamp))
    history.slots(2000 * MS, encode)
    assert len(history) == 2
    assert encode.asked == [2000, 1800]


@pytest.mark.parametrize("rate_hz", [30, 120, 1000])
def test_memory_is_bounded_for_any_camera_rate(rate_hz: int) -> None:
    history = memory()
    for k in range(5 * rate_hz):
        history.push(observation(k * 1000 / rate_hz))
        assert len(history) <= 2 * (4 * STEP_MS + 60) / (0.1 * STEP_MS) + 2
    newest = history.newest_stamp_ns
    assert newest is not None
    slots = history.slots(newest, Encoder())
    wanted = [newest / MS - k * STEP_MS for k in (3, 2, 1, 0)]
    assert np.abs(slots.latents[:, 0, 0, 0] - wanted).max() <= 0.1 * STEP_MS


def test_reset() -> None:
    history, _ = fill([1800, 2000])
    history.reset()
    assert len(history) == 0
    assert history.newest_stamp_ns is None


def test_an_unknown_t0_is_an_error_that_names_the_newest() -> None:
    history, _ = fill([1800, 2000])
    for unknown in (1900 * MS, 2000 * MS + 1):
        with pytest.raises(LookupError, match=rf"found {unknown} \(newest: {2000 * MS}, stored: 2\)"):
            history.slots(unknown, Encoder())
    with pytest.raises(LookupError, match="newest: None, stored: 0"):
        memory().slots(0, Encoder())


@pytest.mark.parametrize(("num_slots", "tolerance_ms"), [(0, 60), (4, 100), (4, -1), (4, float("nan"))])
def test_impossible_sizes_are_refused(num_slots: int, tolerance_ms: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        memory(num_slots, tolerance_ms)


def test_predicted_frames_become_history() -> None:
    _, slots = fill([1800, 2000])
    predicted = np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1)
    after = slots.append(predicted, np.array([[7], [8]], np.float32))
    assert after.latents[:, 0, 0, 0].tolist() == [1800, 2000, 0, 1]
    assert after.positions[:, 0].tolist() == [1800, 2000, 7, 8]
    assert after.mask.tolist() == [1, 1, 1, 1]
    assert filled(slots) == [None, None, 1800, 2000]


def test_a_chunk_longer_than_the_history() -> None:
    _, slots = fill([1800, 2000])
    after = slots.append(np.ones((6, 1, 1, 1), np.float32), np.arange(6, dtype=np.float32)[:, None])
    assert after.positions[:, 0].tolist() == [2, 3, 4, 5]
    assert after.latents.shape == (4, 1, 1, 1)
