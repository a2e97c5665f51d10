"""Action spaces of a training that goes on from another one, and datasets as sources of segments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.lerobot import Dataset
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.segments import SegmentConfig
from astra_ros.training.latents import EncodedSet
from astra_ros.training.mix import TrainingSet
from astra_ros.training.segments import fit_specs, kept_specs, segment_sampler
from tests.unit.training.toy_data import ARM, CAR, sliding_square, write_toy_data


def test_a_known_space_keeps_its_normalisation_and_its_range_covers_the_new_data() -> None:
    before, car = (fit_action_spec([sliding_square(schema, 0)], schema, 0.2) for schema in (ARM, CAR))
    recorded = sliding_square(ARM, 1)
    farther = replace(recorded, measured=recorded.measured + 60, commanded=recorded.commanded + 60)
    fitted = fit_action_spec([farther], ARM, 0.2)
    kept = kept_specs({ARM.space: fitted, CAR.space: car}, {ARM.space: before})
    arm = kept[ARM.space]
    assert (arm.mean, arm.std, arm.delta_std) == (before.mean, before.std, before.delta_std)
    assert (arm.lower[0], arm.upper[0]) == (before.lower[0], fitted.upper[0])
    assert fitted.lower[0] > before.lower[0]
    rows = farther.commanded
    np.testing.assert_array_equal(arm.clip(rows), rows)
    assert kept[CAR.space] == car
    assert list(kept) == [ARM.space, CAR.space]


def test_a_dataset_too_short_for_a_chunk_is_refused(tmp_path: Path) -> None:
    """It would never be drawn, whatever its weight."""
    write_toy_data(tmp_path)

    def encoded(space: str, num_frames: int) -> EncodedSet:
        schema = ARM if space == "toy_arm" else CAR
        source = TrainingSet(Dataset.open(tmp_path / space), ("episode_000",), (), 1.0)
        latents = np.zeros((num_frames, 1, 2, 2), np.float16)
        return EncodedSet(source, [(sliding_square(schema, 0, num_frames), latents)], [])

    sets = [encoded("toy_arm", 30), encoded("toy_car", 7)]
    with pytest.raises(
        ValueError, match=r"toy_car: expected an episode of 1\.6 s, .*found 1\.2 s; leave it out"
    ):
        segment_sampler(sets, fit_specs(sets, 0.2), SegmentConfig(chunk_len=8))
