"""Shapes and statistics of the codec."""

import numpy as np
import torch

from astra_ros.codec.autoencoder import Codec, CodecConfig, emphasis_on_change, reconstruction_loss
from astra_ros.codec.pictures import decode_latents, encode_episode, to_pixels


def test_latents_are_an_eighth_and_pixels_come_back_in_size() -> None:
    codec = Codec(CodecConfig())
    latents = codec.encode(torch.zeros(2, 3, 64, 96))
    assert latents.shape == (2, 12, 8, 12)
    assert codec.decode(latents).shape == (2, 3, 64, 96)


def test_fitted_latents_have_zero_mean_and_unit_variance() -> None:
    torch.manual_seed(0)
    codec, pixels = Codec(CodecConfig()), torch.rand(80, 3, 32, 32)
    codec.fit_statistics(pixels)
    latents = codec.encode(pixels).detach()
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(12), atol=1e-4)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(12), atol=1e-3)


def test_statistics_do_not_change_what_is_reconstructed() -> None:
    codec, pixels = Codec(CodecConfig()).eval(), torch.rand(8, 3, 32, 32)
    with torch.no_grad():
        before = codec.decode(codec.encode(pixels))
        codec.fit_statistics(pixels)
        assert torch.allclose(before, codec.decode(codec.encode(pixels)), atol=1e-4)


def test_a_perfect_reconstruction_costs_nothing_and_errors_count_where_it_matters() -> None:
    pixels, even = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    off = pixels.clone()
    off[..., 3, 3] += 0.1
    emphasis = even.clone()
    emphasis[..., 3, 3] = 5.0
    assert reconstruction_loss(pixels, pixels, emphasis).item() == 0.0
    assert reconstruction_loss(off, pixels, emphasis) > 2 * reconstruction_loss(off, pixels, even)


def test_emphasis_is_where_a_frame_differs_from_the_background() -> None:
    background = torch.zeros(3, 8, 8)
    pixels = background[None].clone()
    pixels[0, :, 2, 5] = 1.0
    emphasis = emphasis_on_change(pixels, background, strength=6.0)
    assert emphasis[0, 0, 2, 5] == 7.0
    assert emphasis.sum() == 63 + 7


def test_frames_keep_their_order_and_range() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (70, 32, 32, 3), np.uint8)
    codec = Codec(CodecConfig()).eval()
    latents = encode_episode(codec, frames)
    assert latents.shape == (70, 12, 4, 4)
    with torch.no_grad():
        alone = codec.encode(to_pixels(frames[69:]))
    assert np.allclose(latents[69], alone[0].numpy(), atol=2e-3)
    assert decode_latents(codec, alone).dtype == np.uint8
