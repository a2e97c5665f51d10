"""Muon for many small matrices: those of one shape together, in float32 on their Gram matrices.

torch.optim.Muon orthogonalises one matrix at a time in bfloat16. Of a training step of `tiny` on two cores of a Xeon without AMX
the optimisers took 0.37 of 1.23 s with it, and take 0.18 of 1.08 s with this. The mathematics are its own (Newton-Schulz,
Jordan et al. 2024), as is the meaning of every option.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, with the step size that AdamW's would have (root mean square 0.2). Matrices only.

    dtype: of the products that make it so.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        steps: int = 5,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        matrices = list(matrices)
        if wrong := [tuple(p.shape) for p in matrices if p.ndim != 2]:
            raise ValueError(f"matrices: expected 2 dimensions, found {wrong[0]}; give it to AdamW")
        super().__init__(
            matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "steps": steps}
        )
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        del closure
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                directions = self._directions(parameters, group["momentum"])
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                updates = orthogonal(torch.stack(directions), group["steps"], self._dtype)
                torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(parameters, updates.unbind(), alpha=rate)

    def _directions(self, parameters: list[Tensor], momentum: float) -> tuple[Tensor, ...]:
        """Nesterov's look ahead, of parameters that have gradients."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        averages = [self._average(p) for p in parameters]
        torch._foreach_lerp_(averages, gradients, 1.0 - momentum)
        return torch._foreach_lerp(gradients, averages, momentum)  # noqa: SLF001 (no public way for many at once)

    def _average(self, parameter: Tensor) -> Tensor:
        """Of its gradients so far, zero at first."""
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average: Tensor = state["momentum_buffer"]
        return average


def orthogonal(matrices: Tensor, steps: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(k, n, m) → (k, n, m): the same singular vectors, singular values near 1. Products are in `dtype`.

    Newton-Schulz: x ← (a + b x xᵀ + c (x xᵀ)²) x.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT, steps, dtype).mT
    x = matrices.float()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    iterate = _on_gram_matrices if dtype == torch.float32 else _on_matrices
    return iterate(x.to(dtype), steps).to(matrices.dtype)


def _on_matrices(x: Tensor, steps: int) -> Tensor:
    """As it is written. It bears rounding: the Gram matrix of whatever x has become has no negative eigenvalues."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def _on_gram_matrices(x: Tensor, steps: int) -> Tensor:
    """All steps are polynomials in the first x xᵀ, the smaller Gram matrix: x itself is multiplied twice, however many there are.

    In float32 only: coarser rounding makes small eigenvalues negative, and those grow without bound.
    """
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.mT
    product = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for _ in range(steps):
        factor = b * gram + c * (gram @ gram)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product, gram = factor @ product, factor @ gram @ factor
    return product @ x
