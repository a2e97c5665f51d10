"""Purity, entropy, and a modality that had no part in the balance loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from astra_ros.actions.config import ActionEncoderConfig
from astra_ros.actions.encoder import ActionEncoder, balance_loss
from astra_ros.evaluation.routing import load, routing_report, unbalanced


def _certain(expert: int) -> np.ndarray:
    return np.tile(np.eye(3)[expert], (50, 1))


def test_one_expert_each_is_pure_and_even() -> None:
    report = routing_report({name: load(_certain(e), np.full(50, e)) for e, name in enumerate("abc")})
    assert report.purity == 1.0
    assert report.used_bits == pytest.approx(np.log2(3), abs=1e-4)
    assert report.imbalance == 1.0
    assert report.unbalanced == ()
    assert report.loads["a"].entropy_bits == 0.0
    assert report.loads["a"].decision_bits == 0.0


def test_experts_used_alike_by_all_tell_nothing() -> None:
    probabilities, chosen = np.full((60, 3), 1 / 3), np.arange(60) % 3
    report = routing_report({name: load(probabilities, chosen) for name in "abc"})
    assert report.purity == pytest.approx(report.chance_purity, abs=1e-3)
    assert report.loads["a"].entropy_bits == pytest.approx(np.log2(3), abs=1e-4)
    assert report.loads["a"].decision_bits == pytest.approx(np.log2(3), abs=1e-4)


def test_a_modality_that_piles_onto_a_used_expert_is_named() -> None:
    even = {"arm": (0.5, 0.5, 0.0, 0.0), "drive": (0.0, 0.0, 0.5, 0.5)}
    assert unbalanced(even) == ()
    assert unbalanced({**even, "camera": (0.25, 0.25, 0.25, 0.25)}) == ()
    assert unbalanced({**even, "camera": (1.0, 0.0, 0.0, 0.0)}) == ("camera",)


@pytest.mark.parametrize("left_out", [None, 2])
def test_a_modality_held_out_of_the_balance_loss_is_noticed(left_out: int | None) -> None:
    """A real router, trained on the real loss over all modalities, or over all but one."""
    torch.manual_seed(0)
    config = ActionEncoderConfig(num_features=(4, 4, 4), modality_of=(0, 1, 2), num_experts=3, unified=16)
    encoder = ActionEncoder(config, width=16)
    features = torch.randn(3, 64, 4)
    space = torch.arange(3)
    with (
        torch.no_grad()
    ):  # the third begins at the first's expert, where only the loss can keep it from staying
        encoder.router_prior[2] = encoder.router_prior[0]
    kept = torch.tensor([m for m in range(3) if m != left_out])
    optimiser = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    for _ in range(300):
        routing = encoder(features[kept], space[kept])[1]
        optimiser.zero_grad()
        balance_loss(routing).backward()
        optimiser.step()
    with torch.no_grad():
        routing = encoder(features, space)[1]
    loads = {
        name: load(routing.probabilities[m].numpy(), routing.chosen[m].numpy())
        for m, name in enumerate("abc")
    }
    report = routing_report(loads)
    if left_out is None:
        assert report.unbalanced == ()
    else:
        assert "c" in report.unbalanced


def test_no_modality_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected at least one modality, found none"):
        routing_report({})
