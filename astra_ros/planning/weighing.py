"""A plan that somebody would carry out and that ends near the goal: proposals, judged by both.

A model of what pictures follow is wrong about some plans that nobody ever carried out, and the nearer to the goal it believes one of
many, the likelier that is one of these. How likely a driver would go that way speaks against them.
"""

from __future__ import annotations

import numpy as np

from astra_ros.planning.sampling import Costs, Planned, evaluated
from astra_ros.rollout.proposals import Proposed


def weigh(costs: Costs, proposed: Proposed) -> Planned:
    """The proposal whose cost, divided by its probability, is least.

    Raises ValueError for none, and for a cost below 0: costs are distances, and a negative one would be the better the less likely.
    """
    if not len(proposed.plans):
        raise ValueError(
            "proposals: expected one or more, found none; ask for some (count), or search with planning.cem"
        )
    found = evaluated(costs, proposed.plans)
    if (least := np.nanmin(found, initial=0.0)) < 0:
        raise ValueError(
            f"costs: expected distances, 0 or more, found {least:g}; shift those of your goal distance, or search with planning.cem"
        )
    # Logarithms: a probability may be too small to divide by.
    with np.errstate(divide="ignore"):
        best = int(np.argmin(np.log(found) - np.log(proposed.probabilities)))
    return Planned(proposed.plans[best].copy(), float(found[best]), (float(found[best]),))
