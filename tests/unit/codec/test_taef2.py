"""TAEF2 behind our codec's interface: shapes, strict loading, and its known quality where its weights are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.codec import taef2
from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.codec.pictures import decode_latents, to_pixels
from astra_ros.data.lerobot import Dataset

SHARED = Path(__file__).resolve().parents[4] / "shared"
WEIGHTS = SHARED / "weights" / "taef2"
CONFIG = CodecConfig(latent_channels=taef2.LATENT_CHANNELS, kind="taef2")


def write_weights(folder: Path, codec: Codec) -> None:
    torch.save(codec.encoder.state_dict(), folder / taef2.ENCODER_FILE)
    torch.save(codec.decoder.state_dict(), folder / taef2.DECODER_FILE)


def test_same_shapes_as_our_codec() -> None:
    codec = Codec(CONFIG).eval()
    latents = codec.encode(torch.rand(2, 3, 32, 48))
    assert latents.shape == (2, 32, 4, 6)
    assert codec.decode(latents).shape == (2, 3, 32, 48)


def test_weights_are_what_was_saved(tmp_path: Path) -> None:
    saved, loaded = Codec(CONFIG), Codec(CONFIG)
    write_weights(tmp_path, saved)
    loaded.load_taef2(tmp_path)
    pixels = torch.rand(1, 3, 16, 16)
    assert torch.equal(loaded.decode(loaded.encode(pixels)), saved.decode(saved.encode(pixels)))


def test_other_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    codec = Codec(CONFIG)
    write_weights(tmp_path, codec)
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / taef2.ENCODER_FILE)
    with pytest.raises(ValueError, match=r"taef2_encoder\.pth: expected TAEF2's weights") as caught:
        codec.load_taef2(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="madebyollin/taesd"):
        Codec(CONFIG).load_taef2(tmp_path)


def test_our_own_codec_does_not_take_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"codec\.kind: expected taef2, found own"):
        Codec(CodecConfig()).load_taef2(tmp_path)


def test_wrong_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 32 for taef2, found 12"):
        CodecConfig(kind="taef2")


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"needs TAEF2's weights in {WEIGHTS.name}")
def test_reconstruction_quality() -> None:
    """Its published kind of quality: 31 dB on a real robot's pictures at 128x128 (a wrong layer costs 10 dB)."""
    data = Path("runs/data/g1")
    if not data.is_dir():
        pytest.skip("needs runs/data/g1: astra data import g1")
    dataset = Dataset.open(data)
    pixels = dataset.read(dataset.episode_names[0], 128).pixels[::20]
    codec = Codec(CONFIG).eval()
    codec.load_taef2(WEIGHTS)
    with torch.inference_mode():
        decoded = decode_latents(codec, codec.encode(to_pixels(pixels)))
    mse = np.square(decoded.astype(float) - pixels).mean()
    assert 10 * np.log10(255**2 / mse) > 30
