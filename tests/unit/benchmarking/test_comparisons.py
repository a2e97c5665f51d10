"""Ratios, ideas, goals and tables, of made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest

from astra_ros.benchmarking import comparisons
from astra_ros.benchmarking.candidates import Agreement
from astra_ros.benchmarking.footprint import Footprint
from astra_ros.benchmarking.interleaving import Seconds
from astra_ros.benchmarking.medians import Median, median
from astra_ros.benchmarking.results import Goal, Speed

DISTURBANCE = np.array([1.0, 7.0, 2.0, 1.0])


def rounds(seconds: float) -> Seconds:
    """The same in every round, but for what disturbs all alike."""
    return seconds * DISTURBANCE


def gains(seconds: dict[str, Seconds]) -> dict[tuple[str, str], float]:
    return {(gain.idea, gain.after): gain.faster.median for gain in comparisons.ideas(seconds, 2)}


def test_each_idea_is_told_from_subjects_that_differ_by_it_alone() -> None:
    found = gains(
        {
            "latents/torch/recompute": rounds(8.0),
            "latents/torch/remember": rounds(4.0),
            "latents/torch/append": rounds(3.2),
            "latents/torch-sleeping/append": rounds(6.4),
            "latents/openvino-fp32/append": rounds(0.8),
            "latents/openvino-bf16/append": rounds(0.4),
        }
    )
    assert found == {
        ("history once per chunk (K/V cache)", "latents/torch/remember"): 2.0,
        ("append instead of re-encode", "latents/torch/append"): 1.25,
        ("runtime", "latents/openvino-fp32/append"): 8.0,
        ("waiting threads sleep", "latents/torch-sleeping/append"): 0.5,
        ("precision", "latents/openvino-bf16/append"): 2.0,
    }


def test_fewer_steps_follow_from_the_times_of_a_step_and_of_append() -> None:
    found = gains({"stages/served/append": rounds(2.0), "stages/served/step_0": rounds(4.0)})
    assert found["fewer steps, by formula", "append + 4 steps"] == pytest.approx(202 / 18, rel=1e-3)
    assert found["fewer steps, by formula", "append + 2 steps"] == pytest.approx(18 / 10, rel=1e-3)
    assert not gains({"stages/served/append": rounds(2.0), "stages/served/step_1": rounds(4.0)})


def test_a_fused_graph_is_compared_with_all_steps() -> None:
    seconds = {
        f"stages/onnxruntime/{graph}": rounds(1.0) for graph in ("step_0", "step_1", "step_t", "step_0_x8")
    }
    seconds["stages/onnxruntime/fused"] = rounds(1.6)
    assert gains(seconds)["all steps in one graph", "fused"] == 1.25
    del seconds["stages/onnxruntime/step_0"]
    assert ("all steps in one graph", "fused") not in gains(seconds)


def goal(goals: list[Goal], name: str) -> Goal:
    return next(one for one in goals if one.name == name)


def test_a_goal_is_reached_by_the_median_of_the_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {
        "latents/torch/recompute": rounds(12.0),
        "latents/onnxruntime-defaults/append": rounds(2.4),
        "latents/served/append": rounds(1.0),
        "candidates/frames/separate": rounds(3.0),
        "candidates/frames/batched": rounds(1.0),
    }
    monkeypatch.setattr(comparisons, "has_matrix_unit", lambda: False)
    found = comparisons.speed_goals(seconds, "cpu")
    assert goal(found, "times as fast as naive torch, latents") == Goal(
        "times as fast as naive torch, latents", ">= 5", Median(12.0, 12.0, 12.0), is_reached=True
    )
    assert goal(found, "times as fast as ONNX Runtime's defaults, latents").is_reached is False
    assert goal(found, "times as fast as separate runs of candidates, frames").is_reached is True
    assert goal(found, "times as fast as naive torch, pixels").is_reached is None
    monkeypatch.setattr(comparisons, "has_matrix_unit", lambda: True)
    assert (
        goal(comparisons.speed_goals(seconds, "cpu"), "times as fast as naive torch, latents").is_reached
        is False
    )


def test_a_gpu_does_not_reach_the_goals_of_a_cpu() -> None:
    """That it is faster than a CPU says nothing of this program."""
    seconds = {
        "latents/torch/recompute": rounds(900.0),
        "latents/torch.compile/append": rounds(90.0),
        "latents/onnxruntime-defaults/append": rounds(90.0),
        "latents/served/append": rounds(1.0),
        "latents/cuda/append": rounds(9.0),
        "latents/cuda.graph/append": rounds(1.0),
        "candidates/latents/separate": rounds(9.0),
        "candidates/latents/batched": rounds(1.0),
    }
    for device, expected in (("cpu", 5), ("cuda:0 (a GPU, SM 89)", 2)):
        found = comparisons.speed_goals(seconds, device)
        assert sum(one.is_reached is True for one in found) == expected
        assert goal(found, "times as fast as CUDA: eager, latents").is_reached is True
        assert goal(found, "times as fast as separate runs of candidates, latents").is_reached is True
    assert goal(found, "times as fast as naive torch, latents").found is None


def speed(seconds: float, share: float | None = None) -> Speed:
    own = rounds(seconds)
    share_of_peak = None if share is None else Median(share, share, share)
    return Speed("made up", median(1e3 * own), median(1 / own), None, None, None, share_of_peak)


def test_the_other_goals() -> None:
    small = Footprint("made up", 0.5, 1.0, 400.0, 590.0)
    found = comparisons.other_goals(
        speed(1.0, 0.41), speed(0.1), small, Agreement(0.0, 1.0, same_ranking=True)
    )
    # Disturbed rounds count here: 10, 1.4, 5 and 10 frames/s.
    assert [(one.found and one.found.median, one.is_reached) for one in found] == [
        (0.41, True),
        (7.5, False),
        (590.0, True),
        (None, True),
    ]
    unknown = comparisons.other_goals(speed(1.0), None, None, None)
    assert [(one.found, one.is_reached) for one in unknown] == [(None, None)] * 4
