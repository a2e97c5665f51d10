"""Exponential moving average of a model's weights: what is evaluated and shipped."""

from __future__ import annotations

from copy import deepcopy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Ema(Generic[Model]):
    """Averages over the last 1 / (1 - decay) updates, fewer at the start."""

    def __init__(self, model: Model, decay: float) -> None:
        self.model = deepcopy(model).eval().requires_grad_(requires_grad=False)
        self.updates = 0
        self._decay = decay

    @torch.no_grad()
    def update(self, model: Model) -> None:
        self.updates += 1
        keep = min(self._decay, self.updates / (self.updates + 10))
        own: list[Tensor] = [*self.model.parameters()]
        torch._foreach_lerp_(own, [*model.parameters()], 1.0 - keep)
