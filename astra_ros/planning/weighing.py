"""A plan that somebody would carry out and that ends near the goal: proposals, judged by both.

A model of what pictures follow is wrong about some plans that nobody ever carried out, and the nearer to the goal it believes one of
many, the likelier that is one of these. How likely a driver would go that way speaks against them.
"""

from __future__ import annotations

import numpy as np

from astra_ros.planning.sampling import Costs, Planned, evaluated
from astra_ros.rollout.proposals import Proposed


def weigh(costs: Costs, proposed: Proposed) -> Planned:
    """The proposal whose cost, divided by its probability, is least. Costs are distances, 0 or more. Raises ValueError for none."""
    if not len(proposed.plans):
        raise ValueError(
            "proposals: expected one or more, found none; ask for some (count), or search with planning.cem"
        )
    found = evaluated(costs, proposed.plans)
    # Logarithms: a probability may be too small to divide by.
    with np.errstate(divide="ignore"):
        best = int(np.argmin(np.log(found) - np.log(proposed.probabilities)))
    return Planned(proposed.plans[best].copy(), float(found[best]), (float(found[best]),))
