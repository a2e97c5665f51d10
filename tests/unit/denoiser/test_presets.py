"""Named sizes: what is served, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from astra_ros.actions.spec import MODALITIES
from astra_ros.denoiser.presets import PRESETS, ModelConfig
from astra_ros.history.layout import NUM_SLOTS
from tests.bundle_fixture import action_specs, untrained_model


@pytest.mark.parametrize("preset", PRESETS)
def test_a_chunk_looks_at_least_a_second_ahead_at_5_to_10_frames_a_second(preset: str) -> None:
    config = PRESETS[preset]()
    assert 5.0 <= 1.0 / config.step_dt <= 10.0
    assert config.denoiser.chunk_len * config.step_dt >= 1.0
    assert (NUM_SLOTS - 2) * config.step_dt >= 3.0  # and remembers more than it predicts


@pytest.mark.parametrize("preset", PRESETS)
def test_it_survives_json(preset: str) -> None:
    config = PRESETS[preset]().for_actions(action_specs())
    assert ModelConfig.from_json(config.to_json()) == config


def test_the_papers_sizes() -> None:
    """Wan2.1-1.3B at 480x832: paper A.1 and C."""
    config = PRESETS["astra_1b3"]()
    denoiser = config.denoiser
    assert (denoiser.width, denoiser.depth, denoiser.num_heads, denoiser.mlp_hidden) == (1536, 30, 12, 8960)
    assert (denoiser.grid, denoiser.tokens_per_frame, denoiser.history_tokens) == ((30, 52), 1560, 3926)
    assert (config.num_steps, config.shift, denoiser.chunk_len) == (50, 5.0, 8)


def test_action_spaces_are_numbered_in_their_order() -> None:
    actions = untrained_model().config.denoiser.actions
    assert actions.num_features == tuple(spec.num_features for spec in action_specs()) == (33, 25)
    assert actions.modality_of == (MODALITIES.index("command"), MODALITIES.index("arm"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"image_height": 64},
            r"image_height: expected codec.factor \* denoiser.latent_height = 8 \* 16, found 64",
        ),
        (
            {"image_width": 64},
            r"image_width: expected codec.factor \* denoiser.latent_width = 8 \* 16, found 64",
        ),
    ],
)
def test_pictures_that_do_not_fit_the_latents_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PRESETS["tiny"](), **change)
