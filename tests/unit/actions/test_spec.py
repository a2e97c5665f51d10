"""The action contract."""

import json
from dataclasses import replace

import numpy as np
import pytest

from astra_ros.actions.spec import ActionSpec

SPEC = ActionSpec(
    space="arm of two joints",
    modality="arm",
    representation="joint_position",
    names=("a", "b"),
    units=("rad", "m"),
    step_dt=0.2,
    mean=(1.0, 0.0),
    std=(2.0, 1.0),
    delta_std=(0.5, 1.0),
    lower=(-1.0, -1.0),
    upper=(3.0, 1.0),
)


def test_features_are_positions_changes_and_the_past_bit() -> None:
    positions = np.array([[2.0, 0.0], [3.0, 1.0]], np.float32)
    features = SPEC.features(positions, np.array([1.0, 0.0], np.float32), is_past=False)
    expected = [[0.5, 0.0, 2.0, 0.0, 2.0, 0.0, 0.0], [1.0, 1.0, 2.0, 1.0, 4.0, 1.0, 0.0]]
    assert (
        features.tolist() == expected
    )  # position, change since the frame before, change since `previous`, bit
    assert features.dtype == np.float32
    assert features.shape[1] == SPEC.num_features
    assert SPEC.features(positions, positions[0], is_past=True)[:, -1].tolist() == [1.0, 1.0]


def test_clip_limits_to_the_trained_range() -> None:
    assert SPEC.clip(np.array([[9.0, -9.0]], np.float32)).tolist() == [[3.0, -1.0]]


def test_it_survives_json() -> None:
    assert ActionSpec.from_json(json.loads(json.dumps(SPEC.to_json()))) == SPEC


@pytest.mark.parametrize("field", ["units", "mean", "std", "delta_std", "lower", "upper"])
def test_a_list_of_another_length_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=rf"action\.{field}: expected 2 entries .*found 1"):
        ActionSpec.from_json({**SPEC.to_json(), field: (1.0,)})


def test_a_name_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"action\.names: expected every name once, found a, a"):
        replace(SPEC, names=("a", "a"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"lower": (0.0, 3.0), "upper": (1.0, 2.0)},
            r"lower: b: expected at most its upper 2\.0, found 3\.0",
        ),
        ({"lower": (0.0, float("nan"))}, "lower: b: expected at most its upper"),
        ({"std": (1.0, 0.0)}, r"std: expected more than 0 everywhere, found \(1\.0, 0\.0\)"),
        ({"delta_std": (-1.0, 1.0)}, "delta_std: expected more than 0 everywhere"),
    ],
)
def test_ranges_that_are_none_are_refused(change: dict[str, tuple[float, ...]], message: str) -> None:
    """With a lower limit above the upper one every plan would become the upper one."""
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **change)  # type: ignore[arg-type]


def test_a_joint_that_never_moved_has_a_range() -> None:
    assert replace(SPEC, lower=(0.0, 2.0), upper=(1.0, 2.0)).clip(np.array([5.0, 5.0])).tolist() == [1.0, 2.0]


def test_a_step_without_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="step_dt: expected seconds > 0, found 0"):
        replace(SPEC, step_dt=0)


@pytest.mark.parametrize("field", ["modality", "representation"])
def test_an_unknown_kind_is_refused_with_the_known_ones(field: str) -> None:
    with pytest.raises(ValueError, match=rf"action\.{field}: expected one of .*found 'wings'"):
        ActionSpec.from_json({**SPEC.to_json(), field: "wings"})
