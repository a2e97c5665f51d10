"""The numbers of the closed loop, from episodes whose outcome is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.closed_loop_summary import falls, report, require_same, spearman, summary

COUNTS = (1, 4, 16, 64)
MADE_WITH = {"bundle_sha256": "0" * 64, "noise_m": 0.06}


def _episode(seed: int, *, obeys: bool) -> dict[str, Any]:
    """A model that knows better succeeds with many candidates; one that knows nothing, by chance."""
    rng = np.random.default_rng(seed)
    luck = {
        f"best_of_{count}": bool(rng.random() < (min(0.95, 0.1 * count) if obeys else 0.3))
        for count in COUNTS
    }
    true = rng.normal(size=16)
    predicted = true + (0.1 if obeys else 100.0) * rng.normal(size=16)
    skill = np.linspace(1.0, 0.0, 12)
    policies = []
    for k, share in enumerate(skill):
        succeeds = rng.random(4) < share
        seen = succeeds if obeys else rng.random(4) < 0.5
        policies.append(
            {
                "noise_m": 0.01 * (k + 1),
                "predicted_distance": np.where(seen, 0.1, 0.9).tolist(),
                "is_success": succeeds.tolist(),
            }
        )
    return {
        "task": "reach",
        "seed": seed,
        **MADE_WITH,
        "is_possible": True,
        "methods": {
            name: {"is_success": success, "decision_s": 0.5}
            for name, success in {**luck, "oracle": True}.items()
        },
        "ranking": {"predicted": predicted.tolist(), "true": true.tolist()},
        "policies": policies,
    }


def _summary(*, obeys: bool) -> dict[str, Any]:
    return summary([_episode(seed, obeys=obeys) for seed in range(60)], "model")


def test_a_model_that_knows_better_is_seen_to() -> None:
    found = _summary(obeys=True)
    assert found["success"]["best_of_64"]["mean"] > 0.9
    assert found["ratio_64_to_prior"]["low"] > 1.4
    assert min(found["falls"].values()) > 0.05
    assert found["ranking"]["spearman"]["low"] > 0.9
    assert found["ranking"]["top_2"]["mean"] > 0.9
    assert found["policies"]["pearson"]["low"] > 0.9
    assert abs(found["policies"]["bias"]["mean"]) < 0.01
    text = report(found)
    assert "| best of 64 |" in text
    assert "Pearson 1.00" in text


def test_a_model_that_knows_nothing_is_seen_to() -> None:
    found = _summary(obeys=False)
    assert found["ratio_64_to_prior"]["low"] < 1.4
    assert abs(found["ranking"]["spearman"]["mean"]) < 0.2
    assert found["policies"]["pearson"]["mean"] < 0.7


def test_goals_out_of_reach_are_left_out_and_counted() -> None:
    episodes = [_episode(seed, obeys=True) for seed in range(10)]
    episodes[3] = {"task": "reach", "seed": 3, "is_possible": False, "methods": {}, **MADE_WITH}
    found = summary(episodes, "model")
    assert (found["episodes"], found["left_out"]) == (9, 1)
    with pytest.raises(ValueError, match="expected some whose goal can be reached"):
        summary(episodes[3:4], "model")


def test_episodes_of_two_models_are_not_mixed() -> None:
    episodes = [_episode(seed, obeys=True) for seed in range(4)]
    episodes[2]["bundle_sha256"] = "1" * 64
    with pytest.raises(
        ValueError,
        match="expected all of one bundle, one prior, as many ranking steps and one search, found 2 mixed",
    ):
        summary(episodes, "model")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        (
            {"bundle_sha256": "1" * 64},
            f"bundle_sha256: expected {'1' * 64}, found {'0' * 64}; take another --out",
        ),
        ({"noise_m": 0.03}, "noise_m: expected 0.03, found 0.06; take another --out"),
        ({"ranking_steps": 1}, "ranking_steps: expected 1, found 0; take another --out"),
        ({"goal_frames": 3}, "goal_frames: expected 3, found 1; take another --out"),
        ({"refinement": "16 plans"}, "refinement: expected 16 plans, found None; take another --out"),
    ],
)
def test_episodes_of_other_settings_are_refused(tmp_path: Path, changed: dict[str, Any], line: str) -> None:
    """Half of them are there: the others must not be lived before this is told."""
    files = {seed: tmp_path / f"{seed}.json" for seed in range(4)}
    for seed in range(2):
        files[seed].write_text(json.dumps(_episode(seed, obeys=True)))
    settings = {**MADE_WITH, "ranking_steps": 0}
    require_same(files, settings, compared=range(4))
    with pytest.raises(ValueError, match=f"^{files[0]}: {line}$"):
        require_same(files, settings | changed, compared=range(4))


def test_episodes_without_policies_are_refused_where_they_are_compared(tmp_path: Path) -> None:
    """Unless there is nothing to compare: their goal cannot be reached."""
    files = {seed: tmp_path / f"{seed}.json" for seed in range(2)}
    impossible = {"task": "reach", "seed": 0, "is_possible": False, "methods": {}, **MADE_WITH}
    without = {key: value for key, value in _episode(1, obeys=True).items() if key != "policies"}
    for seed, found in enumerate((impossible, without)):
        files[seed].write_text(json.dumps(found))
    require_same(files, MADE_WITH, compared=range(1))
    with pytest.raises(
        ValueError, match=r"1\.json: policies: expected some, found none; take another --out or few"
    ):
        require_same(files, MADE_WITH, compared=range(2))


def test_the_true_best_is_looked_for_among_the_predicted_best() -> None:
    """Of 16 it is the predicted best in 2 episodes, the second in 1, the third in 1."""
    episodes = [_episode(seed, obeys=True) for seed in range(4)]
    for one, place in zip(episodes, (0, 0, 1, 2), strict=True):
        true = np.zeros(16)
        true[place] = 1.0
        one["ranking"] = {"predicted": (-np.arange(16.0)).tolist(), "true": true.tolist()}
    found = summary(episodes, "model")
    assert [found["ranking"][f"top_{k}"]["mean"] for k in (1, 2)] == [0.5, 0.75]
    assert (
        "the true best is the predicted best in 50% (15% … 85%), among the predicted best 2 in 75%"
        in report(found)
    )


def test_what_was_not_recorded_is_called_so() -> None:
    episodes = [_episode(seed, obeys=True) for seed in range(2)]
    assert (
        "denoising steps that rank: not recorded. Ranked by not recorded. Last frames that count: 1."
        in report(summary(episodes, "model"))
    )
    for one in episodes:
        one["ranking_steps"] = 0
    assert "denoising steps that rank: all." in report(summary(episodes, "model"))


def test_inputs_that_were_not_used_are_added_up_over_starts_of_the_node() -> None:
    """Its counters begin again with it."""
    episodes = [_episode(seed, obeys=True) for seed in range(4)]
    assert "did not use, but for overtaken pictures: none." in report(summary(episodes, "model"))
    for one, superseded, missing in zip(episodes, (9, 20, 8, 16), (1, 3, 3, 3), strict=True):
        one["drops"] = {"drops.superseded": superseded, "drops.no_joint_state": missing}
    found = summary(episodes, "model")
    assert found["drops"] == {"no_joint_state": 6}
    assert "did not use, but for overtaken pictures: no_joint_state 6." in report(found)


def test_all_that_ranked_is_named() -> None:
    """`auto` may choose otherwise when an interrupted run goes on."""
    episodes = [_episode(seed, obeys=True) for seed in range(3)]
    episodes[0]["backend"], episodes[1]["backend"] = "one 1.0, fp32, cpu", "one 1.0, int8, cpu"
    assert "Ranked by not recorded; one 1.0, fp32, cpu; one 1.0, int8, cpu." in report(
        summary(episodes, "model")
    )


def test_a_fall_is_noticed() -> None:
    few, many = np.ones(20, bool), np.ones(20, bool)
    assert falls(few, many) == 1.0
    many[:10] = False
    assert falls(few, many) == pytest.approx(1 / 1024)
    assert falls(many, few) == 1.0


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3], [10, 20, 400]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert spearman([1, 1, 1], [3, 2, 1]) == 0.0
