"""`astra evaluate` from end to end on a checkpoint that is not trained: it predicts that nothing changes."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from astra_ros.actions.config import ActionEncoderConfig
from astra_ros.actions.spec import ActionSpec
from astra_ros.cli.main import main
from astra_ros.codec.autoencoder import CodecConfig
from astra_ros.codec.pictures import encode_episode
from astra_ros.data.held_out import HeldOut
from astra_ros.data.lerobot import Dataset, DatasetWriter
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.schema import ActionSchema
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint, new_checkpoint, save_checkpoint
from astra_ros.denoiser.config import DenoiserConfig
from astra_ros.denoiser.presets import ModelConfig
from astra_ros.denoiser.rollout import RolloutSettings
from astra_ros.evaluation.inverse_dynamics import InverseDynamicsConfig
from astra_ros.evaluation.predictor import CheckpointPredictor
from astra_ros.evaluation.scenes import Sampling, Scenes, UnsuitableDataError, held_out_data
from astra_ros.evaluation.sources import Source, training_episodes
from astra_ros.evaluation.suite import Suite, SuiteConfig
from astra_ros.types import FloatArray
from tests.unit.evaluation import toy_world

MODEL = ModelConfig(
    preset="test",
    image_height=32,
    image_width=32,
    codec=CodecConfig(latent_channels=4, widths=(16, 32), num_blocks=1),
    denoiser=DenoiserConfig(
        latent_channels=4,
        latent_height=4,
        latent_width=4,
        patch=1,
        width=32,
        depth=1,
        num_heads=2,
        actions=ActionEncoderConfig(num_experts=2, unified=8),
    ),
)
SLIDER = ActionSchema("slider", "arm", "joint_position", ("slide",), ("m",))
CAR = ActionSchema("car", "drive", "rate", ("steer",), ("1",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets of five episodes, two of them held out, and an untrained checkpoint for both."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("evaluation")
    episodes = [toy_world.episode(seed, 100) for seed in range(5)]
    specs = []
    for schema in (SLIDER, CAR):
        with DatasetWriter(root / schema.space, schema.space, schema, 10.0, 32) as writer:
            for episode in episodes:
                rows = episode.measured if schema is SLIDER else episode.measured - 12
                writer.append(replace(episode, measured=rows, commanded=rows))
        specs.append(fit_action_spec(episodes, schema, MODEL.step_dt))
    save_checkpoint(root / "checkpoint", new_checkpoint(MODEL, specs))
    (root / "held_out.yaml").write_text("slider: [slider_3, slider_4]\ncar: [slider_3, slider_4]\nmore: []\n")
    return root


def _evaluate(folder: Path, test: str, options: str = "") -> dict[str, Any]:
    """The JSON of a run."""
    words = f"evaluate {folder}/checkpoint --test {test} --data {folder}/slider {folder}/car --windows 6"
    files = f"--held-out {folder}/held_out.yaml --json {folder}/{test}.json"
    assert main([*words.split(), *files.split(), *options.split()]) == 0
    return json.loads((folder / f"{test}.json").read_text())


def _how(folder: Path, test: str) -> str:
    """What a result's title says of how the model was served and sampled."""
    line = (folder / f"{test}.md").read_text().splitlines()[2]
    return line.partition("; ")[2]


def test_held_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = _evaluate(folder, "held_out", "--seeds 2 --steps 1")
    one_second = report["result"]["slider"]["result"]["one_second"][-1]
    assert one_second["seconds"] == 1.0
    assert one_second["gain_over_history_only_db"]["mean"] == 0.0
    assert report["result"]["car"]["result"]["reached_s"] == pytest.approx(8.8)
    assert report["machine"]["torch"] == torch.__version__
    assert (report["seeds"], report["moments"]) == ([0, 1], 6)
    assert report["long"] == {"seeds": [0], "moments": 2}
    assert _how(folder, "held_out") == (
        "1 denoising steps, guidance 1, history sigma 0, seeds 0, 1, at most 6 moments per dataset;"
        " long rollouts: seeds 0, at most 2 moments."
    )
    assert len(report["checkpoint"]["weights_sha256"]) == 64
    printed = capsys.readouterr().out
    assert "| slider | arm | 2, 6 |" in printed
    assert printed in (folder / "held_out.md").read_text()


def test_actions(folder: Path) -> None:
    report = _evaluate(folder, "actions", "--judge-steps 2 --seeds 2 --steps 1")
    result = report["result"]["slider"]["result"]
    assert result["gap"]["gap_db"]["mean"] == 0.0  # whatever it is told, nothing changes
    assert result["counterfactual"] is None  # pictures of a random codec, and a judge of two steps
    assert "expected movements that the judge reads off real pictures" in result["why_no_counterfactual"]
    shown = (folder / "actions.md").read_text()
    assert "not judged: " in shown
    assert "expected movements that the judge reads off real pictures" in shown
    assert "of the right sign the interval is Wilson's, over moments, not over resampled episodes:" in shown
    assert (folder / "checkpoint/evaluation/inverse_dynamics_slider.safetensors").is_file()
    assert report["seeds"] == [0, 1]


def test_the_judge_learns_anew_from_other_episodes_though_they_are_as_many(folder: Path) -> None:
    checkpoint, dataset = load_checkpoint(folder / "checkpoint"), Dataset.open(folder / "slider")
    judge = InverseDynamicsConfig(size=32, steps=1)
    config = SuiteConfig(RolloutSettings(1), folder / "judge", windows=2, seeds=(0,), judge=judge)
    trained = list[int]()
    for held_out in ("slider_4", "slider_3", "slider_3"):
        lines = list[str]()
        split = HeldOut(folder, {"slider": (held_out,)}).split("slider", dataset.episode_names)
        Suite(checkpoint, [Source(dataset, split)], config, lines.append).actions()
        trained.append(sum("inverse dynamics: step" in line for line in lines))
    assert trained == [1, 1, 0]


def test_the_judge_learns_anew_from_a_dataset_that_was_imported_again(folder: Path, tmp_path: Path) -> None:
    """Under the same names, with as many frames. An episode that is gone costs the others nothing."""
    checkpoint, judge = load_checkpoint(folder / "checkpoint"), InverseDynamicsConfig(size=32, steps=1)
    config = SuiteConfig(RolloutSettings(1), tmp_path / "judge", windows=2, seeds=(0,), judge=judge)

    def trained(first_seed: int) -> int:
        shutil.rmtree(tmp_path / "slider", ignore_errors=True)
        with DatasetWriter(tmp_path / "slider", "slider", SLIDER, 10.0, 32) as writer:
            for number in range(5):
                writer.append(replace(toy_world.episode(first_seed + number, 100), name=f"slider_{number}"))
        next((tmp_path / "slider").rglob("episode_000000.mp4")).unlink()
        lines = list[str]()
        Suite(checkpoint, [_source(tmp_path, "slider")], config, lines.append).actions()
        return sum("inverse dynamics: step" in line for line in lines)

    assert [trained(0), trained(0), trained(7)] == [1, 0, 1]


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    """A further dataset of the slider."""
    with DatasetWriter(tmp_path / "more", "more", SLIDER, 10.0, 32) as writer:
        for seed in range(5, 8):
            writer.append(toy_world.episode(seed, 100))
    return tmp_path / "more"


def _all_of(path: Path) -> Source:
    """Nothing of it is held out."""
    dataset = Dataset.open(path)
    return Source(dataset, HeldOut(path, {dataset.name: ()}).split(dataset.name, dataset.episode_names))


def test_a_judge_learns_from_further_datasets(folder: Path, lessons: Path) -> None:
    checkpoint, judge = load_checkpoint(folder / "checkpoint"), InverseDynamicsConfig(size=32, steps=1)
    config = SuiteConfig(RolloutSettings(1), lessons / "judge", windows=2, seeds=(0,), judge=judge)

    def learned(*taught: Source) -> list[str]:
        lines = list[str]()
        Suite(checkpoint, [_source(folder, "slider")], config, lines.append, lessons=taught).actions()
        return [line for line in lines if line.startswith("through the codec: ")]

    assert [line.split(": ")[1].split(",")[0] for line in learned(_all_of(lessons))] == 4 * ["slider"] + 3 * [
        "more"
    ]
    assert learned(_all_of(lessons)) == []  # the same judge
    assert len(learned()) == 4  # another one


def test_a_share_of_every_dataset_is_learned_from(folder: Path, lessons: Path) -> None:
    """Seven training episodes of 50 frames at the model's rate in both, two of them wanted."""
    found = _evaluate(
        folder, "actions", f"--judge-data {lessons} --judge-frames 100 --judge-steps 1 --seeds 1"
    )
    assert "slider" in found["result"]
    checkpoint = load_checkpoint(folder / "checkpoint")
    taught = training_episodes(
        [_source(folder, "slider"), _all_of(lessons)], checkpoint, 100, lambda line: None
    )
    assert [len(episode.pixels) for episode in taught] == [50, 50]


def test_lessons_of_another_robot_are_refused(
    folder: Path, lessons: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (
        f"evaluate {folder}/checkpoint --test actions --data {folder}/car --held-out {folder}/held_out.yaml"
    )
    assert main([*words.split(), "--judge-data", str(lessons)]) == 1
    assert (
        f"--judge-data: {lessons}: expected further data of car, found more of slider"
        in capsys.readouterr().err
    )


def test_inertia(folder: Path) -> None:
    report = _evaluate(folder, "inertia", "--steps 1")
    assert (report["seeds"], report["moments"]) == ([0], 6)
    curve = report["result"]["slider"]["result"]
    assert [point["history_length"] for point in curve] == [1, 2, 4, 8, 16, 20]
    assert (folder / "inertia.png").is_file()


def test_drift(folder: Path) -> None:
    report = _evaluate(folder, "drift", "--free-run-minutes 0.2 --steps 1")
    assert (report["seeds"], report["moments"]) == ([0], 2)
    result = report["result"]["slider"]["result"]
    assert [point["seconds"] for point in result["points"]] == [1.0, 2.0, 5.0]
    assert result["free_run"]["finite"]
    assert len(result["free_run"]["shown"]) == 10
    assert (folder / "drift.png").is_file()


def test_steps(folder: Path) -> None:
    points = _evaluate(folder, "steps", "--space slider")["result"]["slider"]["result"]["points"]
    assert _how(folder, "steps") == "guidance 1, history sigma 0, seeds 0, at most 6 moments per dataset."
    assert [point["num_steps"] for point in points] == [1, 2, 4, 8, 16, 50]
    assert {round(point["kept"]["mean"], 3) for point in points} == {1.0}


def test_router(folder: Path) -> None:
    modalities = _evaluate(folder, "router")["result"]["modalities"]
    assert set(modalities["loads"]) == {"arm", "drive"}
    assert sum(modalities["loads"]["arm"]["share"]) == pytest.approx(1.0)
    assert 0.5 <= modalities["purity"] <= 1.0
    assert _how(folder, "router") == "at most 24 moments per dataset."


def test_a_dataset_too_short_for_the_router_is_passed_over(folder: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(folder / "checkpoint")
    with DatasetWriter(tmp_path / "brief", "brief", SLIDER, 10.0, 32) as writer:
        writer.append(toy_world.episode(0, 8))
    dataset = Dataset.open(tmp_path / "brief")
    brief = Source(dataset, HeldOut(folder, {"brief": ("slider_0",)}).split("brief", dataset.episode_names))
    config = SuiteConfig(RolloutSettings(1), tmp_path, windows=2)
    suite = Suite(checkpoint, [brief, _source(folder, "car")], config, print)
    report, spaces = suite.router()
    assert (set(report.loads), set(spaces), set(suite.skipped)) == ({"drive"}, {"car"}, {"brief"})
    with pytest.raises(
        UnsuitableDataError, match=r"brief: expected a held-out episode of 1\.2 s, found none"
    ):
        Suite(checkpoint, [brief], config, print).router()


def test_a_camera_of_another_rate_costs_its_dataset_alone(folder: Path, tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "odd", "odd", SLIDER, 8.0, 32) as writer:
        writer.append(toy_world.episode(0, 100, hertz=8))
    dataset = Dataset.open(tmp_path / "odd")
    other = Source(dataset, HeldOut(folder, {"odd": ("slider_0",)}).split("odd", dataset.episode_names))
    suite = Suite(
        load_checkpoint(folder / "checkpoint"),
        [other, _source(folder, "car")],
        SuiteConfig(RolloutSettings(1), tmp_path, windows=2),
        print,
    )
    report, _ = suite.router()
    assert set(report.loads) == {"drive"}
    assert "camera period 0.125 s does not divide step_dt" in suite.skipped["odd"]


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_dataset_without_a_training_episode_for_the_judge_is_passed_over(
    folder: Path, tmp_path: Path, *, is_damaged: bool
) -> None:
    checkpoint = load_checkpoint(folder / "checkpoint")
    shutil.copytree(folder / "slider", tmp_path / "slider")
    dataset = Dataset.open(tmp_path / "slider")
    aside = dataset.episode_names[1:] if is_damaged else dataset.episode_names
    if is_damaged:
        next((tmp_path / "slider").rglob("episode_000000.mp4")).write_bytes(b"")
    own = Source(dataset, HeldOut(folder, {"slider": aside}).split("slider", dataset.episode_names))
    judge = InverseDynamicsConfig(size=32, steps=1)
    config = SuiteConfig(RolloutSettings(1), tmp_path, windows=2, seeds=(0,), judge=judge)
    suite = Suite(checkpoint, [own, _source(folder, "car")], config, print)
    assert [one.name for one in suite.actions()] == ["car"]
    expected = "slider: expected training episodes for the judge to learn from, found none: "
    assert expected + ("" if is_damaged else "all of it is held out") in suite.skipped["slider"]
    assert ("episode_000000.mp4" in suite.skipped["slider"]) == is_damaged


def _source(folder: Path, name: str) -> Source:
    """One of the datasets, with its last episode held out."""
    dataset = Dataset.open(folder / name)
    return Source(dataset, HeldOut(folder, {name: ("slider_4",)}).split(name, dataset.episode_names))


def test_a_teacher_that_cannot_be_compared_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load_checkpoint(folder / "checkpoint")
    slider, car = whole.actions.values()

    def refused(teacher: Checkpoint) -> str:
        save_checkpoint(tmp_path / "teacher", teacher)
        words = f"evaluate {folder}/checkpoint --test steps --teacher {tmp_path}/teacher --windows 1"
        files = f"--data {folder}/slider {folder}/car --held-out {folder}/held_out.yaml"
        assert main([*words.split(), *files.split()]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        return line.removeprefix("astra evaluate: --teacher: ")

    def with_spaces(*specs: ActionSpec) -> Checkpoint:
        teacher = new_checkpoint(MODEL, specs)
        teacher.codec.load_state_dict(whole.codec.state_dict())
        return teacher

    assert "car: space: expected one of the checkpoint's, slider, found car" in refused(with_spaces(slider))
    other = replace(car, names=("throttle",))
    assert "car: actions: expected drive, rate of throttle" in refused(with_spaces(slider, other))
    seen = with_spaces(slider, car)
    seen.provenance = {"data": {"slider": {"held_out": ["slider_4"]}}}
    assert "slider: expected held-out episodes that the model was not trained on" in refused(seen)
    strange = new_checkpoint(MODEL, [slider, car])
    assert re.search(
        r"teacher: expected encoder \w{16} of 32 x 32 pixels every 0.2 s, as the model has it, found encoder \w{16} of",
        refused(strange),
    )


def test_two_datasets_of_one_name_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a result, only one would be left."""
    shutil.copytree(folder / "car", tmp_path / "other")
    words = f"evaluate {folder}/checkpoint --data {folder}/car {tmp_path}/other"
    assert main([*words.split(), "--held-out", f"{folder}/held_out.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/other: name: expected one of its own, found car, which {folder}/car has too" in line


def test_a_checkpoint_that_saw_the_episodes_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = load_checkpoint(folder / "checkpoint")
    checkpoint.provenance = {"data": {"slider": {"held_out": ["slider_4"]}}}
    save_checkpoint(folder / "seen", checkpoint)
    words = f"evaluate {folder}/seen --data {folder}/slider --held-out {folder}/held_out.yaml"
    assert main(words.split()) == 1
    assert (
        "slider: expected held-out episodes that the model was not trained on, found 1 that it was, first slider_3"
        in (capsys.readouterr().err)
    )


def test_a_broken_rollout_is_not_scored(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = load_checkpoint(folder / "checkpoint")
    spec = checkpoint.actions["slider"]
    held_out = held_out_data(
        "slider", spec, [toy_world.episode(0)], lambda pixels: encode_episode(checkpoint.codec, pixels)
    )
    scenes = held_out.scenes(5, 2)
    for parameter in checkpoint.denoiser.head.parameters():
        parameter.data.fill_(math.nan)
    with pytest.raises(
        FloatingPointError, match="slider: latents after frame 0: expected finite numbers, found NaN"
    ):
        CheckpointPredictor(checkpoint, "slider", RolloutSettings(1)).predict(scenes, scenes.plan, Sampling())
    save_checkpoint(folder / "broken", checkpoint)
    words = f"evaluate {folder}/broken --data {folder}/slider --held-out {folder}/held_out.yaml --windows 1"
    assert main(words.split()) == 1
    *_, line = capsys.readouterr().err.splitlines()  # before it: progress
    assert line.startswith(
        "astra evaluate: slider: latents after frame 0: expected finite numbers, found NaN; "
    )


@pytest.mark.parametrize(
    ("sampling", "settings"),
    [
        (Sampling(), RolloutSettings(2, 1.5)),
        (Sampling(num_steps=4), RolloutSettings(4, 1.5)),
        (Sampling(guidance=0.0), RolloutSettings(2, 0.0)),
        (Sampling(num_steps=1, guidance=3.0), RolloutSettings(1, 3.0)),
    ],
)
def test_a_checkpoint_is_sampled_as_it_is_served_or_as_it_is_asked(
    folder: Path, sampling: Sampling, settings: RolloutSettings
) -> None:
    """Weights of a head that is not zero, or no setting would make a difference."""
    checkpoint = load_checkpoint(folder / "checkpoint")
    generator = torch.Generator().manual_seed(0)
    for parameter in checkpoint.denoiser.parameters():
        if not parameter.any():  # zero at initialisation
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    spec = checkpoint.actions["slider"]
    held_out = held_out_data(
        "slider", spec, [toy_world.episode(0)], lambda pixels: encode_episode(checkpoint.codec, pixels)
    )
    scenes = held_out.scenes(5, 2)
    found = _latents(checkpoint, RolloutSettings(2, 1.5), scenes, sampling)
    np.testing.assert_array_equal(found, _latents(checkpoint, settings, scenes, Sampling()))
    others = [
        RolloutSettings(settings.num_steps + 1, settings.guidance),
        RolloutSettings(settings.num_steps, 0.7),
    ]
    for other in others:
        assert np.abs(found - _latents(checkpoint, other, scenes, Sampling())).max() > 1e-3


def _latents(
    checkpoint: Checkpoint, settings: RolloutSettings, scenes: Scenes, sampling: Sampling
) -> FloatArray:
    """What is predicted, before it is drawn."""

    class Undrawn(CheckpointPredictor):
        def reconstruct(self, latents: FloatArray) -> Any:
            return latents

    return Undrawn(checkpoint, "slider", settings).predict(scenes, scenes.plan, sampling).astype(np.float32)


def test_a_bundle_can_only_do_held_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--test", "drift", "--data", "anywhere"]) == 1
    assert (
        "expected a checkpoint for --test drift, found a bundle; it can do held_out"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("model", "words", "option"),
    [
        ("checkpoint", "--horizon 5", "--horizon"),
        ("checkpoint", "--every 2", "--every"),
        ("checkpoint", "--joint-states /x", "--joint-states"),
        ("checkpoint", "--test held_out --judge-steps 3", "--judge-steps"),
        ("checkpoint", "--test drift --judge-frames 9", "--judge-frames"),
        ("checkpoint", "--test held_out --judge-data x", "--judge-data"),
        ("checkpoint", "--test actions --teacher x", "--teacher"),
        ("checkpoint", "--test inertia --seeds 1", "--seeds"),
        ("checkpoint", "--test drift --seeds 1", "--seeds"),
        ("checkpoint", "--test steps --seeds 1", "--seeds"),
        ("checkpoint", "--test steps --steps 4", "--steps"),
        ("checkpoint", "--test router --guidance 1.5", "--guidance"),
        ("checkpoint", "--test router --history-sigma 0.1", "--history-sigma"),
        ("", "--guidance 1.5", "--guidance"),
        ("", "--space slider", "--space"),
        ("", "--others x", "--others"),
        ("", "--test trust --horizon 5", "--horizon"),
    ],
)
def test_an_option_without_effect_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], model: str, words: str, option: str
) -> None:
    given = [str(folder / model)] if model else []  # else the shipped bundle
    assert main(["evaluate", *given, "--data", "anywhere", *words.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"astra evaluate: {option}: expected options that --test ")


@pytest.mark.parametrize(
    ("model", "words", "problem"),
    [
        ("checkpoint", "--seeds 0", "--seeds: expected 1 or more, found 0"),
        ("checkpoint", "--windows 0", "--windows: expected 1 or more, found 0"),
        ("checkpoint", "--steps 0", "--steps: expected 1 or more, found 0"),
        ("checkpoint", "--test actions --judge-steps 0", "--judge-steps: expected 1 or more, found 0"),
        ("checkpoint", "--test actions --judge-frames 0", "--judge-frames: expected 1 or more, found 0"),
        (
            "checkpoint",
            "--test drift --free-run-minutes -1",
            "--free-run-minutes: expected 0 or more, found -1.0",
        ),
        ("", "--every 0", "--every: expected 1 or more, found 0"),
        ("", "--horizon 0", "--horizon: expected 1 or more, found 0"),
        ("", "--test trust --every -1", "--every: expected 1 or more, found -1"),
    ],
)
def test_an_option_out_of_range_is_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], model: str, words: str, problem: str
) -> None:
    given = [str(folder / model)] if model else []  # else the shipped bundle
    assert main(["evaluate", *given, "--data", "anywhere", *words.split()]) == 1
    assert capsys.readouterr().err == f"astra evaluate: {problem}\n"


def test_a_checkpoint_has_no_trust(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(folder / "checkpoint"), "--test", "trust", "--data", "anywhere"]) == 1
    assert "expected a calibrated bundle for --test trust, found none" in capsys.readouterr().err


def test_other_joints_under_the_same_name_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ActionSchema("slider", "arm", "joint_position", ("shoulder",), ("m",))
    with DatasetWriter(tmp_path / "slider", "slider", other, 10.0, 32) as writer:
        writer.append(toy_world.episode(3, 20))
    (tmp_path / "held_out.yaml").write_text("slider: [slider_3]\n")
    words = f"evaluate {folder}/checkpoint --data {tmp_path}/slider --held-out {tmp_path}/held_out.yaml"
    assert main(words.split()) == 1
    assert (
        "slider: actions: expected arm, joint_position of slide, as the model has them, found arm, joint_position of shoulder"
        in capsys.readouterr().err
    )


def test_another_robots_dataset_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = ActionSchema("boat", "drive", "rate", ("steer",), ("1",))
    with DatasetWriter(folder / "boat", "boat", schema, 10.0, 32) as writer:
        writer.append(toy_world.episode(0, 20))
    (folder / "boat.yaml").write_text("boat: []\n")
    words = f"evaluate {folder}/checkpoint --data {folder}/boat --held-out {folder}/boat.yaml"
    assert main(words.split()) == 1
    assert (
        "boat: space: expected one of the checkpoint's, slider, car, found boat; leave this dataset out"
        in capsys.readouterr().err
    )
