"""The numbers of the ablation: one dataset's scores, means and ranges over seeds, and the table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from astra_ros.evaluation.intervals import Interval
from astra_ros.evaluation.machine import describe_machine
from astra_ros.evaluation.markdown import table

FULL = "full"
SCORES = {
    "gap_db": "right less shuffled dB",
    "r_squared": "R² of the plan",
    "right_sign": "opposite plan: right sign",
    "gap_db_long_history": "right less shuffled, full memory dB",
    "gain_db": "gain at 1 s dB",
    "gain_db_far": "gain at the end of a long rollout dB",
}


def scores(
    actions: dict[str, Any], inertia: list[dict[str, Any]], held_out: dict[str, Any]
) -> dict[str, Any]:
    """One dataset's numbers. gap_db_long_history: with a full memory, where visual inertia is largest.

    gain_db, gain_db_far: PSNR over the observed frame's, at one second and at the end of a long rollout, which goes on from
    the model's own pictures (None where recordings are too short).
    """
    by_length = {point["history_length"]: point["gap"]["gap_db"]["mean"] for point in inertia}
    return {
        "gap_db": actions["gap"]["gap_db"]["mean"],
        "r_squared": actions["recovery"]["predicted"]["mean"],
        "r_squared_real": actions["recovery"]["real"]["mean"],
        "right_sign": contrary["share"]["mean"] if (contrary := actions["counterfactual"]) else None,
        "gap_db_long_history": by_length[max(by_length)],
        "gain_db": held_out["one_second"][-1]["gain_db"]["mean"],
        "gain_db_far": held_out["long"][-1]["gain_db"]["mean"] if held_out["long"] else None,
        "inertia": by_length,
    }


def summary(results: Mapping[str, Sequence[dict[str, Any]]]) -> dict[str, dict[str, Interval]]:
    """By variant: each score, mean over datasets, then mean and range over seeds; and what it loses against the full model."""
    # The judge reads the same datasets whatever is judged, so what one run lacks, all lack.
    known = [s for s in SCORES if any(one[s] is not None for one in results[FULL][0].values())]
    per_seed = {
        name: {score: np.array([_mean(seed, score) for seed in seeds]) for score in known}
        for name, seeds in results.items()
    }
    return {
        name: {
            **{score: _range(values) for score, values in own.items()},
            **{f"{score}_lost": _range(per_seed[FULL][score] - values) for score, values in own.items()},
        }
        for name, own in per_seed.items()
    }


def inertia_curves(
    results: Mapping[str, Sequence[dict[str, Any]]],
) -> dict[str, list[tuple[float, Interval]]]:
    """By variant: gap against history length, mean over datasets, with the range over seeds."""
    curves = {}
    for name, seeds in results.items():
        lengths = [int(n) for n in next(iter(seeds[0].values()))["inertia"]]
        gaps = [[np.mean([d["inertia"][str(n)] for d in seed.values()]) for n in lengths] for seed in seeds]
        curves[name] = [
            (float(n), _range(column)) for n, column in zip(lengths, np.array(gaps).T, strict=True)
        ]
    return curves


def report(summarised: Mapping[str, Mapping[str, Interval]], how: str) -> str:
    """Markdown: variants in the order of what they lose. how: seeds, steps and guidance, in words."""
    order = sorted(summarised, key=lambda name: summarised[name]["gap_db_lost"].mean)
    rows = [
        (
            name,
            *(summarised[name][s].text() if s in summarised[name] else "not readable" for s in SCORES),
            summarised[name]["gap_db_lost"].text("+.2f"),
            summarised[name]["r_squared_lost"].text("+.2f"),
        )
        for name in order
    ]
    header = ("variant", *SCORES.values(), "lost dB", "lost R²")
    machine = describe_machine(("torch", "numpy"))
    return (
        f"# Ablation\n\n{how}; means over datasets, then mean "
        f"(least … most) over seeds. {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}.\n\n"
        f"{table(header, rows)}\n\n    {shlex.join(['python', '-m', 'benchmarks.ablation', *sys.argv[1:]])}\n"
    )


def _mean(datasets: dict[str, Any], score: str) -> float:
    """Over the datasets that have it."""
    return float(np.mean([values[score] for values in datasets.values() if values[score] is not None]))


def _range(values: np.ndarray) -> Interval:
    """Mean, least and most over seeds."""
    return Interval(*(round(float(f(values)), 4) for f in (np.mean, np.min, np.max)))
