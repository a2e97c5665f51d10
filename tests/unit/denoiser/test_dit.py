"""What the denoiser promises: who sees whom, where tokens stand, and its state before training."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import Tensor

from astra_ros.denoiser.blocks import HIDDEN, ActAdapter, SelfAttention, rotary_angles, rotate, rotation
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.dit import Denoiser, History
from astra_ros.denoiser.heads import RefiningHead
from astra_ros.history.layout import ANCHOR_AGE, BLOCKS, NUM_SLOTS
from tests.bundle_fixture import untrained_model
from tests.unit.denoiser.scene import chunk, history, predict


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    """Every weight that is zero at initialisation is random, so that nothing is trivially satisfied."""
    return untrained_model().denoiser.eval()


def changed(past: History, slot: int, field: str, by: float = 1.0) -> History:
    other = getattr(past, field).clone()
    other[:, slot] += by
    return past._replace(**{field: other})


def keys_by_block(denoiser: Denoiser, past: History) -> list[Tensor]:
    with torch.inference_mode():
        cache, _ = denoiser.remember(past, torch.zeros(len(past.latents)))
    return list(cache.keys.split(denoiser.geometry.tokens, dim=2))


@pytest.mark.parametrize("field", ["latents", "actions"])
@pytest.mark.parametrize("index", range(len(BLOCKS)))
def test_a_block_is_seen_by_itself_and_by_later_blocks_that_see_the_past(
    denoiser: Denoiser, index: int, field: str
) -> None:
    past = history(denoiser)
    before = keys_by_block(denoiser, past)
    after = keys_by_block(denoiser, changed(past, BLOCKS[index].slots[0], field))
    for other, block in enumerate(BLOCKS):
        is_seen = other == index or (other > index and block.sees_past)
        assert torch.equal(before[other], after[other]) != is_seen, other


def test_a_frame_of_a_chunk_sees_no_later_one(denoiser: Denoiser) -> None:
    past = history(denoiser)
    target = chunk(denoiser, past.latents[:, -1])
    expected = predict(denoiser, past, target)
    for field in ("noisy", "actions"):
        other = getattr(target, field).clone()
        other[:, 2] += 1.0
        found = predict(denoiser, past, target._replace(**{field: other}))
        assert torch.equal(found[:, :2], expected[:, :2])
        assert (found[:, 2:] != expected[:, 2:]).flatten(2).any(dim=-1).all()


@pytest.mark.parametrize("empty", [(1, 10), (1, 19), (3, 4), (17, 18), (0, 1), (6, 19)])
def test_empty_slots_are_invisible(denoiser: Denoiser, empty: tuple[int, int]) -> None:
    """Garbage in them, also in slots of a block that is filled in part, changes nothing."""
    past = history(denoiser)
    past.mask[:, slice(*empty)] = 0.0
    garbage = past
    for slot in range(*empty):
        garbage = changed(changed(garbage, slot, "latents", 9.0), slot, "actions", -9.0)
    assert torch.equal(predict(denoiser, past), predict(denoiser, garbage))
    assert not torch.equal(predict(denoiser, past), predict(denoiser, history(denoiser)))


def test_every_filled_slot_and_its_action_matter(denoiser: Denoiser) -> None:
    past = history(denoiser)
    target = chunk(denoiser, past.latents[:, -1])  # keeps the change of the last slot out of `last`
    expected = predict(denoiser, past, target)
    for slot in range(NUM_SLOTS):
        for field in ("latents", "actions"):
            found = predict(denoiser, changed(past, slot, field), target)
            assert not torch.allclose(expected, found, atol=1e-5), (slot, field)


def test_the_network_is_told_how_noisy_its_history_is(denoiser: Denoiser) -> None:
    past = history(denoiser)
    assert not torch.allclose(predict(denoiser, past), predict(denoiser, past, told=0.3), atol=1e-4)


def test_robots_of_different_action_spaces_share_a_batch(denoiser: Denoiser) -> None:
    keys, arm = history(denoiser, space=0), history(denoiser, seed=7, space=1)
    targets = chunk(denoiser, keys.latents[:, -1], space=0), chunk(denoiser, arm.latents[:, -1], space=1)
    padding = keys.actions.shape[-1] - arm.actions.shape[-1]

    def pad(actions: Tensor) -> Tensor:
        return torch.nn.functional.pad(actions, (0, padding))

    both = History(*map(torch.cat, zip(keys, arm._replace(actions=pad(arm.actions)), strict=True)))
    target = targets[1]._replace(actions=pad(targets[1].actions))
    mixed = targets[0]._replace(
        **{name: torch.cat([getattr(targets[0], name), getattr(target, name)]) for name in target._fields[:4]}
    )
    found = predict(denoiser, both, mixed)
    assert torch.allclose(found[:1], predict(denoiser, keys, targets[0]), atol=1e-5)
    assert torch.allclose(found[1:], predict(denoiser, arm, targets[1]), atol=1e-5)


def test_pooled_tokens_stand_at_their_true_coordinates(denoiser: Denoiser) -> None:
    """Mean time, row and column of what they hold; the grid of 3 rows is padded by repeating the last."""
    whole = [(float(row), float(column)) for row in range(3) for column in range(4)]
    halves = [(row, column) for row in (0.5, 2.0) for column in (0.5, 2.5)]
    quarter = [(5 / 4, 1.5)]  # rows 0 1 2 2
    blocks = [
        (-float(ANCHOR_AGE), whole),
        *((time, quarter) for time in (-16.5, -12.5, -8.5, -4.5)),
        (-1.5, halves),
        (0.0, whole),
    ]
    expected = torch.tensor([[time, *place] for time, places in blocks for place in places])
    head_dim = denoiser.config.head_dim
    assert torch.allclose(denoiser.geometry.history_angles, rotary_angles(expected, head_dim), atol=1e-6)
    frames = torch.tensor([[float(time), *place] for time in range(1, 5) for place in whole])
    assert torch.allclose(denoiser.geometry.chunk_angles, rotary_angles(frames, head_dim), atol=1e-6)


def fresh(adapter: str) -> Denoiser:
    """As at the start of training, but for a head that lets its input through."""
    torch.manual_seed(0)
    config = replace(untrained_model().config.denoiser, adapter=adapter, refiner=0)  # type: ignore[arg-type]
    model = Denoiser(config).eval()
    torch.nn.init.normal_(model.head.layer.weight)
    return model


@pytest.mark.parametrize("adapter", ["act", "cross_attention"])
def test_the_action_has_exactly_no_effect_before_training(adapter: str) -> None:
    model = fresh(adapter)
    past = history(model)
    target = chunk(model, past.latents[:, -1])
    expected = predict(model, past, target)
    others = past._replace(actions=past.actions + 1), target._replace(actions=target.actions - 1)
    assert torch.equal(expected, predict(model, *others))


def test_what_the_action_paints_has_exactly_no_effect_before_training() -> None:
    model = Denoiser(untrained_model().config.denoiser).eval()
    past = history(model)
    target = chunk(model, past.latents[:, -1])
    assert torch.equal(
        predict(model, past, target), predict(model, past, target._replace(actions=target.actions - 1))
    )


def test_a_sketch_is_of_the_action_alone(denoiser: Denoiser) -> None:
    past, sigma = history(denoiser), torch.ones(1)
    target = chunk(denoiser, past.latents[:, -1])
    seen = target._replace(noisy=target.noisy + 1.0, last=target.last - 1.0)
    other = target._replace(actions=target.actions + 1.0)
    with torch.inference_mode():
        cache, _ = denoiser.remember(past, torch.zeros(1))
        sketches = [denoiser.denoise(x, sigma, cache).sketch for x in (target, seen, other)]
    expected, same, different = filter(torch.is_tensor, sketches)
    assert expected.shape == target.noisy.shape
    assert torch.equal(expected, same)
    assert not torch.equal(expected, different)


@pytest.mark.parametrize("last_sigma", [None, 0.0, 0.3, 1.0])
def test_a_sketch_is_taken_whole_however_noisy_the_last_frame_is(
    denoiser: Denoiser, last_sigma: float | None
) -> None:
    """There it is worth most: nothing of the noise comes with it."""
    model, past = Denoiser(denoiser.config).eval(), history(denoiser)
    torch.nn.init.constant_(dict(model.named_parameters())["head.gate.bias"], 20.0)
    told = None if last_sigma is None else torch.tensor([last_sigma])
    target = chunk(denoiser, past.latents[:, -1])._replace(last_sigma=told)
    with torch.inference_mode():
        found = model.denoise(target, torch.ones(1), model.remember(past, torch.zeros(1))[0])
    torch.testing.assert_close(found.latents, found.sketch)


@pytest.mark.parametrize(("last_sigma", "kept"), [(0.0, 1.0), (0.3, 0.7 / 0.58), (0.5, 1.0), (1.0, 0.0)])
def test_of_a_noisy_last_frame_an_untrained_model_takes_what_it_tells(last_sigma: float, kept: float) -> None:
    """(1 - s) / ((1 - s)^2 + s^2) of it: the best linear estimate of latents of unit variance."""
    model = Denoiser(untrained_model().config.denoiser).eval()
    past = history(model)
    target = chunk(model, past.latents[:, -1])._replace(last_sigma=torch.tensor([last_sigma]))
    with torch.inference_mode():
        found = model.denoise(target, torch.ones(1), model.remember(past, torch.zeros(1))[0]).latents
    expected = kept * target.last[:, None].expand_as(found)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapter", ["act", "cross_attention"])
def test_the_adapter_has_exactly_no_effect_before_training(
    adapter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh(adapter)
    expected = predict(model, history(model))
    kind = type(model.blocks[0].adapter)
    assert (kind is ActAdapter) == (adapter == "act")
    monkeypatch.setattr(kind, "before", lambda _self, x, *_: x)
    monkeypatch.setattr(kind, "after", lambda _self, attended, *_: attended)
    assert torch.equal(expected, predict(model, history(model)))


@pytest.mark.parametrize(("refiner", "tolerance"), [(0, 0.0), (8, 1e-5)])
def test_untrained_it_predicts_that_nothing_moves(refiner: int, tolerance: float) -> None:
    """A flow of zero still interpolates, which rounds."""
    model = Denoiser(untrained_model(refiner=refiner).config.denoiser).eval()
    past = history(model)
    assert (predict(model, past) - past.latents[:, -1:]).abs().max() <= tolerance


def test_a_token_draws_where_it_stands() -> None:
    """The layer's outputs are in the order of a checkpoint: channel, row, column."""
    config = untrained_model(refiner=8).config.denoiser
    head, patch, (rows, columns) = RefiningHead(config), config.patch, config.grid
    tokens = torch.randn(2, 3 * rows * columns, config.width)
    sizes = {"t": 3, "h": rows, "w": columns, "p": patch, "q": patch}
    pattern = "b (t h w) (c p q) -> (b t) (h p) (w q) c"
    assert torch.allclose(head._drawn(tokens, 3), rearrange(head.layer(tokens), pattern, **sizes), atol=1e-6)


def test_attention_is_the_reference_attention() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(width=64, num_heads=2).eval()
    x, past = torch.randn(2, 6, 64), (torch.randn(2, 3, 2, 32), torch.randn(2, 3, 2, 32))
    bias = torch.zeros(2, 1, 1, 9)
    bias[:, :, :, 1] = HIDDEN
    with torch.no_grad():
        mixed, own = attention(x, rotation(torch.zeros(6, 16), 32**-0.25), bias, past)
        query, key, value = rearrange(attention.qkv(x), "b n (three k d) -> three b n k d", three=3, k=2)
        # Of one length, so that the product of two is at most the square root of their 32 dimensions.
        query, key = (32**0.25 * torch.nn.functional.normalize(each, dim=-1) for each in (query, key))
        assert torch.allclose(own[0], key, atol=1e-5)
        assert torch.allclose(own[1], value, atol=1e-5)
        keys, values = torch.cat([past[0], key], dim=1), torch.cat([past[1], value], dim=1)
        query, keys, values = (each.transpose(1, 2) for each in (query, keys, values))
        expected = torch.nn.functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=bias, scale=1.0
        )
        expected = attention.out(rearrange(expected, "b k n d -> b n (k d)"))
    assert torch.allclose(mixed, expected, atol=1e-5)


def test_rotary_products_depend_on_relative_coordinates_only() -> None:
    query, key = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)

    def product(at_query: list[float], at_key: list[float]) -> Tensor:
        turned = (
            rotate(x, rotation(rotary_angles(torch.tensor([at]), 32)))
            for x, at in ((query, at_query), (key, at_key))
        )
        first, second = turned
        return (first * second).sum()

    near, far = product([1.0, 2.0, 3.0], [0.0, 1.0, 5.0]), product([7.0, 4.0, 1.0], [6.0, 3.0, 3.0])
    assert torch.allclose(near, far, atol=1e-4)
    assert not torch.allclose(near, product([1.0, 2.0, 3.0], [0.0, 1.0, 4.0]), atol=1e-4)


def test_a_patch_that_convolutions_cannot_double_up_to_is_refused() -> None:
    with pytest.raises(ValueError, match="patch: expected a power of two with a refiner, found 3"):
        DenoiserConfig(latent_height=12, latent_width=12, patch=3, refiner=8)


@pytest.mark.parametrize(
    ("field", "value"), [("patch", 3), ("width", 60), ("chunk_len", 6), ("chunk_len", 20)]
)
def test_impossible_sizes_are_refused_with_both_numbers(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}: expected .*found {value}"):
        DenoiserConfig(**{field: value})  # type: ignore[arg-type]


_NAN = """
import torch
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.heads import RefiningHead

config = DenoiserConfig(patch=4, refiner=64)
frames = torch.randn(1, config.chunk_len, config.latent_channels, config.latent_height, config.latent_width)
tokens = torch.full((1, config.chunk_len * config.tokens_per_frame, config.width), torch.nan)
head = RefiningHead(config)
moved, change = head(tokens, frames, frames, None)
(moved + change).sum().backward()
assert head.out.weight.grad.isnan().all()  # a step that the trainer skips
"""


def test_nan_in_a_training_step_does_not_end_the_process() -> None:
    """torch 2.13 looks for a gradient wherever a place that is NaN sends it."""
    done = subprocess.run([sys.executable, "-c", _NAN], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
