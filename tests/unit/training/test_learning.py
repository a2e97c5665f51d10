"""What training is for: in half a minute a small model predicts an episode it has not seen better than copying does."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.codec.pictures import decode_latents, encode_episode, to_pixels
from astra_ros.data.episode import Episode
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.segments import SegmentConfig, SegmentSampler, SegmentSource, cut_window, step_actions
from astra_ros.denoiser.checkpoint import Checkpoint, new_checkpoint
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.presets import ModelConfig
from astra_ros.denoiser.rollout import Memory, RolloutSettings, roll_out
from astra_ros.training.codec import CodecStep, DecoderStep, finished_codec, fit_statistics
from astra_ros.training.config import CodecTrainingConfig, OptimisationConfig
from astra_ros.training.denoiser import DenoiserStep
from astra_ros.training.frames import FramePool
from astra_ros.training.machine import make_fabric
from astra_ros.training.objective import ObjectiveConfig
from astra_ros.training.optimizers import codec_optimizers, denoiser_optimizers
from astra_ros.training.progress import Progress
from astra_ros.training.trainer import Trainer, TrainingStep
from tests.unit.training.toy_data import ARM, sliding_square

pytestmark = pytest.mark.slow

SIDE, HORIZON = 32, 8
CODEC_STEPS, DENOISER_STEPS = 150, 250


def small(seed: int) -> Episode:
    episode = sliding_square(ARM, seed, num_frames=60)
    return Episode(
        episode.name,
        episode.stamps_ns,
        episode.pixels[:, ::4, ::4].copy(),
        episode.measured,
        episode.commanded,
    )


@dataclass
class Trained:
    checkpoint: Checkpoint
    pool: FramePool
    fabric: Fabric
    folder: Path

    def train(
        self, name: str, step: TrainingStep, optimizers: list[torch.optim.Optimizer], steps: int
    ) -> None:
        config = OptimisationConfig(batch=16, learning_rate=2e-3, ema_decay=0.98, max_steps=steps)
        trainer = Trainer(
            self.fabric,
            step,
            optimizers,
            config,
            minutes=10.0,
            seed=(0, 0),
            state_file=self.folder / f"{name}.safetensors",
            progress=Progress(name, None),
        )
        step.model.load_state_dict(trainer.run().state_dict())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.manual_seed(0)
    episodes = [small(seed) for seed in range(6)]
    denoiser = DenoiserConfig(
        latent_channels=4, latent_height=4, latent_width=4, width=64, depth=2, num_heads=2, pose_rank=8
    )
    codec = CodecConfig(latent_channels=4, widths=(16, 32), num_blocks=1)
    spec = fit_action_spec(episodes, ARM, 0.2)
    checkpoint = new_checkpoint(ModelConfig("test", SIDE, SIDE, codec=codec, denoiser=denoiser), [spec])
    frames = np.concatenate([episode.pixels for episode in episodes])
    background = frames.mean(axis=0, keepdims=True).astype(np.uint8)
    pool = FramePool(frames, background, np.zeros(len(frames), int))
    run = Trained(checkpoint, pool, make_fabric(), tmp_path_factory.mktemp("run"))
    run.train(
        "codec",
        CodecStep(checkpoint.codec, pool, CodecTrainingConfig()),
        codec_optimizers(checkpoint.codec),
        CODEC_STEPS,
    )
    fit_statistics(finished_codec(checkpoint.codec), pool, 0)
    sources = [SegmentSource(e, encode_episode(checkpoint.codec, e.pixels), spec) for e in episodes]
    segments = SegmentSampler(sources, [spec.space], SegmentConfig())
    step = DenoiserStep(checkpoint.denoiser, segments, ObjectiveConfig())
    run.train(
        "denoiser", step, denoiser_optimizers(checkpoint.denoiser, checkpoint.denoiser.blocks), DENOISER_STEPS
    )
    return run


def errors(checkpoint: Checkpoint, *, shuffled: bool = False) -> dict[str, float]:
    """Mean squared error of the prediction, of copying, and of the codec alone, on an episode not trained on."""
    episode, spec = small(seed=99), checkpoint.actions[ARM.space]
    latents = encode_episode(checkpoint.codec, episode.pixels)
    found: dict[str, list[float]] = {"predicted": [], "copied": [], "ceiling": []}
    for now in range(10, 50, 8):
        target = now + np.arange(1, HORIZON + 1)
        window = cut_window(episode, latents, spec, now)
        memory = Memory(
            torch.from_numpy(window.latents)[None], window.actions[None], torch.from_numpy(window.mask)[None]
        )
        plan = step_actions(episode, spec, np.roll(target, 3) - 8 if shuffled else target)
        generator = torch.Generator().manual_seed(0)
        predicted = roll_out(checkpoint, spec.space, memory, plan[None], RolloutSettings(), generator)[0]
        happened = episode.pixels[target].astype(float)
        for name, pictures in (
            ("predicted", decode_latents(checkpoint.codec, predicted)),
            ("copied", episode.pixels[now]),
            ("ceiling", decode_latents(checkpoint.codec, torch.from_numpy(latents[target]).float())),
        ):
            found[name].append(float(np.square(pictures - happened).mean()))
    return {name: float(np.mean(values)) for name, values in found.items()}


def test_it_beats_copying_on_an_episode_it_has_not_seen(trained: Trained) -> None:
    found = errors(trained.checkpoint)
    assert found["ceiling"] < found["predicted"] < 0.5 * found["copied"]


def test_it_obeys_the_action(trained: Trained) -> None:
    assert (
        errors(trained.checkpoint)["predicted"] < 0.5 * errors(trained.checkpoint, shuffled=True)["predicted"]
    )


def test_a_refined_decoder_reads_the_same_latents_better(trained: Trained) -> None:
    frames = to_pixels(small(seed=99).pixels)

    def quality(codec: Codec) -> tuple[Tensor, float]:
        with torch.no_grad():
            latents = codec.encode(frames)
            return latents, (codec.decode(latents) - frames).square().mean().item()

    refined = deepcopy(trained.checkpoint.codec)
    latents, error = quality(refined)
    step = DecoderStep(refined, trained.pool, CodecTrainingConfig(latent_noise=0.05))
    trained.train("decoder", step, codec_optimizers(refined), 100)
    refined_latents, refined_error = quality(finished_codec(refined))
    torch.testing.assert_close(refined_latents, latents)  # channels-last convolutions round differently
    assert refined_error < error
