"""Training learns, the same seed gives the same start, and checkpoints come back exactly."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.codec.pictures import to_pixels
from astra_ros.data.episode import Episode, fit_action_spec
from astra_ros.data.segments import SegmentConfig, SegmentSampler
from astra_ros.denoiser.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_codec,
    new_checkpoint,
    save_checkpoint,
    save_codec,
)
from astra_ros.denoiser.dit import DenoiserConfig
from astra_ros.denoiser.presets import PRESETS, ModelConfig
from astra_ros.evaluation.held_out import held_out_rollouts, summarise
from astra_ros.evaluation.strips import save_strips
from astra_ros.training.budget import Budget
from astra_ros.training.codec import CodecTrainingConfig, refine_decoder, train_codec
from astra_ros.training.denoiser import DenoiserTrainingConfig, train_denoiser
from astra_ros.training.progress import Progress
from astra_ros.types import NANOSECONDS

SMALL = ModelConfig(
    preset="test",
    image_size=32,
    codec=CodecConfig(latent_channels=4, widths=(16, 32), num_blocks=1),
    denoiser=DenoiserConfig(
        latent_channels=4,
        latent_size=4,
        width=64,
        depth=2,
        num_heads=2,
        mlp_ratio=2,
        history_slots=2,
        chunk_len=2,
    ),
)


def sliding_square(num_frames: int = 80, seed: int = 0) -> Episode:
    """A bright square whose column is the one joint: predictable from the action alone."""
    rng = np.random.default_rng(seed)
    columns = (12 + 12 * np.sin(np.cumsum(rng.uniform(0.1, 0.6, num_frames)))).astype(np.float32)
    pixels = np.full((num_frames, 32, 32, 3), 40, np.uint8)
    for frame, column in zip(pixels, columns.astype(int), strict=True):
        frame[12:20, column : column + 8] = 220
    stamps = np.arange(num_frames) * NANOSECONDS // 10
    return Episode(f"square_{seed}", stamps, pixels, columns[:, None], columns[:, None])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, list[Episode], Path]:
    """Codec and denoiser, a fraction of a minute each."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    episodes = [sliding_square(seed=seed) for seed in range(4)]
    checkpoint = new_checkpoint(SMALL, fit_action_spec(episodes, ("slide",), ("m",), SMALL.step_dt))
    codec_progress = Progress("codec", folder / "log.jsonl", every_s=0.5)
    checkpoint.codec = train_codec(
        checkpoint.codec, episodes, CodecTrainingConfig(minutes=10.0, max_steps=300), codec_progress
    )
    latents = [np.asarray(_encode(checkpoint, episode)) for episode in episodes]
    segments = SegmentSampler(episodes, latents, checkpoint.action, SegmentConfig(2, 2))
    config = DenoiserTrainingConfig(minutes=10.0, max_steps=400, batch=16, checkpoint_minutes=5.0)
    progress = Progress("denoiser", folder / "log.jsonl", every_s=0.5)
    seen: list[float] = []
    checkpoint.denoiser = train_denoiser(
        checkpoint.denoiser, segments, config, progress, lambda _, share: seen.append(share)
    )
    assert seen, "no checkpoint was handed out on the way"
    return checkpoint, episodes, folder


def _encode(checkpoint: Checkpoint, episode: Episode) -> np.ndarray:
    from astra_ros.codec.pictures import encode_episode

    return encode_episode(checkpoint.codec, episode.pixels)


def test_both_losses_fall(trained: tuple[Checkpoint, list[Episode], Path]) -> None:
    lines = [json.loads(line) for line in (trained[2] / "log.jsonl").read_text().splitlines()]
    for stage in ("codec", "denoiser"):
        losses = [line["loss"] for line in lines if line["stage"] == stage]
        assert losses[-1] < 0.7 * losses[0], f"{stage}: {losses}"


def test_it_beats_copying_the_last_frame_on_an_episode_it_has_not_seen(
    trained: tuple[Checkpoint, list[Episode], Path],
) -> None:
    checkpoint, _, folder = trained
    held_out = [sliding_square(seed=99)]
    rollouts = held_out_rollouts(checkpoint, held_out, 4, 8)
    table = summarise(rollouts)
    assert np.mean(table["predicted"]) > np.mean(table["copy_last"])
    assert np.mean(table["ceiling"]) >= np.mean(table["predicted"])
    save_strips(rollouts[:2], folder / "strip.png")
    assert (folder / "strip.png").stat().st_size > 0


def test_a_refined_decoder_reads_the_same_latents_better(
    trained: tuple[Checkpoint, list[Episode], Path],
) -> None:
    checkpoint, episodes, folder = trained
    frames = to_pixels(sliding_square(seed=99).pixels)

    def quality(codec: Codec) -> tuple[torch.Tensor, float]:
        with torch.no_grad():
            latents = codec.encode(frames)
            return latents, (codec.decode(latents) - frames).square().mean().item()

    latents, error = quality(checkpoint.codec)
    config = CodecTrainingConfig(minutes=10.0, max_steps=200, learning_rate=1e-3, latent_noise=0.0)
    refined = refine_decoder(
        deepcopy(checkpoint.codec), episodes, config, Progress("decoder", folder / "log.jsonl")
    )
    refined_latents, refined_error = quality(refined)
    assert torch.equal(latents, refined_latents)
    assert refined_error < error


def test_a_checkpoint_comes_back_exactly(
    trained: tuple[Checkpoint, list[Episode], Path], tmp_path: Path
) -> None:
    checkpoint = trained[0]
    checkpoint.provenance = {"seed": 0}
    save_checkpoint(tmp_path, checkpoint)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == checkpoint.config
    assert loaded.action == checkpoint.action
    assert loaded.provenance == {"seed": 0}
    for own, other in zip(checkpoint.denoiser.parameters(), loaded.denoiser.parameters(), strict=True):
        assert torch.equal(own, other)
    save_codec(tmp_path / "codec.safetensors", checkpoint.codec)
    codec = load_codec(tmp_path / "codec.safetensors", checkpoint.config.codec)
    assert torch.equal(codec.mean, checkpoint.codec.mean)


def test_weights_of_another_config_are_refused(
    trained: tuple[Checkpoint, list[Episode], Path], tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, trained[0])
    fields = json.loads((tmp_path / "config.json").read_text())
    fields["model"]["denoiser"]["depth"] = 3
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=r"weights\.safetensors: weights do not fit the Denoiser"):
        load_checkpoint(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected config\.json, found none; train one"):
        load_checkpoint(tmp_path / "nowhere")


def test_the_same_seed_gives_the_same_first_steps() -> None:
    def first_loss() -> float:
        from astra_ros.training.denoiser import _loss

        torch.manual_seed(3)
        episodes = [sliding_square()]
        checkpoint = new_checkpoint(SMALL, fit_action_spec(episodes, ("slide",), ("m",), SMALL.step_dt))
        segments = SegmentSampler(
            episodes, [_encode(checkpoint, episodes[0])], checkpoint.action, SegmentConfig(2, 2)
        )
        noise = torch.Generator().manual_seed(0)
        config = DenoiserTrainingConfig()
        return _loss(checkpoint.denoiser, segments, config, np.random.default_rng(0), noise).item()

    assert first_loss() == first_loss()


def test_the_rate_warms_up_and_ends_at_zero_in_time_or_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("astra_ros.training.budget.monotonic", lambda: now[0])
    timed = Budget(minutes=100 / 60)
    rates = []
    for now[0] in (0.0, 1.0, 2.0, 51.0, 100.0):
        rates.append(timed.rate(1.0))
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0], abs=1e-6)
    assert timed.is_spent
    counted = Budget(minutes=1000.0, max_steps=2)
    counted.step()
    assert counted.progress == 0.5
    counted.step()
    assert counted.is_spent


def test_presets_are_consistent_and_say_what_they_are() -> None:
    for name, preset in PRESETS.items():
        assert preset().preset == name
        assert ModelConfig.from_json(json.loads(json.dumps(preset().to_json()))) == preset()
    with pytest.raises(ValueError, match=r"image_size: expected .*found 64"):
        replace(PRESETS["tiny"](), image_size=64)
