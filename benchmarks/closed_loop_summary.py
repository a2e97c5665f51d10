"""The numbers of the closed loop: success by method, whether more candidates help, and what the ranking is worth."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.evaluation.intervals import Interval, Values, bootstrap, bootstrap_statistic, wilson
from astra_ros.evaluation.machine import describe_machine

COUNTS = (1, 4, 16, 64)
# What episodes were made with before they said so.
_OLDER = {"prior": "task", "ranking_steps": 0, "goal_frames": 1, "cem_initial_std": 0.05, "refinement": None}
TOPS = (1, 2)  # predicted best among which the true best is looked for


def require_same(files: Mapping[int, Path], settings: Mapping[str, Any], compared: Collection[int]) -> None:
    """Raises ValueError for an episode, among those that are there, that is not what is asked for.

    files: by seed. compared: seeds whose policies are compared too; that others' are as well does no harm. An older
    episode, which does not say how many steps ranked, how many frames were scored, how far CEM searched, or what mixed plans, is what _OLDER says.
    """
    for seed, file in files.items():
        if not file.is_file():
            continue
        found = {**_OLDER, **json.loads(file.read_text())}
        if wrong := [key for key, value in settings.items() if found.get(key) != value]:
            key = wrong[0]
            raise ValueError(
                f"{file}: {key}: expected {settings[key]}, found {found.get(key)}; take another --out"
            )
        if seed in compared and found["is_possible"] and "policies" not in found:
            raise ValueError(
                f"{file}: policies: expected some, found none; take another --out or fewer --policy-episodes"
            )


def summary(episodes: Sequence[dict[str, Any]], model_id: str) -> dict[str, Any]:
    """Of the files of all episodes. Raises ValueError for none in which the goal can be reached."""
    settings = ("bundle_sha256", "noise_m", *_OLDER)
    made_with = {tuple({**_OLDER, **one}[key] for key in settings) for one in episodes}
    if len(made_with) > 1:
        raise ValueError(
            "episodes: expected all of one bundle, one prior, as many ranking steps and one search, found"
            f" {len(made_with)} mixed; take another --out"
        )
    possible = [one for one in episodes if one["is_possible"]]
    if not possible:
        raise ValueError("episodes: expected some whose goal can be reached, found none")
    names = list(possible[0]["methods"])
    success = {name: np.array([one["methods"][name]["is_success"] for one in possible]) for name in names}
    rankings = [one["ranking"] for one in possible]
    policies = [one["policies"] for one in possible if "policies" in one]
    steps = {one.get("ranking_steps") for one in possible}
    return {
        "task": possible[0]["task"],
        "model_id": model_id,
        "prior": {**_OLDER, **possible[0]}["prior"],
        "noise_m": possible[0]["noise_m"],
        "ranking_steps": None if None in steps else steps.pop(),
        **{key: {**_OLDER, **possible[0]}[key] for key in ("goal_frames", "cem_initial_std", "refinement")},
        "backends": sorted({one.get("backend", "not recorded") for one in possible}),
        "episodes": len(possible),
        "left_out": len(episodes) - len(possible),
        "success": {name: asdict(wilson(int(found.sum()), len(found))) for name, found in success.items()},
        "decision_s": {
            name: round(float(np.mean([one["methods"][name]["decision_s"] for one in possible])), 3)
            for name in names
        },
        "falls": {
            f"{few}_to_{many}": round(falls(success[f"best_of_{few}"], success[f"best_of_{many}"]), 4)
            for few, many in pairwise(COUNTS)
        },
        "ratio_64_to_prior": asdict(_ratio(success["best_of_64"], success["best_of_1"])),
        "ranking": _ranking(rankings),
        "policies": _policies(policies) if len(policies) > 1 else None,
        "drops": _drops([one["drops"] for one in episodes if "drops" in one]),
        "machine": describe_machine(),
    }


def falls(few: np.ndarray, many: np.ndarray) -> float:
    """One-sided p of "fewer candidates succeed more often", from the episodes where they differ (exact sign test)."""
    better, worse = int((many & ~few).sum()), int((few & ~many).sum())
    trials = better + worse
    return sum(math.comb(trials, k) for k in range(worse, trials + 1)) / 2**trials if trials else 1.0


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation; 0 for constants."""
    first, second = (np.argsort(np.argsort(v, kind="stable"), kind="stable") for v in (one, other))
    return float(np.corrcoef(first, second)[0, 1]) if np.ptp(one) and np.ptp(other) else 0.0


def _ratio(ours: np.ndarray, prior: np.ndarray) -> Interval:
    """Over episodes. A prior that never succeeds counts as one that did once."""
    least = 1 / len(prior)
    return bootstrap_statistic(
        np.stack([ours, prior], axis=1).astype(float),
        lambda means: means[..., 0] / np.maximum(means[..., 1], least),
        np.random.default_rng(0),
    )


def _ranking(rankings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Per episode, then over episodes. top_k: share in which the true best is among the predicted best k."""
    rng = np.random.default_rng(0)
    correlations = np.array([spearman(one["predicted"], one["true"]) for one in rankings])
    ranked = [np.argsort(-np.array(one["predicted"]), kind="stable") for one in rankings]
    best = [int(np.argmax(one["true"])) for one in rankings]
    hits = {k: sum(one in order[:k] for one, order in zip(best, ranked, strict=True)) for k in TOPS}
    return {
        "candidates": len(rankings[0]["true"]),
        "spearman": asdict(bootstrap(correlations, rng)),
        **{f"top_{k}": asdict(wilson(found, len(rankings))) for k, found in hits.items()},
    }


def _drops(counters: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Inputs that the world model did not use, but for pictures that a newer one overtook, in all.

    counters: after each episode. They grow until a counter falls: then the node was started again.
    """
    total: dict[str, int] = {}
    for before, after in pairwise([{}, *counters]):
        is_new = any(after.get(name, 0) < count for name, count in before.items())
        for name, count in after.items():
            cause = name.removeprefix("drops.")
            if cause != "superseded":
                total[cause] = total.get(cause, 0) + count - (0 if is_new else before.get(name, 0))
    return total


def _policies(episodes: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """A plan is predicted to succeed when its predicted distance is below the limit that the other half of the episodes gives."""
    halves = episodes[::2], episodes[1::2]
    limits = [_limit(half) for half in reversed(halves)]
    judged = [(one, limit) for half, limit in zip(halves, limits, strict=True) for one in half]
    predicted = np.array(
        [[np.mean(np.array(policy["predicted_distance"]) < limit) for policy in one] for one, limit in judged]
    )
    true = np.array([[np.mean(policy["is_success"]) for policy in one] for one, _ in judged])
    rng = np.random.default_rng(0)
    pearson = bootstrap_statistic(np.concatenate([predicted, true], axis=1), _pearson, rng)
    bias = bootstrap((predicted - true).mean(axis=1), rng)
    return {
        "noise_m": [policy["noise_m"] for policy in episodes[0]],
        "episodes": len(judged),
        "limits": np.round(limits, 5).tolist(),
        "predicted": np.round(predicted.mean(axis=0), 3).tolist(),
        "true": np.round(true.mean(axis=0), 3).tolist(),
        "pearson": asdict(pearson),
        "bias": asdict(bias),
    }


def _limit(episodes: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Below which as many plans of all policies are predicted as do succeed."""
    plans = [policy for one in episodes for policy in one]
    distances = np.concatenate([policy["predicted_distance"] for policy in plans])
    succeeded = np.concatenate([policy["is_success"] for policy in plans])
    return float(np.quantile(distances, succeeded.mean()))


def _pearson(halves: Values) -> Values:
    """(..., 2 n), the one's n values and the other's → (...) correlation; 0 for constants."""
    one, other = (half - half.mean(axis=-1, keepdims=True) for half in np.split(halves, 2, axis=-1))
    spread = np.sqrt(np.square(one).sum(axis=-1) * np.square(other).sum(axis=-1))
    together: Values = (one * other).sum(axis=-1)
    return np.divide(together, spread, out=np.zeros_like(spread), where=spread > 1e-12)


def report(found: dict[str, Any]) -> str:
    """Markdown."""
    ranking, steps = found["ranking"], found["ranking_steps"]
    prior = (
        "the prior is what the bundle proposes"
        if found["prior"] == "model"
        else f"aim of the prior ± {100 * found['noise_m']:g} cm"
    )
    mixed = f" Refinement: {found['refinement']}." if found["refinement"] else ""
    drops = ", ".join(f"{cause} {count}" for cause, count in found["drops"].items())
    lines = [
        f"# Closed loop, task {found['task']}",
        "",
        f"Model {found['model_id']}, {found['episodes']} episodes ({found['left_out']} left out: the perfect plan fails there),"
        f" {prior}, denoising steps that rank: {'not recorded' if steps is None else steps or 'all'}."
        f" Ranked by {'; '.join(found['backends'])}. Last frames that count: {found['goal_frames']}. CEM begins with deviations of {found['cem_initial_std']:.1%} of half the trained range.{mixed}"
        " Intervals are 95 %.",
        "",
        "| method | success | seconds of choosing per episode |",
        "|---|---|---|",
        *(
            f"| {name.replace('_', ' ')} | {_percent(interval)} | {found['decision_s'][name]:.2f} |"
            for name, interval in found["success"].items()
        ),
        "",
        f"Best of 64 against the prior, times: {Interval(**found['ratio_64_to_prior']).text()}.",
        "One-sided p that success falls: "
        + ", ".join(f"K {step.replace('_to_', ' to ')}: {p:.3f}" for step, p in found["falls"].items())
        + ".",
        "",
        f"Ranking of {ranking['candidates']} candidates by their scores against the last picture that the simulator shows: Spearman"
        f" {Interval(**ranking['spearman']).text()}; the true best is the predicted best in {_percent(ranking['top_1'])}, among the"
        f" predicted best 2 in {_percent(ranking['top_2'])}.",
        f"Inputs that the world model did not use, but for overtaken pictures: {drops or 'none'}.",
    ]
    if found["policies"]:
        lines += ["", *_policy_lines(found["policies"])]
    return "\n".join(lines) + "\n"


def _percent(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.0%} ({interval['low']:.0%} … {interval['high']:.0%})"


def _policy_lines(policies: Mapping[str, Any]) -> list[str]:
    pearson, bias = policies["pearson"], policies["bias"]
    rows = zip(policies["noise_m"], policies["predicted"], policies["true"], strict=True)
    return [
        f"Predicted against true success of {len(policies['true'])} policies, {policies['episodes']} episodes: Pearson"
        f" {pearson['mean']:.2f} ({pearson['low']:.2f} … {pearson['high']:.2f}), bias {bias['mean']:+.2f} ({bias['low']:+.2f} … {bias['high']:+.2f}).",
        "",
        "| aim | predicted | true |",
        "|---|---|---|",
        *(f"| ± {100 * noise:.1f} cm | {p:.2f} | {t:.2f} |" for noise, p, t in rows),
    ]
