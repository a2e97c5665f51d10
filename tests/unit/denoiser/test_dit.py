"""What the denoiser promises: causality, invisible empty slots, and its state before training."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange

from astra_ros.denoiser.blocks import Block, Modulation, SelfAttention, rotary_angles, rotate
from astra_ros.denoiser.dit import HIDDEN, Denoiser, DenoiserConfig

CONFIG = DenoiserConfig(
    latent_channels=3,
    latent_size=4,
    width=64,
    depth=2,
    num_heads=2,
    history_slots=3,
    chunk_len=2,
    num_features=5,
)


@pytest.fixture
def denoiser() -> Denoiser:
    """With every weight that is zero at initialisation made random, so that nothing is trivially satisfied."""
    torch.manual_seed(0)
    model = Denoiser(CONFIG).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def history(batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, 3, 4, 4, generator=generator),
        torch.randn(batch, 3, 5, generator=generator),
        torch.ones(batch, 3),
        torch.zeros(batch),
    )


def chunk(batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 2, 3, 4, 4, generator=generator), torch.randn(batch, 2, 5, generator=generator)


def predict(
    model: Denoiser, latents: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor, sigma: torch.Tensor
) -> torch.Tensor:
    noisy, targets = chunk(len(latents))
    with torch.no_grad():
        cache = model.remember(latents, actions, mask, sigma)
        return model.denoise(noisy, latents[:, -1], targets, torch.full((len(latents),), 0.75), *cache)


def test_a_later_history_frame_does_not_change_an_earlier_ones_memory(denoiser: Denoiser) -> None:
    latents, actions, mask, sigma = history()
    before, _, _ = denoiser.remember(latents, actions, mask, sigma)
    changed = latents.clone()
    changed[:, 2] += 1.0
    after, _, _ = denoiser.remember(changed, actions, mask, sigma)
    tokens = CONFIG.tokens_per_frame
    assert torch.allclose(before[..., : 2 * tokens, :], after[..., : 2 * tokens, :], atol=1e-6)
    assert not torch.allclose(before[..., 2 * tokens :, :], after[..., 2 * tokens :, :], atol=1e-3)


def test_what_lies_in_an_empty_slot_is_invisible(denoiser: Denoiser) -> None:
    latents, actions, mask, sigma = history()
    mask[:, 0] = 0.0
    other_latents, other_actions = latents.clone(), actions.clone()
    other_latents[:, 0], other_actions[:, 0] = 9.0, -9.0
    expected = predict(denoiser, latents, actions, mask, sigma)
    assert torch.allclose(expected, predict(denoiser, other_latents, other_actions, mask, sigma), atol=1e-5)


def test_every_filled_slot_and_its_action_matter(denoiser: Denoiser) -> None:
    latents, actions, mask, sigma = history()
    expected = predict(denoiser, latents, actions, mask, sigma)
    for slot in range(2):  # the last slot also enters as `last`
        other = latents.clone()
        other[:, slot] += 1.0
        assert not torch.allclose(expected, predict(denoiser, other, actions, mask, sigma), atol=1e-4)
        other = actions.clone()
        other[:, slot] += 1.0
        assert not torch.allclose(expected, predict(denoiser, latents, other, mask, sigma), atol=1e-4)


def test_the_network_is_told_how_noisy_its_history_is(denoiser: Denoiser) -> None:
    latents, actions, mask, sigma = history()
    clean = predict(denoiser, latents, actions, mask, sigma)
    assert not torch.allclose(clean, predict(denoiser, latents, actions, mask, sigma + 0.3), atol=1e-4)


def test_batch_members_do_not_mix(denoiser: Denoiser) -> None:
    inputs = history()
    both = predict(denoiser, *inputs)
    noisy, targets = chunk()
    with torch.no_grad():
        cache = denoiser.remember(*(x[1:] for x in inputs))
        alone = denoiser.denoise(noisy[1:], inputs[0][1:, -1], targets[1:], torch.tensor([0.75]), *cache)
    assert torch.allclose(both[1:], alone, atol=1e-5)


def test_untrained_it_predicts_that_nothing_moves() -> None:
    latents, actions, mask, sigma = history()
    predicted = predict(Denoiser(CONFIG).eval(), latents, actions, mask, sigma)
    assert torch.equal(predicted, latents[:, -1:].expand_as(predicted))


def test_the_adapter_is_an_identity_and_the_action_without_effect_before_training() -> None:
    block = Block(width=64, num_heads=2, mlp_ratio=2).eval()
    x, angles, bias = torch.randn(1, 6, 64), torch.zeros(6, 16), torch.zeros(1, 1, 1, 6)
    modulation = Modulation(*(torch.ones(1, 1, 64) for _ in range(6)))
    with torch.no_grad():
        expected, _ = block(x, modulation, torch.zeros(1, 3, 64), angles, bias)
        with_action, _ = block(x, modulation, torch.randn(1, 3, 64), angles, bias)
        block.adapter.forward = torch.nn.Identity().forward  # type: ignore[method-assign]
        without_adapter, _ = block(x, modulation, torch.zeros(1, 3, 64), angles, bias)
    assert torch.equal(expected, with_action)
    assert torch.allclose(expected, without_adapter, atol=1e-6)


def test_attention_is_the_reference_attention() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(width=64, num_heads=2).eval()
    x, past = torch.randn(2, 6, 64), (torch.randn(2, 2, 3, 32), torch.randn(2, 2, 3, 32))
    bias = torch.zeros(2, 1, 1, 9)
    bias[:, :, :, 1] = HIDDEN
    with torch.no_grad():
        mixed, (key, value) = attention(x, torch.zeros(6, 16), bias, past)
        query = rearrange(attention.qkv(x), "b n (three k d) -> three b k n d", three=3, k=2)[0]
        query = torch.nn.functional.rms_norm(query, (32,), eps=1e-6)
        keys, values = torch.cat([past[0], key], dim=2), torch.cat([past[1], value], dim=2)
        expected = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
        expected = attention.out(rearrange(expected, "b k n d -> b n (k d)"))
    assert torch.allclose(mixed, expected, atol=1e-5)


def test_rotary_products_depend_on_relative_coordinates_only() -> None:
    query, key = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)

    def product(at_query: list[float], at_key: list[float]) -> torch.Tensor:
        turned = (
            rotate(x, rotary_angles(torch.tensor([at]), 32)) for x, at in ((query, at_query), (key, at_key))
        )
        first, second = turned
        return (first * second).sum()

    near, far = product([1.0, 2.0, 3.0], [0.0, 1.0, 5.0]), product([7.0, 4.0, 1.0], [6.0, 3.0, 3.0])
    assert torch.allclose(near, far, atol=1e-4)
    assert not torch.allclose(near, product([1.0, 2.0, 3.0], [0.0, 1.0, 4.0]), atol=1e-4)


@pytest.mark.parametrize(("field", "value"), [("patch", 3), ("width", 60)])
def test_impossible_sizes_are_refused_with_both_numbers(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected .*found {value}"):
        replace(CONFIG, **{field: value})
