"""What a model was trained on, and what it was not."""

from __future__ import annotations

import pytest

from astra_ros.data.suitability import require_unseen, unseen, with_earlier

TOLD = {"arm": {"training": ["a", "b"], "held_out": ["c"]}}
UNTOLD = {"arm": {"held_out": ["c"]}}  # by a version that kept no names of training episodes


def test_recordings_that_came_since_are_not_seen() -> None:
    assert unseen("arm", ["a", "c", "new"], TOLD) == ("c", "new")
    require_unseen("arm", ["c", "new"], {"data": TOLD})
    with pytest.raises(ValueError, match=r"arm: expected held-out episodes .*found 1 that it was, first b"):
        require_unseen("arm", ["b", "c", "new"], {"data": TOLD})


def test_where_it_is_not_told_all_may_be_but_those_held_out() -> None:
    assert unseen("arm", ["a", "c", "new"], UNTOLD) == ("c",)
    with pytest.raises(ValueError, match="import them into a dataset of another name"):
        require_unseen("arm", ["new"], {"data": UNTOLD})


def test_another_dataset_is_not_seen() -> None:
    assert unseen("car", ["a", "b"], TOLD) == ("a", "b")


def test_what_a_model_goes_on_from_was_trained_on_is_seen() -> None:
    now = {"arm": {"weight": 1.0, "training": ["b", "d"], "held_out": ["a", "c", "new"]}}
    both = with_earlier(now, TOLD)
    assert both == {"arm": {"weight": 1.0, "training": ["a", "b", "d"], "held_out": ["c", "new"]}}
    assert unseen("arm", ["a", "c", "d", "new", "newer"], both) == ("c", "new", "newer")


def test_an_earlier_dataset_stays_known() -> None:
    assert with_earlier({}, TOLD) == {"arm": {**TOLD["arm"], "weight": 0.0}}


@pytest.mark.parametrize("told", [0, 1])
def test_one_that_does_not_tell_makes_all_of_them_careful(told: int) -> None:
    now, before = (TOLD, UNTOLD) if told == 0 else (UNTOLD, TOLD)
    both = with_earlier(now, before)
    assert "training" not in both["arm"]
    assert unseen("arm", ["a", "c", "new"], both) == ("c",)
