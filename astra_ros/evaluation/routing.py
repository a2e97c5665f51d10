"""Which expert takes which kind of action, and whether every kind takes part in keeping the experts even."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from astra_ros.types import FloatArray

# Experts' load beyond even (1 = even) that counts as uneven, and that leaving one modality out must take away.
UNEVEN = 0.15


@dataclass(frozen=True)
class Load:
    """Of one modality. share (e,): of its frames that each expert takes. entropy_bits: of `share`, 0 = one expert.

    decision_bits: mean entropy of the router's probabilities for one frame, 0 = certain. frames: counted.
    """

    share: tuple[float, ...]
    entropy_bits: float
    decision_bits: float
    frames: int


@dataclass(frozen=True)
class RoutingReport:
    """All modalities count alike.

    purity: probability that a frame's expert tells its modality, 1 = no expert is shared. chance_purity: the same if
    every modality used the experts alike. used_bits: entropy of the experts' overall load, at most log2(experts).
    imbalance: experts times the sum of squared loads, 1 = even. unbalanced: modalities that make it uneven.
    """

    loads: dict[str, Load]
    purity: float
    chance_purity: float
    used_bits: float
    imbalance: float
    unbalanced: tuple[str, ...]


def load(probabilities: FloatArray, chosen: np.ndarray) -> Load:
    """probabilities (n, e) of the router, chosen (n,) experts, of the frames of one modality."""
    share = np.bincount(chosen, minlength=probabilities.shape[1]) / len(chosen)
    decision = np.mean([_bits(row) for row in probabilities])
    return Load(
        tuple(np.round(share, 4).tolist()), round(_bits(share), 4), round(float(decision), 4), len(chosen)
    )


def routing_report(loads: Mapping[str, Load]) -> RoutingReport:
    """Purity, entropy and balance over modalities. Raises ValueError for none."""
    if not loads:
        raise ValueError("routing: expected at least one modality, found none")
    joint = np.array([one.share for one in loads.values()]) / len(loads)
    return RoutingReport(
        loads=dict(loads),
        purity=round(float(joint.max(axis=0).sum()), 4),
        chance_purity=round(1.0 / len(loads), 4),
        used_bits=round(_bits(joint.sum(axis=0)), 4),
        imbalance=round(imbalance(joint.sum(axis=0)), 4),
        unbalanced=unbalanced({name: one.share for name, one in loads.items()}),
    )


def imbalance(load: np.ndarray) -> float:
    """Experts times the sum of squared shares: what the balance loss is when the router is certain. 1 = even."""
    return float(len(load) * np.square(load).sum())


def unbalanced(shares: Mapping[str, tuple[float, ...]]) -> tuple[str, ...]:
    """Modalities whose frames make the experts' load uneven, while the others among themselves keep it more even.

    That is how a modality shows that had no part in the balance loss: nothing kept it from piling onto an expert that
    others need. The one whose absence leaves the evenest load comes first.
    """
    rows = {name: np.asarray(share, np.float64) for name, share in shares.items()}
    total = imbalance(np.mean(list(rows.values()), axis=0))
    if len(rows) < 2 or total < 1.0 + UNEVEN:
        return ()
    without = {
        name: imbalance(np.mean([row for other, row in rows.items() if other != name], axis=0))
        for name in rows
    }
    return tuple(sorted((name for name in rows if total - without[name] > UNEVEN), key=without.__getitem__))


def _bits(distribution: np.ndarray) -> float:
    positive = distribution[distribution > 0]
    return float(-(positive * np.log2(positive)).sum()) + 0.0
