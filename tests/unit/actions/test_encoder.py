"""The mixture of action experts: projectors, padding, routing."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from astra_ros.actions.config import ActionEncoderConfig, RouterKind
from astra_ros.actions.encoder import ActionEncoder, Routing, balance_loss

WIDTH, FEATURES = 32, (5, 9)


def encoder(router: RouterKind = "learned") -> ActionEncoder:
    torch.manual_seed(0)
    return ActionEncoder(ActionEncoderConfig(FEATURES, (2, 1), 4, 16, router=router), WIDTH)


def features(space: int, frames: int = 6) -> torch.Tensor:
    return torch.randn(1, frames, FEATURES[space], generator=torch.Generator().manual_seed(space))


def test_padding_has_the_right_width_and_changes_nothing() -> None:
    model, own = encoder(), features(0)
    expected, _ = model(own, torch.tensor([0]))
    for missing in range(1, FEATURES[1] - FEATURES[0] + 1):
        found, _ = model(F.pad(own, (0, missing)), torch.tensor([0]))
        assert torch.equal(found, expected)


def test_every_action_space_has_a_projector_of_its_own() -> None:
    model, narrow = encoder(), features(0)
    first, second = (model(narrow, torch.tensor([space]))[0] for space in (0, 1))
    assert not torch.allclose(first, second, atol=1e-3)
    with torch.no_grad():
        model.projector[1] += 1.0
    assert torch.equal(model(narrow, torch.tensor([0]))[0], first)


@pytest.mark.parametrize("router", ["learned", "hard"])
def test_one_expert_answers_for_a_frame(router: RouterKind) -> None:
    """The others may change as they like."""
    model, own = encoder(router), features(1)
    expected, routing = model(own, torch.tensor([1]))
    for expert in range(4):
        other = encoder(router)
        with torch.no_grad():
            other.expert_out[expert] += 1.0
        found, _ = other(own, torch.tensor([1]))
        is_chosen = routing.chosen[0] == expert
        assert torch.equal((found != expected).any(dim=-1)[0], is_chosen)


def test_a_learned_router_takes_the_likeliest_and_learns_from_the_result() -> None:
    model = encoder("learned")
    out, routing = model(features(1), torch.tensor([1]))
    assert routing.probabilities.sum(dim=-1).allclose(torch.ones(1, 6))
    assert torch.equal(routing.chosen, routing.probabilities.argmax(dim=-1))
    out.sum().backward()
    assert model.router.weight.grad is not None
    assert model.router.weight.grad.abs().sum() > 0


def test_a_chosen_expert_answers_in_full() -> None:
    """However unsure the router is, trained or served; at the beginning all experts say the same."""
    learned, hard = encoder("learned"), encoder("hard")
    hard.load_state_dict(learned.state_dict())
    for space in (0, 1):
        own, index = features(space), torch.tensor([space])
        expected, _ = hard(own, index)
        assert learned(own, index)[0].allclose(expected, atol=1e-6)
        with torch.inference_mode():
            assert learned(own, index)[0].allclose(expected, atol=1e-6)


def test_a_hard_router_takes_the_modalitys_expert() -> None:
    model = encoder("hard")
    for space, expert in ((0, 2), (1, 1)):
        assert (model(features(space), torch.tensor([space]))[1].chosen == expert).all()


def test_a_single_expert_is_no_mixture() -> None:
    model = encoder("single")
    out, routing = model(features(1), torch.tensor([1]))
    assert routing.probabilities.shape == (1, 6, 1)
    assert (routing.chosen == 0).all()
    assert model.expert_in.shape[0] == 1
    assert out.shape == (1, 6, WIDTH)


def test_frames_are_encoded_one_by_one() -> None:
    model, own = encoder(), features(1)
    together, _ = model(own, torch.tensor([1]))
    alone = [model(own[:, frame : frame + 1], torch.tensor([1]))[0] for frame in range(6)]
    assert torch.allclose(together, torch.cat(alone, dim=1), atol=1e-6)


def test_the_router_begins_with_one_expert_per_modality() -> None:
    model = encoder("learned")
    for space, expert in ((0, 2), (1, 1)):
        assert (model(features(space), torch.tensor([space]))[1].chosen == expert).all()


def _balance(chosen: list[int], by_modality: list[int]) -> float:
    taken, told = torch.tensor([chosen]), torch.tensor([by_modality])
    return balance_loss(Routing(F.one_hot(taken, 4).float(), taken, told)).item()


def test_balance_loss_counts_from_the_modalities_own_load() -> None:
    assert _balance([0, 0, 0, 0], [0, 1, 2, 3]) == 3.0  # 4 x 1 where even is 1
    assert _balance([0, 0, 0, 0], [0, 0, 1, 1]) == 2.0  # 4 x 1 where two modalities are 4 x (1/4 + 1/4)
    assert _balance([0, 0, 2, 2], [1, 1, 0, 0]) == 0.0
    assert _balance([0, 1, 2, 3], [0, 0, 1, 1]) == 0.0
