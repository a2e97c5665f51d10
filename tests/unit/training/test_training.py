"""Training learns, the same seed gives the same start, and checkpoints come back exactly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.codec.autoencoder import CodecConfig
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
from astra_ros.training.codec import CodecTrainingConfig, train_codec
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
    columns = np.clip(np.cumsum(rng.normal(0, 3, num_frames)) + 12, 0, 24).astype(np.float32)
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
    codec_progress = Progress("codec", folder / "log.jsonl", every_s=1.0)
    checkpoint.codec = train_codec(
        checkpoint.codec, episodes, CodecTrainingConfig(minutes=0.15), codec_progress
    )
    latents = [np.asarray(_encode(checkpoint, episode)) for episode in episodes]
    segments = SegmentSampler(episodes, latents, checkpoint.action, SegmentConfig(2, 2))
    config = DenoiserTrainingConfig(minutes=0.2, batch=16, checkpoint_minutes=0.1)
    progress = Progress("denoiser", folder / "log.jsonl", every_s=1.0)
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
    rollouts = held_out_rollouts(
        checkpoint.codec, checkpoint.denoiser, SMALL.sigmas, checkpoint.action, held_out, 4, 8
    )
    table = summarise(rollouts)
    assert np.mean(table["predicted"]) > np.mean(table["copy_last"])
    assert np.mean(table["ceiling"]) >= np.mean(table["predicted"])
    save_strips(rollouts[:2], folder / "strip.png")
    assert (folder / "strip.png").stat().st_size > 0


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


def test_the_budget_warms_up_and_ends_at_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("astra_ros.training.budget.monotonic", lambda: now[0])
    budget = Budget(minutes=1.0, warmup=0.1)
    rates = []
    for now[0] in (0.0, 3.0, 6.0, 33.0, 60.0):
        rates.append(budget.rate(1.0))
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0], abs=1e-6)
    assert budget.is_spent


def test_presets_are_consistent_and_say_what_they_are() -> None:
    for name, preset in PRESETS.items():
        assert preset().preset == name
        assert ModelConfig.from_json(json.loads(json.dumps(preset().to_json()))) == preset()
    with pytest.raises(ValueError, match=r"image_size: expected .*found 64"):
        replace(PRESETS["tiny"](), image_size=64)
