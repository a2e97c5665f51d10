"""Which subjects are held against which: each idea alone, and the numbers to reach."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np

from astra_ros.benchmarking.candidates import Agreement
from astra_ros.benchmarking.footprint import Footprint
from astra_ros.benchmarking.interleaving import Seconds
from astra_ros.benchmarking.medians import Median, ratio
from astra_ros.benchmarking.results import Goal, IdeaGain, Speed
from astra_ros.benchmarking.runtimes import COMPARED_ON, SERVED

# What comparison graphs alone tell.
_FOLDED, _FUSED = "noise level folded into constants", "all steps in one graph"
# Idea, subject before, subject after.
_IDEAS = (
    ("history once per chunk (K/V cache)", "latents/torch/recompute", "latents/torch/remember"),
    ("history once per chunk (K/V cache)", f"latents/{SERVED}/recompute", f"latents/{SERVED}/remember"),
    ("append instead of re-encode", "latents/torch/remember", "latents/torch/append"),
    ("append instead of re-encode", f"latents/{SERVED}/remember", f"latents/{SERVED}/append"),
    (_FOLDED, f"stages/{COMPARED_ON}/step_t", f"stages/{COMPARED_ON}/step_0"),
    ("torch.compile", "latents/torch/append", "latents/torch.compile/append"),
    ("runtime", "latents/torch-sleeping/append", "latents/onnxruntime/append"),  # whose threads sleep, too
    ("runtime", "latents/torch-sleeping/append", "latents/openvino-fp32/append"),
    ("precision", "latents/openvino-fp32/append", "latents/openvino-bf16/append"),
    ("precision", "latents/openvino-fp32/append", "latents/openvino-int8/append"),
    ("precision", "latents/openvino-int8/append", "latents/openvino-int8_bf16/append"),
    ("waiting threads sleep", "latents/torch/append", "latents/torch-sleeping/append"),
    ("waiting threads sleep", "latents/onnxruntime-defaults/append", "latents/onnxruntime/append"),
    ("one history for all candidates", "candidates/latents/separate", "candidates/latents/shared"),
    ("candidates side by side", "candidates/latents/shared", "candidates/latents/batched"),
    ("CUDA graph", "latents/cuda/append", "latents/cuda.graph/append"),
)
_FEWER_STEPS = ((50, 4), (4, 2), (2, 1))  # 50: as the paper samples

_NAIVE_GOAL_WITH_MATRIX_UNIT, _NAIVE_GOAL = 15.0, 5.0
# What is compared, subject to beat, subject that beats it, how many times as fast.
_CPU_GOALS = (
    ("torch.compile with K/V cache", "{}/torch.compile/append", f"{{}}/{SERVED}/append", 4.0),
    ("ONNX Runtime's defaults", "{}/onnxruntime-defaults/append", f"{{}}/{SERVED}/append", 2.5),
)
_CUDA_GOALS = (
    ("CUDA: eager", "{}/cuda/append", "{}/cuda.graph/append", 4.0),
    ("CUDA: torch.compile, max-autotune", "{}/cuda.compile/append", "{}/cuda.graph/append", 1.5),
)
_CANDIDATES_GOAL = 3.0
_SHARE_GOAL = 0.4
_FRAMES_GOAL = 15.0
_MEMORY_GOAL_MB = 600.0


def untold_ideas(graphs: Collection[str]) -> dict[str, str]:
    """Ideas that a bundle of these graphs cannot be timed for, and the graph that each lacks."""
    return {idea: graph for idea, graph in ((_FOLDED, "step_t"), (_FUSED, "fused")) if graph not in graphs}


def ideas(seconds: Mapping[str, Seconds], num_steps: int) -> tuple[IdeaGain, ...]:
    """Of the subjects that were timed. num_steps: denoising steps of the bundle."""
    timed = [
        IdeaGain(idea, before, after, ratio(seconds[before], seconds[after]))
        for idea, before, after in _IDEAS
        if before in seconds and after in seconds
    ]
    return (*timed, *_by_formula(seconds, num_steps))


def _by_formula(seconds: Mapping[str, Seconds], num_steps: int) -> Iterator[IdeaGain]:
    """What follows from the times of single graphs."""
    compared, steps = _stages(COMPARED_ON, seconds), [f"step_{k}" for k in range(num_steps)]
    if compared.keys() >= {"fused", *steps}:
        gain = ratio(np.sum([compared[step] for step in steps], axis=0), compared["fused"])
        yield IdeaGain(_FUSED, f"{num_steps} graphs", "fused", gain)
    served = _stages(SERVED, seconds)
    if served.keys() >= {"append", "step_0"}:
        append, step = served["append"], served["step_0"]
        for many, few in _FEWER_STEPS:
            gain = ratio(append + many * step, append + few * step)
            yield IdeaGain("fewer steps, by formula", f"append + {many} steps", f"append + {few} steps", gain)


def _stages(runtime: str, seconds: Mapping[str, Seconds]) -> dict[str, Seconds]:
    """Of one runtime, by graph."""
    prefix = f"stages/{runtime}/"
    return {name.removeprefix(prefix): own for name, own in seconds.items() if name.startswith(prefix)}


def speed_goals(seconds: Mapping[str, Seconds], served_on: str) -> list[Goal]:
    """How many times as fast as others. served_on: device; a GPU does not reach what is asked of a CPU: that was not measured."""
    on_cpu = seconds if served_on == "cpu" else {}
    naive = _NAIVE_GOAL_WITH_MATRIX_UNIT if has_matrix_unit() else _NAIVE_GOAL
    cpu_goals = (("naive torch", "{}/torch/recompute", f"{{}}/{SERVED}/append", naive), *_CPU_GOALS)
    chunks = [
        _times_as_fast(
            f"{name}, {group}", timed.get(slow.format(group)), timed.get(fast.format(group)), wanted
        )
        for goals, timed in ((cpu_goals, on_cpu), (_CUDA_GOALS, seconds))
        for name, slow, fast, wanted in goals
        for group in ("latents", "pixels")
    ]
    candidates = [
        _times_as_fast(
            f"separate runs of candidates, {kind}",
            seconds.get(f"candidates/{kind}/separate"),
            seconds.get(f"candidates/{kind}/batched"),
            _CANDIDATES_GOAL,
        )
        for kind in ("latents", "frames")
    ]
    return [*chunks, *candidates]


def other_goals(
    served: Speed | None, stream: Speed | None, footprint: Footprint | None, agreement: Agreement | None
) -> list[Goal]:
    """served: a chunk as the node runs it. stream: one chunk per picture. footprint: of a process doing that."""
    share = None if served is None else served.share_of_peak
    frames_per_s = None if stream is None else stream.per_second
    memory = None if footprint is None else Median(footprint.peak_rss_mb, None, None)
    is_small = None if footprint is None else footprint.peak_rss_mb <= _MEMORY_GOAL_MB
    return [
        _at_least("share of the GEMM peak, latents", share, _SHARE_GOAL),
        _at_least("predicted frames/s, codec included", frames_per_s, _FRAMES_GOAL),
        Goal("peak resident memory, MB", f"<= {_MEMORY_GOAL_MB:g}", memory, is_small),
        Goal(
            "same ranking of candidates", "yes", None, None if agreement is None else agreement.same_ranking
        ),
    ]


def has_matrix_unit() -> bool:
    """Whether the processor multiplies tiles of bfloat16 (AMX)."""
    return "amx_bf16" in Path("/proc/cpuinfo").read_text()


def _times_as_fast(name: str, slow: Seconds | None, fast: Seconds | None, wanted: float) -> Goal:
    found = None if slow is None or fast is None else ratio(slow, fast)
    return _at_least(f"times as fast as {name}", found, wanted)


def _at_least(name: str, found: Median | None, wanted: float) -> Goal:
    return Goal(name, f">= {wanted:g}", found, None if found is None else found.median >= wanted)
