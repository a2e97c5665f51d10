"""What a training run makes of the machine: products in bfloat16, compiled steps."""

from __future__ import annotations

import shutil

import pytest
import torch

from astra_ros.training.denoiser import DenoiserStep
from astra_ros.training.draw import Draw
from astra_ros.training.machine import compiling_pays, make_fabric, product_dtype
from astra_ros.training.objective import ObjectiveConfig
from tests.unit.training.toy_denoiser import toy_checkpoint, toy_sampler, toy_specs

CPU = torch.device("cpu")


def test_products_are_in_the_precision_of_the_run() -> None:
    assert product_dtype(make_fabric("bf16-mixed")) == torch.bfloat16
    assert product_dtype(make_fabric("32-true")) == torch.float32


def test_compiling_needs_a_compiler_and_time_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert compiling_pays(CPU, minutes=10.0)
    assert not compiling_pays(CPU, minutes=9.0)
    assert not compiling_pays(torch.device("cuda"), minutes=60.0)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not compiling_pays(CPU, minutes=60.0)


@pytest.mark.skipif(
    not compiling_pays(CPU, minutes=60.0), reason="torch.compile needs g++, which is not here"
)
def test_a_compiled_step_teaches_the_same() -> None:
    """Losses and gradients, of two draws."""
    specs = toy_specs()
    plain, compiled = (
        DenoiserStep(
            toy_checkpoint(specs).denoiser, toy_sampler(specs), ObjectiveConfig(), compiled=is_compiled
        )
        for is_compiled in (False, True)
    )
    for number in range(2):
        draw = (0,), number, 0
        losses, expected = (step(Draw(*draw), 3) for step in (compiled, plain))
        for name, loss in expected.items():
            torch.testing.assert_close(losses[name], loss, rtol=1e-4, atol=1e-5)
        for step, its in ((compiled, losses), (plain, expected)):
            step.model.zero_grad()
            its["loss"].backward()
        gradients = zip(compiled.model.parameters(), plain.model.parameters(), strict=True)
        for own, other in gradients:
            assert (own.grad is None) == (other.grad is None)
            if own.grad is not None and other.grad is not None:
                torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)
