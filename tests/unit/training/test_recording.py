"""What a GPU replays is what it would do launch by launch, in every stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.data.segments import SegmentConfig
from astra_ros.training.codec import CodecStep, DecoderStep, MovedCodecStep
from astra_ros.training.config import CodecTrainingConfig, OptimisationConfig
from astra_ros.training.denoiser import DenoiserStep
from astra_ros.training.distillation import DistillationConfig, DistillationStep, student_of
from astra_ros.training.frames import FramePool
from astra_ros.training.machine import make_fabric
from astra_ros.training.objective import ObjectiveConfig
from astra_ros.training.optimizers import codec_optimizers, denoiser_optimizers
from astra_ros.training.progress import Progress
from astra_ros.training.trainer import Trainer, TrainingStep
from tests.unit.training.toy_denoiser import toy_checkpoint, toy_sampler, toy_specs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, found none")


def step_of(stage: str) -> TrainingStep:
    specs = toy_specs()
    toy = toy_checkpoint(specs)
    if stage.endswith("codec") or stage == "decoder":
        frames = np.random.default_rng(0).integers(256, size=(32, 32, 32, 3), dtype=np.uint8)
        pool = FramePool(frames, frames[:1], np.zeros(len(frames), int))
        steps = {"codec": CodecStep, "moved codec": MovedCodecStep, "decoder": DecoderStep}
        return steps[stage](toy.codec, pool, CodecTrainingConfig(motion=0.1))
    if stage in ("denoiser", "own memory"):
        segments = toy_sampler(specs, SegmentConfig(own=0.5 * (stage == "own memory")))
        return DenoiserStep(toy.denoiser, segments, ObjectiveConfig())
    config = DistillationConfig("teacher", teacher_steps=4)
    student = student_of(toy, config).denoiser
    return DistillationStep(student, toy.denoiser, toy_sampler(specs), config, ObjectiveConfig(), 3.0)


def trained(stage: str, folder: Path, *, recorded: bool) -> tuple[list[torch.Tensor], list[dict[str, float]]]:
    """Weights after twelve steps of two micro-batches, and what was logged of each."""
    step = step_of(stage)
    is_codec = isinstance(step, CodecStep)
    optimizers = codec_optimizers(step.model) if is_codec else denoiser_optimizers(step.model, step.model)
    trainer = Trainer(
        make_fabric("32-true"),
        step,
        optimizers,
        OptimisationConfig(batch=8, micro_batches=2, max_steps=12, learning_rate=1e-3),
        minutes=1.0,
        seed=(0, 0),
        state_file=folder / "state.safetensors",
        progress=Progress(stage, folder / "log.jsonl", every_s=0.0),
    )
    if not recorded:
        trainer._learn, trainer._is_recorded = trainer._passes, False
    trainer.run()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [weight.detach().cpu() for weight in trainer.model.parameters()], lines


@pytest.mark.parametrize("stage", ["codec", "moved codec", "decoder", "denoiser", "own memory", "student"])
def test_a_recorded_training_goes_where_launches_go(stage: str, tmp_path: Path) -> None:
    found, found_lines = trained(stage, tmp_path / "recorded", recorded=True)
    expected, lines = trained(stage, tmp_path / "launched", recorded=False)
    for name in ("loss", "gradient_norm"):
        theirs, ours = ([line[name] for line in some] for some in (lines, found_lines))
        assert ours == pytest.approx(theirs, rel=1e-2)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-4)  # nothing is left of recording it
        assert max(theirs) > 1.001 * min(theirs)  # or equal losses would show nothing
    for own, other, start in zip(found, expected, step_of(stage).model.parameters(), strict=True):
        way = float((other - start).detach().abs().max())
        assert float((own - other).abs().max()) <= 0.1 * way
