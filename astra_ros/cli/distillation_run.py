"""What `astra distill` does: the teacher's data as latents, the student, its held-out quality. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from astra_ros.backends.schema import parse
from astra_ros.cli.deliveries import Deliveries, checkpoint_every_s
from astra_ros.cli.training_samples import TrainingSamples
from astra_ros.data.suitability import trained_data
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint
from astra_ros.denoiser.dit import Denoiser
from astra_ros.training.config import EVALUATION_SHARE, TrainConfig
from astra_ros.training.distillation import DistillationConfig, DistillationStep, student_of
from astra_ros.training.latents import LatentStore, encode_sets
from astra_ros.training.machine import keep_precision, product_dtype
from astra_ros.training.mix import TrainingSet, as_begun, open_sets
from astra_ros.training.optimizers import denoiser_optimizers
from astra_ros.training.progress import Progress
from astra_ros.training.segments import segment_sampler
from astra_ros.training.state import require_same_run
from astra_ros.training.trainer import Trainer

DISTILLATION_STREAM = 3  # apart from the random streams of the three stages of training


class DistillationRun:
    """One student, in the folder `out`. The teacher's own configuration says on which data."""

    def __init__(self, config: DistillationConfig, out: Path, fabric: Fabric, command: str) -> None:
        self._config, self._out, self._fabric = config, out, fabric
        teacher = Path(config.teacher)
        self._teacher = load_checkpoint(teacher)
        self._train_config = _train_config(teacher, self._teacher)
        torch.manual_seed(config.seed)
        self._student = student_of(self._teacher, config)
        self._latents = self._train_config.codec_folder(teacher) / "latents"
        self._log = out / "log.jsonl" if fabric.is_global_zero else None
        identity = {key: value for key, value in asdict(config).items() if key != "checkpoint_minutes"}
        self._provenance = {"command": command, "teacher": config.teacher, "distillation": identity}
        model = self._student.config
        self._size = (model.image_height, model.image_width)
        sets = self._open_sets()
        # Only what can be distilled binds the folder.
        require_same_run(out / "run.json", identity)
        keep_precision(out, fabric)
        self._sets = self._as_begun(sets, teacher)
        samples = TrainingSamples(self._sets, self._size, model.step_dt, out / "strips")
        self._deliveries = Deliveries(out, samples)

    def run(self) -> Checkpoint:
        """Distil, evaluate and save. Goes on with an interrupted run."""
        student, config = self._student, self._config
        trainer = Trainer(
            self._fabric,
            self._step(),
            denoiser_optimizers(student.denoiser, student.denoiser.blocks, product_dtype(self._fabric)),
            config.optimisation,
            minutes=config.minutes * (1.0 - EVALUATION_SHARE),
            seed=(config.seed, DISTILLATION_STREAM),
            state_file=self._out / "state" / "student.safetensors",
            progress=Progress("student", self._log),
        )

        def deliver(averaged: Any, share: float) -> Checkpoint:
            made = replace(student, denoiser=averaged)
            if self._fabric.is_global_zero:
                self._deliver(made, share, trainer.skipped)
            self._fabric.barrier()
            return made

        every_s = checkpoint_every_s(config.checkpoint_minutes, config.minutes)
        made = deliver(trainer.run(deliver, every_s), 1.0)
        if self._fabric.is_global_zero:
            self._deliveries.tell_better()
        return made

    def _step(self) -> DistillationStep:
        config, student = self._train_config, self._student
        codec = student.codec
        self._fabric.to_device(codec)
        store = LatentStore(self._latents, codec, self._fabric, student.config.step_dt)
        encoded = encode_sets(store, self._sets, self._size, self._fabric)
        segments = segment_sampler(encoded, student.actions, replace(config.segment(), own=0.0))
        # The teacher with the student's projectors: the same answers, to the same features.
        teacher: Denoiser = student_of(self._teacher, self._config).denoiser
        return DistillationStep(
            student.denoiser, teacher, segments, self._config, config.objective, student.config.shift
        )

    def _deliver(self, student: Checkpoint, share: float, skipped: int) -> None:
        taught = self._teacher.provenance
        skipped_steps = {**taught.get("skipped_steps", {}), "student": skipped}
        provenance = {**taught, **self._provenance, "skipped_steps": skipped_steps}
        self._deliveries.deliver(student, share, provenance)

    def _open_sets(self) -> list[TrainingSet]:
        """Those of the student's action spaces."""
        opened = open_sets(self._train_config.data, self._size)
        return [one for one in opened if one.dataset.schema.space in self._student.actions]

    def _as_begun(self, sets: Sequence[TrainingSet], teacher: Path) -> list[TrainingSet]:
        """The episodes that the student began with: the teacher's, whose provenance the student has."""
        file, tell = self._out / "split.json", self._fabric.print
        if not file.is_file():
            taught = _episodes_of(teacher, self._teacher)
            sets = [as_taught(one, taught.get(one.dataset.name, {}), tell) for one in sets]
        return as_begun(sets, file, tell)


def as_taught(
    one: TrainingSet, taught: Mapping[str, Sequence[str]], tell: Callable[[str], None]
) -> TrainingSet:
    """The teacher's `training` and `held_out` episodes, where it says, as far as they are there.

    Others, and those that are held out by now, are left out, which is told.
    """
    training, held_out = {*taught.get("training", one.names)}, {*taught.get("held_out", one.held_out)}
    own = replace(
        one,
        names=tuple(name for name in one.names if name in training - held_out),
        held_out=tuple(name for name in (*one.names, *one.held_out) if name in held_out),
    )
    if left_out := {*one.names, *one.held_out} - {*own.names, *own.held_out}:
        tell(
            f"{one.dataset.name}: left out {len(left_out)} that the teacher did not have, or that are held out by now"
        )
    return own


def _episodes_of(folder: Path, teacher: Checkpoint) -> dict[str, dict[str, Sequence[str]]]:
    """By dataset the teacher's `training` episodes, of which earlier versions kept none, and those `held_out`."""
    file = folder / "split.json"
    split = parse(file.read_text()) if file.is_file() else {}
    told = trained_data(teacher.provenance)
    # Training episodes of the model's own run, without those of earlier ones; where it is not there, all that it knows.
    # Held out of the split, but known to an earlier model, is not held out.
    parts = ("training", "held_out")
    known = {name: {part: one[part] for part in parts if part in one} for name, one in told.items()}
    trained = {name: {"training": one["training"]} for name, one in split.items()}
    return {
        name: {**split.get(name, {}), **known.get(name, {}), **trained.get(name, {})}
        for name in (*split, *known)
    }


def _train_config(folder: Path, teacher: Checkpoint) -> TrainConfig:
    fields = teacher.provenance.get("train_config")
    if not isinstance(fields, dict):
        raise ValueError(
            f"{folder}/config.json: provenance.train_config: expected the configuration of the teacher's training, "
            "found none; distil a checkpoint that `astra train` made"
        )
    return TrainConfig.from_json(fields)
