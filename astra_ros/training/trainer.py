"""The training loop that every stage shares: micro-batches, clipping, averaging, saving and going on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import count
from pathlib import Path
from time import monotonic

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from astra_ros.training.budget import Budget
from astra_ros.training.config import OptimisationConfig
from astra_ros.training.draw import Draw
from astra_ros.training.ema import Ema
from astra_ros.training.progress import Progress
from astra_ros.training.recording import Recording
from astra_ros.training.state import Counters, load_state, save_state

SAVE_EVERY_S = 300.0


class TrainingStep(nn.Module):
    """What one micro-batch teaches a network.

    model: what is trained. `inputs` draws a micro-batch, `forward` turns it into scalar losses by name, of which `loss` is
    minimised.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def preparing(self, draws: Iterable[Draw], batch: int) -> AbstractContextManager[None]:
        """Held while `inputs` is called for these draws, in this order, so that a step can work ahead. They have no end."""
        del draws, batch
        return nullcontext()

    def inputs(self, draw: Draw, batch: int) -> tuple[Tensor, ...]:
        """All that is random, on the draw's device; of the same shapes for every draw."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Of these tensors alone, and without waiting for a value of theirs: a GPU replays what it recorded once."""
        raise NotImplementedError


def parts_of(config: OptimisationConfig, processes: int) -> int:
    """Micro-batches of a step, of all processes together. Raises ValueError when the batch has not as many equal parts."""
    parts = math.lcm(config.micro_batches, processes)
    if config.batch % parts:
        raise ValueError(
            f"batch: expected a multiple of {parts} (micro_batches, processes), found {config.batch}"
        )
    return parts


class Trainer:
    """Trains `step.model` within its budget, going on from `state_file` if that exists.

    minutes: of the budget, where the configuration does not count steps.
    """

    def __init__(  # noqa: PLR0913 (a stage is these eight things)
        self,
        fabric: Fabric,
        step: TrainingStep,
        optimizers: Sequence[torch.optim.Optimizer],
        config: OptimisationConfig,
        *,
        minutes: float,
        seed: tuple[int, ...],
        state_file: Path,
        progress: Progress,
    ) -> None:
        self._fabric, self._config, self._seed = fabric, config, seed
        self._state_file, self._progress = state_file, progress
        self._optimizers = list(optimizers)
        self._preparing, self._inputs = step.preparing, step.inputs
        self._step, *self._fabric_optimizers = fabric.setup(step, *optimizers)
        self.model, self.ema = step.model, Ema(step.model, config.ema_decay)
        self.skipped = 0
        self._is_half_done = False  # a step: some weights are new, others are not
        self._budget = Budget(minutes, config.max_steps, config.warmup)
        self._parts = parts_of(config, fabric.world_size)
        self._own = range(fabric.global_rank, self._parts, fabric.world_size)
        self._is_recorded = fabric.device.type == "cuda" and fabric.world_size == 1
        self._learn = Recording(self._passes, self.model.parameters()) if self._is_recorded else self._passes
        if state_file.is_file():
            self._restore()
        self._saved = monotonic()

    def run(
        self, on_checkpoint: Callable[[nn.Module, float], object] | None = None, every_s: float = math.inf
    ) -> nn.Module:
        """Returns the averaged model; `on_checkpoint(averaged, share of budget)` is called every `every_s` seconds."""
        self.model.train()
        checked, every_s = monotonic(), self._agreed(every_s)
        try:
            with self._preparing(self._draws(), self._micro_batch):
                while (share := self._share()) < 1.0:
                    self._train_step(share)
                    if on_checkpoint and self._agreed(monotonic() - checked) >= every_s:
                        on_checkpoint(self.ema.model, share)
                        checked = monotonic()
                    if monotonic() - self._saved > SAVE_EVERY_S:
                        self.save()
        finally:  # an interrupted run goes on from its last whole step, or from what was saved before
            if not self._is_half_done:
                self.save()
        return self.ema.model

    def save(self) -> None:
        """Write the state; only the first process does."""
        self._saved = monotonic()
        if self._fabric.is_global_zero:
            budget = self._budget
            counters = Counters(
                budget.steps, self.skipped, self.ema.updates, budget.elapsed_s, budget.minutes
            )
            save_state(self._state_file, self._models, self._optimizers, counters)

    def _train_step(self, share: float) -> None:
        losses = self._gradients()
        self._is_half_done = True
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._config.max_norm)
        if bool(norm.isfinite()):  # of the averaged gradient, so every process decides alike
            for optimizer in self._fabric_optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = self._config.learning_rate * self._budget.rate(share)
                optimizer.step()
            self.ema.update(self.model)
            self._progress.add(**losses, gradient_norm=norm.item())
        else:
            self.skipped += 1
        for optimizer in self._fabric_optimizers:
            optimizer.zero_grad(set_to_none=not self._is_recorded)
        self._budget.step()
        self._is_half_done = False
        self._progress.step(self._budget.steps, self._budget.progress, skipped=self.skipped)

    def _gradients(self) -> dict[str, float]:
        """Mean gradient over the micro-batches of all processes; mean losses of this process."""
        sums: dict[str, float] = {}
        for part in self._own:
            with self._without_sync(unless=part == self._own[-1]):
                losses = self._learn(self._inputs(self._draw(self._budget.steps, part), self._micro_batch))
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() / len(self._own)
        return sums

    def _passes(self, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Forward and backward: losses of a micro-batch, and its part of the step's gradient is added."""
        losses: dict[str, Tensor] = self._step(*inputs)
        self._fabric.backward(losses["loss"] / len(self._own))
        return losses

    def _draws(self) -> Iterator[Draw]:
        """Of all micro-batches of this process, from the step that comes."""
        return (self._draw(step, part) for step in count(self._budget.steps) for part in self._own)

    def _draw(self, step: int, part: int) -> Draw:
        return Draw(self._seed, step, part, str(self._fabric.device))

    def _without_sync(self, *, unless: bool) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = self._fabric.no_backward_sync(self._step, enabled=not unless)
        return context

    def _share(self) -> float:
        return self._agreed(self._budget.progress)

    def _agreed(self, own: float) -> float:
        """What the first process's clock says, so that all do the same."""
        return self._fabric.broadcast(own) if self._fabric.world_size > 1 else own

    @property
    def _micro_batch(self) -> int:
        return self._config.batch // self._parts

    @property
    def _models(self) -> dict[str, nn.Module]:
        return {"model": self.model, "ema": self.ema.model}

    def _restore(self) -> None:
        counters = load_state(self._state_file, self._models, self._optimizers)
        minutes = counters.minutes or self._budget.minutes
        self._budget.resume(counters.steps, counters.elapsed_s, minutes)
        self.skipped, self.ema.updates = counters.skipped, counters.updates
