"""The ablation trains what it says, does nothing twice, and puts variants in the right order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from astra_ros.history.noise import HISTORY_NOISE
from astra_ros.training.config import load_config
from benchmarks.ablation import VARIANTS, Runs, run_all
from benchmarks.ablation_summary import FULL, inertia_curves, report, scores, summary

CONFIG = Path(__file__).parents[3] / "benchmarks" / "ablation.yaml"


def _runs(out: Path, seeds: int = 3) -> Runs:
    return Runs(CONFIG, Path("codec"), out, seeds, minutes=1.0, guidance=1.5, windows=4, judge_steps=3)


def _measured(gap: float, long: float) -> dict[str, Any]:
    """One dataset, as `scores` gives it."""
    inertia = [
        {"history_length": length, "gap": {"gap_db": {"mean": value}}}
        for length, value in ((1, gap), (20, long))
    ]
    actions = {
        "gap": {"gap_db": {"mean": gap}},
        "recovery": {"predicted": {"mean": gap / 10}, "real": {"mean": 0.95}},
        "counterfactual": {"share": {"mean": 1.0}},
    }
    return {"panda_sim": scores(actions, inertia)}


def test_every_variant_is_a_valid_run_and_differs_where_it_says() -> None:
    full = load_config(CONFIG)
    changed = {
        name: load_config(CONFIG, variant.overrides)
        for name, variant in VARIANTS.items()
        if variant.overrides
    }
    assert changed["no_noise_memory"].objective.history_noise == HISTORY_NOISE["clean"]
    assert changed["released_noise_memory"].objective.history_noise == HISTORY_NOISE["astra_release"]
    assert changed["cross_attention_adapter"].model().denoiser.adapter == "cross_attention"
    assert changed["no_experts"].model().denoiser.actions.router == "single"
    assert full.objective.history_noise == HISTORY_NOISE["mixed"]
    assert full.model().denoiser.adapter == "act"
    assert VARIANTS["no_guidance"].trained_as == FULL


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def measure(name: str, seed: int) -> dict[str, Any]:
        asked.append((name, seed))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return _measured(3.0, 2.0)

    with pytest.raises(KeyboardInterrupt):
        run_all(_runs(tmp_path), measure)
    results = run_all(_runs(tmp_path), measure)
    assert len(asked) == 3 * len(VARIANTS) + 1
    assert {len(seeds) for seeds in results.values()} == {3}
    assert json.loads((tmp_path / "full_0.json").read_text())["variant"] == "full"


def test_weights_are_trained_once_and_shared_by_the_unguided_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[list[str]] = []

    def train(self: Runs, folder: Path, words: list[str]) -> None:
        folder.mkdir(parents=True)
        trained.append(words)

    monkeypatch.setattr(Runs, "train", train)
    runs = _runs(tmp_path)
    folders = {runs.checkpoint(name, 1, 200) for name in (FULL, "no_guidance", "no_experts", FULL)}
    assert folders == {tmp_path / "full_1", tmp_path / "no_experts_1"}
    assert trained == [
        ["seed=1", "training.max_steps=200"],
        ["seed=1", "training.max_steps=200", "denoiser.actions.router=single"],
    ]


def test_variants_are_ordered_by_what_they_lose() -> None:
    gaps = {"full": 5.0, "no_noise_memory": 2.0, "no_guidance": 3.0}
    results = {name: [_measured(gap + seed, gap) for seed in range(3)] for name, gap in gaps.items()}
    stored = json.loads(json.dumps(results))  # as read from files: the lengths are words
    summarised = summary(stored)
    assert summarised["no_noise_memory"]["gap_db_lost"].mean == 3.0
    assert (summarised["full"]["gap_db"].low, summarised["full"]["gap_db"].high) == (5.0, 7.0)
    assert inertia_curves(stored)["no_guidance"][1][1].mean == 3.0
    text = report(summarised, "3 seeds")
    places = [text.index(f"| {name} |") for name in ("full", "no_guidance", "no_noise_memory")]
    assert places == sorted(places)


def test_pictures_that_no_judge_can_read_do_not_end_it() -> None:
    unread = _measured(3.0, 2.0)
    unread["panda_sim"]["right_sign"] = None
    summarised = summary({"full": [unread], "no_guidance": [unread]})
    assert "right_sign" not in summarised["full"]
    assert "not readable" in report(summarised, "1 seed")


def test_the_number_of_steps_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(self: Runs, folder: Path, words: list[str]) -> None:
        folder.mkdir(parents=True)
        lines = [
            {"stage": "codec", "step": 9, "elapsed_s": 1},
            {"stage": "denoiser", "step": 100, "elapsed_s": 40},
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    monkeypatch.setattr(Runs, "train", train)
    assert _runs(tmp_path).num_steps() == 150
    monkeypatch.setattr(Runs, "train", None)
    assert _runs(tmp_path).num_steps() == 150
