"""What a training run makes of the machine."""

from __future__ import annotations

import torch

from astra_ros.training.machine import make_fabric, product_dtype


def test_products_are_in_the_precision_of_the_run() -> None:
    assert product_dtype(make_fabric("bf16-mixed")) == torch.bfloat16
    assert product_dtype(make_fabric("32-true")) == torch.float32
