"""Action spaces of a training that goes on from another one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from astra_ros.data.normalisation import fit_action_spec
from astra_ros.training.segments import kept_specs
from tests.unit.training.toy_data import ARM, CAR, sliding_square


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
