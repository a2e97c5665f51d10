"""A regression small enough to train in milliseconds, for tests of the loop."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from astra_ros.training.config import OptimisationConfig
from astra_ros.training.draw import Draw
from astra_ros.training.optimizers import denoiser_optimizers
from astra_ros.training.progress import Progress
from astra_ros.training.trainer import Trainer, TrainingStep


class ToyStep(TrainingStep):
    """Turn a vector round. Gives NaN at the steps listed in `poison`."""

    poison: tuple[int, ...] = ()
    calls = 0

    def inputs(self, draw: Draw, batch: int) -> tuple[Tensor, ...]:
        x = torch.from_numpy(draw.numpy.normal(size=(batch, 4)).astype("float32"))
        return x, 0.1 * torch.randn(batch, 4, generator=draw.torch)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        x, noise = inputs
        predicted = self.model(x)
        loss = (predicted.float() - x.flip(1) - noise).square().mean()
        if self.calls in self.poison:
            loss = loss * float("nan")
        self.calls += 1
        return {"loss": loss}


def toy_trainer(
    fabric: Fabric, folder: Path, minutes: float = 1.0, **changes: int
) -> tuple[Trainer, ToyStep]:
    """A trainer over 40 steps of 16 examples in two micro-batches."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 4))
    fields = {"batch": 16, "micro_batches": 2, "max_steps": 40, **changes}
    config = OptimisationConfig(learning_rate=1e-2, **fields)
    step = ToyStep(model)
    trainer = Trainer(
        fabric,
        step,
        denoiser_optimizers(model, model),
        config,
        minutes=minutes,
        seed=(7, 0),
        state_file=folder / "state.safetensors",
        progress=Progress("toy", folder / "log.jsonl" if fabric.is_global_zero else None, every_s=0.0),
    )
    return trainer, step
