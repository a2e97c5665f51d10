"""A student begins as its teacher, also for a single robot, and learns its teacher's guided answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from astra_ros.actions.spec import ActionSpec
from astra_ros.denoiser.checkpoint import Checkpoint
from astra_ros.denoiser.dit import Denoiser
from astra_ros.denoiser.presets import PRESETS
from astra_ros.flow.schedule import shifted_sigmas
from astra_ros.training.distillation import (
    DistillationConfig,
    DistillationStep,
    load_distillation,
    student_of,
)
from astra_ros.training.draw import Draw
from astra_ros.training.integration import integrate
from astra_ros.training.objective import ObjectiveConfig
from tests.unit.training.toy_denoiser import toy_checkpoint, toy_sampler, toy_specs

CONFIGURATIONS = Path(__file__).parents[3] / "config" / "distill"


@pytest.fixture(scope="module")
def specs() -> list[ActionSpec]:
    return toy_specs()


@pytest.fixture(scope="module")
def teacher(specs: list[ActionSpec]) -> Checkpoint:
    return toy_checkpoint(specs)


@pytest.mark.parametrize("space", ["toy_arm", "toy_car"])
def test_a_student_for_one_robot_answers_like_its_teacher(
    teacher: Checkpoint, specs: list[ActionSpec], space: str
) -> None:
    student = student_of(teacher, DistillationConfig("teacher", space=space))
    assert list(student.actions) == [space]
    assert student.config.num_steps == 2
    segments = toy_sampler([teacher.actions[space]]).draw(3, np.random.default_rng(0))
    noise, grid = torch.randn(segments.latents.shape), shifted_sigmas(2, 3.0)
    padded = segments.actions.shape[-1]
    assert padded == teacher.actions[space].num_features
    index = torch.full_like(segments.space, teacher.space_index(space))
    with torch.no_grad():
        expected = integrate(teacher.denoiser, replace(segments, space=index), noise, grid, 1.5)
        found = integrate(student.denoiser, segments, noise, grid, 1.5)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-4)


def test_guidance_and_steps_change_the_answer(teacher: Checkpoint, specs: list[ActionSpec]) -> None:
    """Else there would be nothing to distil, and the next test would show nothing."""
    segments = toy_sampler(specs).draw(2, np.random.default_rng(0))
    noise = torch.randn(segments.latents.shape)
    with torch.no_grad():
        plain, guided, fine = (
            integrate(teacher.denoiser, segments, noise, shifted_sigmas(steps, 3.0), guidance)
            for steps, guidance in ((2, 1.0), (2, 3.0), (16, 1.0))
        )
    assert not torch.allclose(plain, guided, atol=1e-3)
    assert not torch.allclose(plain, fine, atol=1e-3)


def test_the_student_learns_the_guided_answer(teacher: Checkpoint, specs: list[ActionSpec]) -> None:
    config = DistillationConfig("teacher", guidance=12.0, teacher_steps=4, data=0.0)
    student = student_of(teacher, config).denoiser
    step = DistillationStep(student, teacher.denoiser, toy_sampler(specs), config, ObjectiveConfig(), 3.0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for number in range(40):
        losses.append(step(*step.inputs(Draw((0,), number % 4, 0), 4))["loss"])
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert torch.stack(losses[-4:]).mean() < 0.5 * torch.stack(losses[:4]).mean()
    segments = toy_sampler(specs).draw(4, Draw((0,), 0, 0).numpy)
    noise = torch.randn(segments.latents.shape, generator=torch.Generator().manual_seed(1))

    def answer(denoiser: Denoiser, steps: int, guidance: float) -> torch.Tensor:
        return integrate(denoiser, segments, noise, shifted_sigmas(steps, 3.0), guidance)

    with torch.no_grad():
        found, guided, plain = (
            answer(student, 2, 1.0),
            answer(teacher.denoiser, 4, 12.0),
            answer(teacher.denoiser, 4, 1.0),
        )
    assert (found - guided).square().mean() < 0.5 * (found - plain).square().mean()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"num_steps": 8}, "num_steps: expected 1 to 7, found 8"),
        ({"minutes": 0.0}, "minutes: expected more than 0, found 0.0"),
        ({"guidance": 0.5}, r"guidance: expected 1 \(none\) or more, found 0.5"),
    ],
)
def test_impossible_wishes_are_refused(changes: dict[str, float], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        DistillationConfig("teacher", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_has_a_configuration_any_value_of_which_can_be_overridden(preset: str) -> None:
    file = CONFIGURATIONS / f"{preset}.yaml"
    assert load_distillation(file).teacher == f"runs/{preset}"
    changed = load_distillation(file, ["teacher=runs/mine", "optimisation.batch=512", "seed=3"])
    assert (changed.teacher, changed.optimisation.batch, changed.seed) == ("runs/mine", 512, 3)


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tiny.yaml with steps=2: .*steps"):
        load_distillation(CONFIGURATIONS / "tiny.yaml", ["steps=2"])


def test_an_unknown_space_is_refused(teacher: Checkpoint) -> None:
    with pytest.raises(ValueError, match="space: expected one of toy_arm, toy_car, found 'boat'"):
        student_of(teacher, DistillationConfig("teacher", space="boat"))
