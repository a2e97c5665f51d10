"""A near and likely proposal."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.planning.weighing import weigh
from astra_ros.rollout.proposals import Proposed

PLANS = np.arange(4, dtype=np.float32).reshape(4, 1, 1)


def proposed(*probabilities: float) -> Proposed:
    return Proposed(PLANS[: len(probabilities)], np.array(probabilities, np.float32))


@pytest.mark.parametrize(
    ("probabilities", "costs", "best"),
    [
        ((0.25, 0.25, 0.25, 0.25), (3.0, 1.0, 2.0, 4.0), 1),  # equally likely: the nearest
        ((0.6, 0.2, 0.1, 0.1), (1.0, 1.0, 1.0, 1.0), 0),  # equally near: the likeliest
        ((0.6, 0.3, 0.09, 0.01), (1.0, 0.8, 0.5, 0.1), 0),
        ((0.6, 0.3, 0.09, 0.01), (1.0, 0.4, 0.5, 0.1), 1),
        ((0.9, 0.1, 0.0, 0.0), (1.0, 0.5, 0.1, 0.1), 0),  # what nobody would do
        ((0.5, 0.5, 0.0, 0.0), (1.0, 0.0, 0.5, 0.5), 1),  # there
        ((0.9, 0.1, 0.0, 0.0), (np.nan, 5.0, 1.0, 1.0), 1),  # not evaluated
    ],
)
def test_distance_and_probability_count(
    probabilities: tuple[float, ...], costs: tuple[float, ...], best: int
) -> None:
    found = weigh(lambda _plans: np.array(costs, np.float32), proposed(*probabilities))
    np.testing.assert_array_equal(found.plan, PLANS[best])
    assert found.cost == found.history[-1] == np.float32(costs[best])


def test_nothing_cannot_be_weighed() -> None:
    with pytest.raises(ValueError, match=r"proposals: expected one or more, found none; .* planning\.cem"):
        weigh(lambda plans: np.zeros(len(plans), np.float32), proposed())


def test_costs_that_are_no_distances_are_refused() -> None:
    """Divided by its probability, a negative one would be the better the less likely."""
    with pytest.raises(ValueError, match=r"costs: expected distances, 0 or more, found -0\.5"):
        weigh(lambda _plans: np.array([0.1, -0.5, np.nan], np.float32), proposed(0.5, 0.3, 0.2))
