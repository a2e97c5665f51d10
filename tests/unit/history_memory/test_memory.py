"""Which frames fill which slots: the anchor, jitter, dropped frames, camera rates, resets, bounds."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.history.layout import NUM_SLOTS, slot_frames
from astra_ros.history.memory import HistoryMemory, HistorySlots
from astra_ros.types import ByteArray, FloatArray, Observation

MS = 1_000_000
STEP_MS = 200
SPAN_MS = (NUM_SLOTS - 2) * STEP_MS  # from the oldest slot after the anchor to the observation


class Encoder:
    """Encodes a frame to its number, and remembers which frames it was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, pixels: ByteArray) -> FloatArray:
        number = int(pixels[0, 0].astype(int) @ [1, 256, 65536])
        self.asked.append(number)
        return np.full((1, 1, 1), number, np.float32)


def memory(tolerance_ms: float = 60) -> HistoryMemory:
    return HistoryMemory(STEP_MS / 1000, tolerance_ms / 1000)


def observation(stamp_ms: float) -> Observation:
    """Its picture and its only joint both say the stamp."""
    number = round(stamp_ms)
    pixels = np.array([[[number % 256, number // 256 % 256, number // 65536]]], np.uint8)
    return Observation(round(stamp_ms * MS), pixels, np.array([number], np.float32))


def filled(slots: HistorySlots) -> list[int | None]:
    """Stamp in ms of the frame in each slot; None where empty."""
    return [int(x) if m else None for x, m in zip(slots.latents[:, 0, 0, 0], slots.mask, strict=True)]


def wanted_at(stamp_ms: float) -> list[float]:
    """Times in ms of the slots after the anchor."""
    return [stamp_ms - SPAN_MS + k * STEP_MS for k in range(NUM_SLOTS - 1)]


def fill(stamps_ms: list[float]) -> tuple[HistoryMemory, HistorySlots]:
    history = memory()
    for stamp in stamps_ms:
        history.push(observation(stamp))
    return history, history.slots(round(stamps_ms[-1] * MS), Encoder())


def empty(count: int) -> list[None]:
    return [None] * count


@pytest.mark.parametrize("rate_hz", [5, 10, 15, 20])
def test_the_slots_are_the_anchor_and_the_last_frames_one_step_apart(rate_hz: int) -> None:
    stamps = [1000 + k * 1000 / rate_hz for k in range(9 * rate_hz + 1)]
    _, slots = fill(stamps)
    assert filled(slots) == [1000, *wanted_at(10_000)]


@pytest.mark.parametrize("frames", [1, 2, 7, 19, 20, 60])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_robot_remembers_what_training_cut_from_recordings(frames: int, stride: int) -> None:
    """The same frames, mask and actions, for a recording of any length at once or twice the model's rate."""
    stamps = [5000 + k * STEP_MS / stride for k in range(frames)]
    _, slots = fill(stamps)
    expected, mask = slot_frames(frames - 1, stride)
    assert slots.mask.tolist() == mask.tolist()
    assert slots.actions[:, 0].tolist() == [stamps[frame] for frame in expected]
    assert [f for f in filled(slots) if f] == [
        stamps[frame] for frame, m in zip(expected, mask, strict=True) if m
    ]


def test_the_first_observation_is_anchor_and_last_at_once() -> None:
    _, slots = fill([2000])
    assert filled(slots) == [2000, *empty(NUM_SLOTS - 2), 2000]
    assert slots.actions[:, 0].tolist() == [2000.0] * NUM_SLOTS


def test_the_anchor_is_the_first_frame_for_ever() -> None:
    history, encode = memory(), Encoder()
    for k in range(1000):
        history.push(observation(1000 + k * 100))
        if k % 100 == 99:
            slots = history.slots((1000 + k * 100) * MS, encode)
            assert filled(slots)[0] == 1000
            assert slots.actions[0, 0] == 1000
    assert encode.asked.count(1000) == 1


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("rate_hz", [10, 15, 30])
def test_jitter_never_empties_a_slot_nor_fills_two_with_one_frame(rate_hz: int, seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(-9, 9, 5 * rate_hz)
    stamps = [float(round(1000 + k * 1000 / rate_hz + j)) for k, j in enumerate(jitter)]
    _, slots = fill(stamps)
    chosen = [stamp for stamp in filled(slots)[1:] if stamp is not None]
    assert len(set(chosen)) == NUM_SLOTS - 1
    allowed = 0.5 * 1000 / rate_hz + 9 if rate_hz < 30 else 0.225 * STEP_MS
    assert np.abs(np.array(chosen) - wanted_at(stamps[-1])).max() <= allowed


def test_a_dropped_frame_leaves_its_slot_empty_and_its_action_between_its_neighbours() -> None:
    stamps = [float(stamp) for stamp in range(1000, 6001, 100) if stamp != 5600]
    _, slots = fill(stamps)
    assert filled(slots)[-4:] == [5400, None, 5800, 6000]
    assert not slots.latents[-3].any()
    assert slots.actions[-4:, 0].tolist() == [5400, 5600, 5800, 6000]
    assert slots.actions.dtype == np.float32


def test_after_a_long_silence_the_robot_still_knows_where_it_began() -> None:
    """Slots of the silence are empty; their actions lead from the anchor to the frame after it."""
    history, slots = fill([1000, 1200, 61_000])
    assert len(history) == 2
    assert filled(slots) == [1000, *empty(NUM_SLOTS - 2), 61_000]
    np.testing.assert_allclose(slots.actions[1:, 0], wanted_at(61_000), rtol=1e-6)


def test_tolerance_is_inclusive() -> None:
    assert filled(fill([1000, 1740, 2000])[1])[-2] == 1740
    assert filled(fill([1000, 1739, 2000])[1])[-2] is None


def test_a_frame_is_encoded_once() -> None:
    history, encode = memory(), Encoder()
    for stamp in range(0, 6001, 100):
        history.push(observation(stamp))
        history.slots(stamp * MS, encode)
    assert sorted(encode.asked) == list(range(0, 6001, 100))


def test_only_frames_in_slots_are_encoded() -> None:
    history, encode = memory(), Encoder()
    for stamp in range(0, 5001, 100):
        history.push(observation(stamp))
    history.slots(5000 * MS, encode)
    assert sorted(encode.asked) == sorted([0, *map(int, wanted_at(5000))])


@pytest.mark.parametrize(("rate_hz", "limit"), [(10, 10), (15, 15), (30, 30), (60, 40), (120, 40)])
def test_encodings_are_bounded_for_any_camera_rate(rate_hz: int, limit: int) -> None:
    """A second of predictions at 5 Hz, whenever they come: no more than a step's worth of frames beside the t0s."""
    history, encode, rng = memory(), Encoder(), np.random.default_rng(0)
    frames = 8 * rate_hz
    predicted = rng.choice(np.arange(4 * rate_hz, frames), 4 * 5, replace=False)
    for k in range(frames):
        history.push(observation(k * 1000 / rate_hz))
        if k in predicted:
            history.slots(round(k * 1000 / rate_hz * MS), encode)
    assert len(encode.asked) <= limit * frames / rate_hz


def test_what_is_remembered_does_not_depend_on_what_was_asked_before() -> None:
    """Else the same observations would not give the same prediction."""
    asked, silent = memory(), memory()
    for k in range(200):
        stamp = round(k * 1000 / 30)
        for history in (asked, silent):
            history.push(observation(stamp))
        expected = asked.slots(stamp * MS, Encoder())
    assert filled(silent.slots(stamp * MS, Encoder())) == filled(expected)


def test_an_earlier_observation_can_still_be_asked_for() -> None:
    history, _ = fill([float(stamp) for stamp in range(1000, 9001, 100)])
    assert filled(history.slots(8900 * MS, Encoder())) == [1000, *wanted_at(8900)]


def test_a_jump_backwards_forgets_everything_older() -> None:
    history, _ = fill([1400, 1600, 1800, 2000])
    history.push(observation(500))
    assert len(history) == 1
    assert filled(history.slots(500 * MS, Encoder())) == [500, *empty(NUM_SLOTS - 2), 500]


def test_the_same_stamp_twice_is_one_frame() -> None:
    history, encode = memory(), Encoder()
    for stamp in (1800, 2000, 2000):
        history.push(observation(stamp))
    history.slots(2000 * MS, encode)
    assert len(history) == 2
    assert sorted(encode.asked) == [1800, 2000]


@pytest.mark.parametrize("rate_hz", [30, 120, 1000])
def test_memory_is_bounded_for_any_camera_rate(rate_hz: int) -> None:
    history = memory()
    for k in range(6 * rate_hz):
        history.push(observation(k * 1000 / rate_hz))
        assert len(history) <= 2 * (SPAN_MS + STEP_MS + 60) / (0.3 * STEP_MS) + 3
    newest = history.newest_stamp_ns
    assert newest is not None
    chosen = history.slots(newest, Encoder()).latents[1:, 0, 0, 0]
    assert np.abs(chosen - wanted_at(newest / MS)).max() <= 0.15 * STEP_MS + 1


@pytest.mark.parametrize("rate_hz", [5, 10, 15, 25, 30])
def test_usual_cameras_give_the_slots_their_moments_whichever_frame_is_asked_for(rate_hz: int) -> None:
    """As training has them, which counts frames."""
    history = memory()
    for k in range(6 * rate_hz):
        history.push(observation(k * 1000 / rate_hz))
        if k > 5 * rate_hz:
            newest = history.newest_stamp_ns
            assert newest is not None
            chosen = history.slots(newest, Encoder()).latents[1:, 0, 0, 0]
            assert np.abs(chosen - wanted_at(newest / MS)).max() < 1


def test_reset() -> None:
    history, _ = fill([1800, 2000])
    history.reset()
    assert len(history) == 0
    assert history.newest_stamp_ns is None
    history.push(observation(3000))
    assert filled(history.slots(3000 * MS, Encoder()))[0] == 3000


def test_an_unknown_t0_is_an_error_that_names_the_newest() -> None:
    history, _ = fill([1800, 2000])
    for unknown in (1900 * MS, 2000 * MS + 1):
        with pytest.raises(LookupError, match=rf"found {unknown} \(newest: {2000 * MS}, stored: 2\)"):
            history.slots(unknown, Encoder())
    with pytest.raises(LookupError, match="newest: None, stored: 0"):
        memory().slots(0, Encoder())


@pytest.mark.parametrize("tolerance_ms", [100, -1, float("nan")])
def test_impossible_tolerances_are_refused(tolerance_ms: float) -> None:
    with pytest.raises(ValueError, match="tolerance_s: expected"):
        memory(tolerance_ms)


def test_predicted_frames_become_history_and_the_anchor_stays() -> None:
    _, slots = fill([1800, 2000])
    predicted = np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1)
    after = slots.append(predicted, np.array([[6], [7], [8], [9]], np.float32))
    assert filled(after) == [1800, *empty(NUM_SLOTS - 7), 1800, 2000, 0, 1, 2, 3]
    assert after.actions[:, 0].tolist() == [*[1800] * (NUM_SLOTS - 5), 2000, 6, 7, 8, 9]
    assert filled(slots) == [1800, *empty(NUM_SLOTS - 3), 1800, 2000]


def test_after_a_hundred_predicted_frames_only_the_anchor_is_left_of_what_was_observed() -> None:
    _, slots = fill([1800, 2000])
    for first in range(0, 104, 8):
        frames = np.arange(first, first + 8, dtype=np.float32)
        slots = slots.append(frames.reshape(8, 1, 1, 1), frames[:, None])
    assert filled(slots) == [1800, *range(104 - (NUM_SLOTS - 1), 104)]
    assert slots.actions[:, 0].tolist() == [1800, *range(104 - (NUM_SLOTS - 1), 104)]
