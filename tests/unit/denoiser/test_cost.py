"""The formulas against the network itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from astra_ros.denoiser import cost
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.dit import Chunk, Denoiser, History
from astra_ros.denoiser.presets import PRESETS
from astra_ros.history.layout import NUM_SLOTS, blocks_after
from tests.bundle_fixture import untrained_model

PAGE = Path(__file__).resolve().parents[3] / "docs" / "architecture.md"
VARIANTS = {
    "convolutions": {},
    "no convolutions": {"refiner": 0},
    "no pose map": {"pose_rank": 0},
    "cross attention": {"adapter": "cross_attention"},
    "longer chunk, deeper": {"chunk_len": 8, "depth": 3, "mlp_hidden": 96},
    "patches of one latent": {"patch": 1},
}


def on_meta(config: DenoiserConfig) -> Denoiser:
    with torch.device("meta"):
        return Denoiser(config).eval()


def counted_parameters(model: Denoiser) -> dict[str, int]:
    counts: dict[str, int] = dict.fromkeys(cost.parameters(model.config), 0)
    for name, parameter in model.named_parameters():
        counts[name.partition(".")[0]] += parameter.numel()
    return counts


def counted_flops(model: Denoiser) -> cost.Flops:
    config = model.config
    latent = (config.latent_channels, config.latent_height, config.latent_width)
    features = max(config.actions.num_features)
    with torch.device("meta"), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        sigma, space = torch.zeros(1), torch.zeros(1, dtype=torch.long)

        def history(slots: int) -> History:
            return History(
                torch.zeros(1, slots, *latent), torch.zeros(1, slots, features), torch.ones(1, slots), space
            )

        frames = torch.zeros(1, config.chunk_len, *latent)
        chunk = Chunk(frames, frames[:, 0], torch.zeros(1, config.chunk_len, features), space)
        with FlopCounterMode(display=False) as remember:
            cache, _ = model.remember(history(NUM_SLOTS), sigma)
        with FlopCounterMode(display=False) as append:
            model.append(cache, history(NUM_SLOTS - blocks_after(config.chunk_len)[0].slots[0]), sigma)
        with FlopCounterMode(display=False) as step:
            model.denoise(chunk, sigma, cache)
        with FlopCounterMode(display=False) as plan:
            action, _ = model.action_encoder(chunk.actions, space)
            if model.pose_map is not None:
                model.pose_map(action)
            for block in model.blocks:
                reads = "action_in" if config.adapter == "act" else "key_value"
                getattr(block.adapter, reads)(action)
    return cost.Flops(*(counter.get_total_flops() for counter in (remember, append, step, plan)))


@pytest.mark.parametrize("sizes", VARIANTS.values(), ids=VARIANTS)
def test_formulas_are_exact(sizes: dict[str, int]) -> None:
    config = untrained_model(**sizes).config.denoiser
    model = on_meta(config)
    assert counted_parameters(model) == cost.parameters(config)
    assert counted_flops(model) == cost.flops(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_formulas_hold_for_the_presets(preset: str) -> None:
    """On the meta device: shapes without memory."""
    config = PRESETS[preset]().denoiser
    model = on_meta(config)
    assert counted_parameters(model) == cost.parameters(config)
    assert counted_flops(model) == cost.flops(config)


def test_sizes_of_the_presets() -> None:
    millions = {name: sum(cost.parameters(make().denoiser).values()) / 1e6 for name, make in PRESETS.items()}
    assert 5 <= millions["tiny"] <= 25
    assert millions["small"] == pytest.approx(60, rel=0.15)
    assert millions["base"] == pytest.approx(300, rel=0.1)
    assert millions["astra_1b3"] == pytest.approx(1300, rel=0.02)


def test_appending_costs_less_than_remembering() -> None:
    for make in PRESETS.values():
        flops = cost.flops(make().denoiser)
        assert flops.append < 0.6 * flops.remember


def test_the_documented_table_is_this_one() -> None:
    assert cost.table() in PAGE.read_text(), cost.table()
