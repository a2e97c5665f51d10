"""Moved pictures and latents, and a codec that learns to make them agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.codec.motion import motion_error, motion_error_of, moved, was_inside
from astra_ros.codec.pictures import to_pixels
from astra_ros.training.codec import CodecStep, MovedCodecStep
from astra_ros.training.config import CodecTrainingConfig
from astra_ros.training.draw import Draw
from astra_ros.training.frames import FramePool
from astra_ros.training.optimizers import codec_optimizers


@pytest.fixture
def pictures() -> Tensor:
    return torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def shares(x: Tensor, right: int, down: int) -> Tensor:
    return torch.tensor([right / x.shape[-1], down / x.shape[-2]]).repeat(len(x), 1)


@pytest.mark.parametrize(("right", "down"), [(3, -2), (-8, 0), (0, 5)])
def test_whole_pixels_move_exactly(pictures: Tensor, right: int, down: int) -> None:
    by = shares(pictures, right, down)
    inside = was_inside(pictures, by)
    expected = torch.zeros(24, 32)
    expected[max(0, down) : 24 + min(0, down), max(0, right) : 32 + min(0, right)] = 1.0
    assert torch.equal(inside, expected.expand(2, 1, -1, -1))
    rolled = torch.roll(pictures, (down, right), (2, 3))
    torch.testing.assert_close(moved(pictures, by) * inside, rolled * inside, rtol=0.0, atol=1e-4)


def test_each_picture_goes_its_own_way(pictures: Tensor) -> None:
    by = torch.cat([shares(pictures[:1], 4, 0), shares(pictures[:1], 0, -4)])
    for row in range(2):
        one = slice(row, row + 1)
        torch.testing.assert_close(moved(pictures, by)[one], moved(pictures[one], by[one]))


def test_the_error_is_none_of_what_moves_along_and_one_of_what_stands_still(pictures: Tensor) -> None:
    by = shares(pictures, 2, 1)
    assert float(motion_error(pictures, moved(pictures, by), by)) < 1e-6
    still = torch.zeros_like(by)
    assert float(motion_error(pictures, -pictures, still)) == pytest.approx(1.0)


def test_a_picture_of_little_texture_counts_as_much_as_another(pictures: Tensor) -> None:
    """And a small move as much as a large one. The first moves along, the second has none to move along with."""
    by = torch.cat([shares(pictures[:1], 2, 1), torch.zeros(1, 2)])
    latents = torch.stack([8.0 * pictures[0], pictures[1]])
    of_moved = torch.stack([moved(latents, by)[0], latents[1] + 1.0])
    assert float(motion_error(latents, of_moved, by)) == pytest.approx(0.5, abs=1e-4)


def test_neither_large_numbers_nor_a_common_part_hide_what_stands_still(pictures: Tensor) -> None:
    """The first channel moves along, the others are of another picture; then other latents that say the same."""
    by = shares(pictures, 2, 1)
    of_moved = torch.cat([moved(pictures, by)[:, :1], -pictures[:, 1:]], dim=1)
    found = float(motion_error(pictures, of_moved, by))
    assert found > 0.3
    larger, common = (
        torch.diag(torch.tensor([5.0, 1.0, 1.0])),
        torch.tensor([[1.0, 0, 0], [3, 1, 0], [3, 0, 1]]),
    )
    for mixed in (larger, common):
        first, second = (torch.einsum("oc,bchw->bohw", mixed, one) for one in (pictures, of_moved))
        assert float(motion_error(first, second, by)) == pytest.approx(found, rel=0.05)


def test_it_is_computed_in_float32_also_where_a_training_is_not(pictures: Tensor) -> None:
    by = shares(pictures, 2, 1)
    latents = pictures[:, :1] + 0.1 * pictures  # nearly alike channels, whose small differences count
    with torch.autocast("cpu", torch.bfloat16):
        found, there = motion_error(latents, -latents, by), moved(pictures, by)
    assert torch.equal(found, motion_error(latents, -latents, by))
    assert torch.equal(there, moved(pictures, by))


def test_a_codec_learns_to_let_its_latents_move() -> None:
    """As many steps with and without; pictures of random squares."""
    rng = np.random.default_rng(0)
    frames = np.kron(rng.integers(256, size=(64, 8, 8, 3)), np.ones((1, 6, 6, 1))).astype(np.uint8)[
        :, :32, :32
    ]
    pool = FramePool(frames, frames[:1], np.zeros(len(frames), int))
    found = {}
    for kind in (CodecStep, MovedCodecStep):
        torch.manual_seed(0)
        codec = Codec(CodecConfig(latent_channels=6, widths=(16, 32), num_blocks=1))
        step = kind(codec, pool, CodecTrainingConfig(motion=1.0))
        (optimizer,) = codec_optimizers(codec)
        optimizer.param_groups[0]["lr"] = 3e-3
        for number in range(200):
            step(*step.inputs(Draw((0,), number, 0), 8))["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
        found[kind] = motion_error_of(codec, to_pixels(frames[:16]), 2)
    assert found[MovedCodecStep] < 0.8 * found[CodecStep]


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="motion: expected 0 or more, found -1"):
        CodecTrainingConfig(motion=-1.0)
