"""The ablation trains what it says, does nothing twice, and puts variants in the right order."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from astra_ros.history.noise import HISTORY_NOISE
from astra_ros.training.config import load_config
from benchmarks.ablation import VARIANTS, VIDEO_MODEL, Runs, main, run_all
from benchmarks.ablation_summary import FULL, inertia_curves, report, scores, summary

CONFIG = Path(__file__).parents[3] / "benchmarks" / "ablation.yaml"


def _runs(out: Path, seeds: int = 3) -> Runs:
    return Runs(
        CONFIG,
        Path("codec"),
        out,
        seeds,
        video_steps=7,
        steps=5,
        jobs=1,
        guidance=1.5,
        windows=4,
        judge_steps=3,
    )


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
    gains = [{"gain_db": {"mean": 0.0}}, {"gain_db": {"mean": gap}}]
    return {"panda_sim": scores(actions, inertia, {"one_second": gains, "long": []})}


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


def test_the_video_model_has_no_plans_and_no_noise_memory() -> None:
    objective = load_config(CONFIG, VIDEO_MODEL).objective
    assert (objective.action_dropout, objective.history_noise) == (1.0, HISTORY_NOISE["clean"])


def test_what_is_measured_is_not_measured_again(tmp_path: Path) -> None:
    asked: list[tuple[str, Path]] = []

    def measure(name: str, folder: Path) -> dict[str, Any]:
        asked.append((name, folder))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return _measured(3.0, 2.0)

    def train(name: str, seed: int) -> Path:
        return tmp_path / f"{name}_{seed}"

    with pytest.raises(KeyboardInterrupt):
        run_all(_runs(tmp_path), train, measure)
    results = run_all(_runs(tmp_path), train, measure)
    assert len(asked) == 3 * len(VARIANTS) + 1
    assert len(set(asked)) == 3 * len(VARIANTS)
    assert {folder.name for name, folder in asked if name == "no_guidance"} == {"full_0", "full_1", "full_2"}
    assert {len(seeds) for seeds in results.values()} == {3}
    assert json.loads((tmp_path / "full_0.json").read_text())["variant"] == "full"


def test_a_training_that_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], *, check: bool, env: dict[str, str]) -> None:
        assert check
        assert int(env["OMP_NUM_THREADS"]) >= 1
        Path(command[command.index("--out") + 1]).mkdir(parents=True)
        commands.append(command)

    monkeypatch.setattr(subprocess, "run", run)
    runs = _runs(tmp_path)
    video_model = runs.video_model()
    folders = {runs.checkpoint(name, 1) for name in (FULL, "no_guidance", "no_experts", FULL)}
    assert folders == {tmp_path / "full_1", tmp_path / "no_experts_1"}
    assert runs.video_model() == video_model
    words = ["codec_run=codec", "seed=1", "training.max_steps=5", f"video_model={video_model}"]
    assert [command[-len(words) :] for command in commands[1:2]] == [words]
    assert commands[2][-1] == "denoiser.actions.router=single"
    assert len(commands) == 3
    assert "training.max_steps=7" in commands[0]


@pytest.mark.parametrize(
    ("word", "line"),
    [("--steps=6", "steps: expected 6, found 5"), ("batch=9", "overrides: expected ['batch=9'], found []")],
)
def test_what_other_settings_left_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, line: str
) -> None:
    run_all(_runs(tmp_path, 1), lambda name, seed: tmp_path, lambda name, folder: _measured(3.0, 2.0))
    same = "--seeds 1 --video-steps 7 --steps 5 --windows 4 --judge-steps 3 --codec-run codec"
    assert main([*same.split(), "--out", str(tmp_path), word]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/full_0.json: {line}; take another --out\n"


def test_a_training_of_other_settings_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **_: Any) -> None:
        Path(command[command.index("--out") + 1]).mkdir()

    monkeypatch.setattr(subprocess, "run", run)
    runs = _runs(tmp_path)
    folder = runs.checkpoint(FULL, 0)
    with pytest.raises(
        ValueError, match=r"full_0/done: expected .*max_steps=6 .*, found .*max_steps=5 .*; take an"
    ):
        replace(runs, steps=6).checkpoint(FULL, 0)
    other = tmp_path / "other.yaml"
    other.write_text("preset: tiny")
    with pytest.raises(ValueError, match=r"full_0/done: expected config=.*, found config=.*; take another"):
        replace(runs, config=other).checkpoint(FULL, 0)
    (folder / "done").write_text("")
    assert replace(runs, steps=6).checkpoint(FULL, 0) == folder


def test_a_training_that_fails_is_named_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real one, of a codec that is not there."""
    assert main(["--codec-run", str(tmp_path / "no"), "--out", str(tmp_path)]) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines[-1].startswith("error: ")
    assert f"train {CONFIG} --out {tmp_path}/video_model codec_run={tmp_path}/no" in lines[-1]
    assert lines[-1].endswith(": expected exit code 0, found 1; see what it said and run this again")
    assert not any("Traceback" in line for line in lines)


def test_an_older_result_says_nothing_of_its_settings_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = _runs(tmp_path, 1)
    old = {"variant": FULL, "seed": 0, "datasets": _measured(3.0, 2.0)}
    runs.result(FULL, 0).write_text(json.dumps(old))
    runs.require_same()
    assert capsys.readouterr().out == (
        f"{tmp_path}/full_0.json: does not say with which settings it was made; taken as it is\n"
    )


def test_variants_are_ordered_by_what_they_lose() -> None:
    gaps = {"full": 5.0, "no_noise_memory": 2.0, "no_guidance": 3.0}
    results = {name: [_measured(gap + seed, gap) for seed in range(3)] for name, gap in gaps.items()}
    stored = json.loads(json.dumps(results))  # as read from files: the lengths are words
    summarised = summary(stored)
    assert summarised["no_noise_memory"]["gap_db_lost"].mean == 3.0
    assert summarised["no_noise_memory"]["gain_db"].mean == 3.0
    assert "gain_db_far" not in summarised["full"]  # no recording was long enough
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
