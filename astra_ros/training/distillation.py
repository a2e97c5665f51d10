"""Distillation: a student reaches in a few steps, without guidance, what its teacher reaches in many with it.

The student starts as the teacher. From the same noise and history both are integrated; the student's end is drawn to
the teacher's, and the plain flow loss on data keeps it from drifting where the teacher is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from astra_ros.backends.schema import decode
from astra_ros.data.segments import SEGMENT_TENSORS, SegmentBatch, SegmentSampler
from astra_ros.denoiser.checkpoint import Checkpoint, new_checkpoint
from astra_ros.denoiser.dit import Denoiser
from astra_ros.flow.schedule import shifted_sigmas
from astra_ros.training.config import OptimisationConfig, read_config
from astra_ros.training.draw import Draw
from astra_ros.training.integration import integrate
from astra_ros.training.objective import Drawn, ObjectiveConfig, denoising_loss, draw_for
from astra_ros.training.trainer import TrainingStep
from astra_ros.training.warm_start import start_at


@dataclass(frozen=True)
class DistillationConfig:
    """A student.

    teacher: folder of its checkpoint. num_steps: of the student. guidance, teacher_steps: of the teacher. data: weight of the
    flow loss. space: the only action space kept, or all. minutes: budget. checkpoint_minutes: how often the averaged student is
    evaluated and written.
    """

    teacher: str
    num_steps: int = 2
    guidance: float = 1.5
    teacher_steps: int = 8
    data: float = 0.5
    space: str | None = None
    minutes: float = 5.0
    checkpoint_minutes: float = 8.0
    seed: int = 0
    optimisation: OptimisationConfig = field(default_factory=partial(OptimisationConfig, learning_rate=5e-4))

    def __post_init__(self) -> None:
        if not 1 <= self.num_steps < self.teacher_steps:
            raise ValueError(f"num_steps: expected 1 to {self.teacher_steps - 1}, found {self.num_steps}")
        if self.guidance < 1.0:
            raise ValueError(f"guidance: expected 1 (none) or more, found {self.guidance}")
        for name in ("minutes", "checkpoint_minutes"):
            if (found := getattr(self, name)) <= 0:
                raise ValueError(f"{name}: expected more than 0, found {found}")


def load_distillation(path: Path, overrides: Sequence[str] = ()) -> DistillationConfig:
    """Of a YAML file. Raises as read_config."""
    return read_config(path, overrides, partial(decode, DistillationConfig))


class DistillationStep(TrainingStep):
    """Imitate the teacher's result."""

    model: Denoiser

    def __init__(
        self,
        student: Denoiser,
        teacher: Denoiser,
        segments: SegmentSampler,
        config: DistillationConfig,
        objective: ObjectiveConfig,
        shift: float,
    ) -> None:
        super().__init__(student)
        self.teacher = teacher.eval().requires_grad_(requires_grad=False)
        self._segments, self._config, self._shift = segments, config, shift
        served = shifted_sigmas(config.num_steps, shift)
        self._objective = replace(objective, sigmas=replace(objective.sigmas, served=served[:-1]))

    def inputs(self, draw: Draw, batch: int) -> tuple[Tensor, ...]:
        segments = self._segments.draw(batch, draw.numpy).to(draw.device)
        noise = draw.normal(segments.latents.shape)
        return (*segments.tensors, noise, *draw_for(segments, self._objective, draw))

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        segments, (noise, *drawn) = SegmentBatch(*inputs[:SEGMENT_TENSORS]), inputs[SEGMENT_TENSORS:]
        config = self._config
        with torch.no_grad():
            grid = shifted_sigmas(config.teacher_steps, self._shift)
            target = integrate(self.teacher, segments, noise, grid, config.guidance)
        reached = integrate(self.model, segments, noise, shifted_sigmas(config.num_steps, self._shift))
        imitation = (reached - target).float().square().mean()
        flow = denoising_loss(self.model, segments, Drawn(*drawn), self._objective)
        loss = imitation + config.data * flow.total
        return {"loss": loss, "imitation": imitation.detach(), "flow": flow.flow}


def student_of(teacher: Checkpoint, config: DistillationConfig) -> Checkpoint:
    """A copy of the teacher, for the student's number of steps, and for one action space if that is asked for."""
    spaces = list(teacher.actions) if config.space is None else [config.space]
    model = replace(teacher.config, num_steps=config.num_steps)
    specs = list(teacher.actions.values())
    student = new_checkpoint(model, [specs[teacher.space_index(space)] for space in spaces])
    start_at(student, teacher)
    return student
