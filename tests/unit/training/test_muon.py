"""Our Muon is torch's, faster on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from astra_ros.training.muon import Muon, orthogonal


def _trained(
    optimizer: Callable[..., torch.optim.Optimizer], **options: Any
) -> tuple[list[nn.Parameter], float]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(48, 16), (16, 48), (16, 16), (48, 16)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]
    matrices = [nn.Parameter(matrix.clone()) for matrix in start]
    steps = optimizer(matrices, lr=0.02, weight_decay=0.1, **options)
    for _ in range(10):
        for matrix in matrices:
            matrix.grad = torch.randn(matrix.shape, generator=generator)
        steps.step()
    return matrices, max(float((m.detach() - s).abs().max()) for m, s in zip(matrices, start, strict=True))


def test_it_goes_where_torchs_goes() -> None:
    ours, way = _trained(Muon)
    theirs, _ = _trained(torch.optim.Muon, adjust_lr_fn="match_rms_adamw")
    for own, other in zip(ours, theirs, strict=True):
        assert float((own - other).detach().abs().max()) < 0.03 * way  # bfloat16's rounding over ten steps


@pytest.mark.parametrize("shape", [(3, 24, 8), (2, 8, 24), (1, 16, 16)])
def test_singular_values_come_near_one_and_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    found = orthogonal(matrices, 5)
    values = torch.linalg.svdvals(found)
    assert 0.5 < float(values.min()) < float(values.max()) < 1.3
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    core = u.mT @ found @ vt.mT
    torch.testing.assert_close(core, torch.diag_embed(core.diagonal(dim1=1, dim2=2)), rtol=0.0, atol=1e-3)


@pytest.mark.parametrize("rank", [2, 16])
def test_rounded_products_go_nearly_the_same_way(rank: int) -> None:
    """In bfloat16, which a processor may multiply several times as fast. Gradients are nearly of low rank."""
    generator = torch.Generator().manual_seed(1)
    left, right = torch.randn(3, 64, rank, generator=generator), torch.randn(3, rank, 16, generator=generator)
    matrices = left @ right + 1e-3 * torch.randn(3, 64, 16, generator=generator)
    rounded, exact = (orthogonal(matrices, 5, dtype) for dtype in (torch.bfloat16, torch.float32))
    assert rounded.dtype == torch.float32
    assert float(torch.linalg.svdvals(rounded).max()) < 1.3
    u, _, vt = torch.linalg.svd(matrices, full_matrices=False)
    for found in (rounded, exact):  # what counts: the directions that the matrices have
        core = (u.mT @ found @ vt.mT)[:, :2, :2]
        assert float(core.diagonal(dim1=1, dim2=2).min()) > 0.5


def test_no_gradient_at_all_changes_nothing_but_the_decay() -> None:
    matrix = nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([matrix], lr=0.1, weight_decay=0.0)
    optimizer.step()
    matrix.grad = torch.zeros(4, 4)
    optimizer.step()
    assert torch.equal(matrix, torch.ones(4, 4))


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 dimensions, found \\(3,\\); give it to AdamW"):
        Muon([nn.Parameter(torch.ones(3))])
