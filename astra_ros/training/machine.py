"""Devices, precision and processes of a training run: what the machine has, by capability."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from astra_ros.backends.schema import decode, parse
from astra_ros.training.state import begun_with

Precision = Literal["bf16-mixed", "32-true"]

PRECISION_FILE = "precision.json"
# Of float32's time that a bfloat16 product may take: casts and slower convolutions eat the rest.
BFLOAT16_PAYS = 0.75
# The first process reads, evaluates and writes for all, while the others wait.
LONGEST_WAIT = timedelta(hours=6)
# Cores left to the process that trains, and the most that draw for it: so it was measured on 16 cores.
OTHER_CORES, MOST_WORKERS = 3, 13


@dataclass(frozen=True)
class Arithmetic:
    """What a run was begun with, for the kind of device that it was begun on."""

    device: str
    precision: Precision


def make_fabric(precision: Precision | None = None) -> Fabric:
    """A GPU if there is one, bfloat16 where it is faster, and DDP under torchrun.

    Without torchrun this is one process on one device. The master weights are float32 in either precision.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    fabric = Fabric(
        accelerator=_device(),
        devices=local,
        num_nodes=processes // local,
        strategy=DDPStrategy(timeout=LONGEST_WAIT) if processes > 1 else "auto",
        precision=precision or ("bf16-mixed" if _multiplies_bfloat16() else "32-true"),
    )
    fabric.launch()
    return fabric


def kept_precision(out: Path) -> Precision | None:
    """The precision that the run in this folder was begun with: choosing again, beside other work, might give another.

    None where nothing was begun, or on another kind of device. Raises ValueError for a damaged file.
    """
    file = out / PRECISION_FILE
    if not file.is_file():
        return None
    try:
        kept = decode(Arithmetic, parse(file.read_text()))
    except ValueError as error:
        raise ValueError(f"{file}: {error}; remove it, and the precision is chosen anew") from error
    return kept.precision if kept.device == _device() else None


def keep_precision(out: Path, fabric: Fabric) -> None:
    """For `kept_precision` of later starts."""
    precision: Precision = "bf16-mixed" if product_dtype(fabric) == torch.bfloat16 else "32-true"
    begun_with(out / PRECISION_FILE, asdict(Arithmetic(fabric.device.type, precision)))


def product_dtype(fabric: Fabric) -> torch.dtype:
    """Of the matrix products of a run."""
    is_mixed = fabric.strategy.precision.precision == "bf16-mixed"
    return torch.bfloat16 if is_mixed else torch.float32


def drawing_workers(device: torch.device) -> int:
    """Processes that draw segments ahead for this one. A GPU would wait for them; a CPU has no core to spare: none."""
    if device.type == "cpu":
        return 0
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_WORKERS, cores - OTHER_CORES))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _multiplies_bfloat16() -> bool:
    """Whether bfloat16 pays. A CPU that lists the instructions may still be slower with them than in float32.

    Several processes go by the list alone: by their clocks they might choose differently, and train apart.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    listed = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16"))
    if not listed or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return bool(listed)
    return _product_seconds(torch.bfloat16) < BFLOAT16_PAYS * _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    """Of the matrix product of a block, the best of several runs."""
    tokens, weights = torch.ones(2048, 256, dtype=dtype), torch.ones(256, 1024, dtype=dtype)

    def run() -> float:
        started = perf_counter()
        torch.mm(tokens, weights)
        return perf_counter() - started

    return min(run() for _ in range(20))
