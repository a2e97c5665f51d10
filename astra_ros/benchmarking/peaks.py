"""What the machine can do at most: products of large matrices and moving memory, timed like all else."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np

from astra_ros.benchmarking.interleaving import Seconds, Subject
from astra_ros.benchmarking.medians import Median, median

_PRECISIONS = {"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp32", "fp16", "bf16")}
PEAKS = tuple(
    f"peaks/{device}/{what}"
    for device, precisions in _PRECISIONS.items()
    for what in (*(f"gemm-{precision}" for precision in precisions), "memory-read", "memory-copy")
)
_SIDES = (512, 1024, 2048, 4096, 8192)
_LONGEST_PRODUCT_S = 0.15
_MEMORY_BYTES = 256 << 20  # far beyond any cache of a processor
_PASSES = 3  # over all sizes of all libraries
_UNITS = 4  # products or passes in one turn


OfSide = Callable[[int], Callable[[], object]]  # the side of two square matrices → what multiplies them
Rivals = dict[str, dict[str, OfSide]]  # by precision, then by library


@dataclass(frozen=True)
class PeakProbe:
    """run: does the work once. work: floating point operations or bytes. unit: "GFLOP/s" or "GB/s"."""

    name: str
    how: str
    unit: str
    work: float
    run: Callable[[], object]

    def subject(self) -> Subject:
        def run() -> None:
            for _ in range(_UNITS):
                self.run()

        return Subject(self.name, run, _UNITS)


@dataclass(frozen=True)
class Peak:
    """What was reached. best: in the best round. median: over rounds."""

    name: str
    how: str
    unit: str
    best: float
    median: Median


def gemm_peak(device: str, precision: str) -> str:
    """Name of the peak that arithmetic of this precision is held against; of a mixed one, its products'."""
    return f"peaks/{device.partition(':')[0]}/gemm-{precision.partition('_')[0]}"


def probes(num_threads: int) -> Iterator[PeakProbe]:
    """By torch where it is installed, on a CUDA device too if there is one; floats on the CPU by the fastest of what is there.

    That is one of torch, numpy and OpenVINO.
    numpy has its threads from the environment that its process was started with (workers.py).
    """
    others: Rivals = {"fp32": {f"numpy {np.__version__}, {num_threads} threads": _numpy_product}}
    if find_spec("openvino"):
        from astra_ros.backends.openvino_compiler import VERSION, product

        for precision in ("fp32", "bf16"):
            rivals = others.setdefault(precision, {})
            rivals[f"{VERSION}, {num_threads} threads"] = partial(product, num_threads, precision)
    if not find_spec("torch"):
        yield _gemm("peaks/cpu/gemm-fp32", others["fp32"])
        yield from _numpy_memory()
        return
    import torch

    torch.set_num_threads(num_threads)
    yield from _torch_probes("cpu", f"torch {torch.__version__}, {num_threads} threads", lambda: None, others)
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
        yield from _torch_probes("cuda", f"torch {torch.__version__}, {device}", torch.cuda.synchronize)


def summary(described: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, Seconds]) -> tuple[Peak, ...]:
    """The rates that were reached. described: how, unit and work of the probes by name."""
    rates = {name: probe["work"] / seconds[name] / 1e9 for name, probe in described.items()}
    return tuple(
        Peak(name, described[name]["how"], described[name]["unit"], round(float(rate.max()), 2), median(rate))
        for name, rate in rates.items()
    )


def _torch_probes(
    device: str, with_: str, finish: Callable[[], None], others: Rivals | None = None
) -> Iterator[PeakProbe]:
    """finish: waits for the device. others: what else multiplies, by precision."""
    import torch

    for precision in _PRECISIONS[device]:
        of_side = partial(_torch_product, device, finish, precision)
        rivals = (others or {}).get(precision, {})
        yield _gemm(f"peaks/{device}/gemm-{precision}", {with_: of_side, **rivals})
    source = torch.ones(_MEMORY_BYTES // 4, device=device)
    target = torch.zeros_like(source)

    def read() -> None:
        source.sum()
        finish()

    def copy() -> None:
        target.copy_(source)
        finish()

    yield from _memory(device, read, copy, with_)


def _torch_product(
    device: str, finish: Callable[[], None], precision: str, side: int
) -> Callable[[], object]:
    import torch

    size = (side, side)
    if precision == "int8":
        multiply = torch._int_mm  # noqa: SLF001  torch has no public one
        left, right = (torch.randint(-128, 128, size, dtype=torch.int8, device=device) for _ in range(2))
        out = torch.empty(size, dtype=torch.int32, device=device)
    else:
        multiply = torch.mm
        dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        left, right = (torch.rand(size, device=device).to(dtype) for _ in range(2))
        out = torch.empty(size, dtype=dtype, device=device)

    def run() -> None:
        multiply(left, right, out=out)
        finish()

    return run


def _numpy_product(side: int) -> Callable[[], object]:
    left, right = np.random.default_rng(0).random((2, side, side), np.float32)
    out = np.empty_like(left)
    return lambda: np.matmul(left, right, out=out)


def _numpy_memory() -> Iterator[PeakProbe]:
    source = np.ones(_MEMORY_BYTES // 4, np.float32)
    target = np.zeros_like(source)
    yield from _memory(
        "cpu", source.sum, lambda: np.copyto(target, source), f"numpy {np.__version__}, 1 thread"
    )


def _gemm(name: str, products: Mapping[str, OfSide]) -> PeakProbe:
    """The fastest size of the fastest library. Large products are left out where they take long: bfloat16 may have to be emulated.

    All are tried several times over, for what slows one down is over by then.
    """
    shortest_s: dict[tuple[str, int], float] = {}
    for _ in range(_PASSES):
        for with_, of_side in products.items():
            for side in _SIDES:
                before_s = shortest_s.get((with_, side), math.inf)
                shortest_s[with_, side] = min(before_s, _seconds(of_side(side)))
                if 8 * shortest_s[with_, side] > _LONGEST_PRODUCT_S:  # twice the side takes too long
                    break
    with_, side = max(shortest_s, key=lambda tried: tried[1] ** 3 / shortest_s[tried])
    how = f"{side}x{side} matrices, {with_}"
    return PeakProbe(name, how, "GFLOP/s", 2.0 * side**3, products[with_](side))


def _seconds(run: Callable[[], object]) -> float:
    """The shortest of a few runs: others may be using the machine."""
    ends = [perf_counter()]
    for _ in range(_UNITS):
        run()
        ends.append(perf_counter())
    return min(end - start for start, end in pairwise(ends))


def _memory(
    device: str, read: Callable[[], object], copy: Callable[[], object], with_: str
) -> Iterator[PeakProbe]:
    how = f"{_MEMORY_BYTES >> 20} MiB of float32, {with_}"
    yield PeakProbe(f"peaks/{device}/memory-read", how, "GB/s", float(_MEMORY_BYTES), read)
    yield PeakProbe(
        f"peaks/{device}/memory-copy", f"{how}; read and written bytes", "GB/s", 2.0 * _MEMORY_BYTES, copy
    )
