"""Devices, precision and processes of a training run: what the machine has, by capability."""

from __future__ import annotations

import logging
import os
from typing import Literal

import torch
from lightning_fabric import Fabric

Precision = Literal["bf16-mixed", "32-true"]


def make_fabric(precision: Precision | None = None) -> Fabric:
    """A GPU if there is one, bfloat16 where the hardware multiplies it, and DDP under torchrun.

    Without torchrun this is one process on one device. The master weights are float32 in either precision.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=local,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        precision=precision or ("bf16-mixed" if _multiplies_bfloat16() else "32-true"),
    )
    fabric.launch()
    return fabric


def _multiplies_bfloat16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
