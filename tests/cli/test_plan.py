"""`astra plan` end to end: on an untrained model and a recording that a test writes, and as its help says. No time is judged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from astra_ros.cli.main import main
from astra_ros.cli.plan import KNOBS
from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import ActionSchema, DatasetWriter
from astra_ros.planning.cem import CemConfig
from astra_ros.planning.mppi import MppiConfig
from astra_ros.ros.parameters import NodeConfig
from astra_ros.types import NANOSECONDS
from tests.bundle_fixture import HEIGHT, JOINTS, WIDTH
from tests.recordings import write_recording

DEMO_BAG = Path(__file__).resolve().parents[2] / "examples/demo_bag"
FPS, FRAMES = 10, 30
HORIZON = 5


def episode(name: str, dim: int) -> Episode:
    """A square moves to the right, and every joint with it."""
    pixels = np.full((FRAMES, HEIGHT, WIDTH, 3), 80, np.uint8)
    for k in range(FRAMES):
        pixels[k, 16:32, k : k + 16] = (220, 40, 40)
    joints = np.tile(np.linspace(-0.5, 0.5, FRAMES, dtype=np.float32)[:, None], (1, dim))
    return Episode(name, np.arange(FRAMES) * (NANOSECONDS // FPS), pixels, joints, joints)


def write_dataset(folder: Path, joints: tuple[str, ...]) -> Path:
    schema = ActionSchema("arm", "arm", "joint_position", joints, ("rad",) * len(joints))
    with DatasetWriter(folder, "arm", schema, FPS, (HEIGHT, WIDTH)) as writer:
        writer.append(episode("slide", len(joints)))
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "arm", JOINTS)


def words_for(bundle: Path, recording: Path, out: Path, **options: str) -> list[str]:
    default = {"at": "1", "goal": "+1", "samples": "9", "iterations": "2", "horizon": str(HORIZON)}
    pairs = [(f"--{name}", value) for name, value in {**default, **options}.items() if value]
    words = ["plan", str(bundle), "--recording", str(recording), "--backend", "onnxruntime"]
    return [*words, "--out", str(out), *(word for pair in pairs for word in pair)]


def plan(bundle: Path, recording: Path, out: Path, **options: str) -> dict[str, Any]:
    assert main(words_for(bundle, recording, out, **options)) == 0
    result: dict[str, Any] = json.loads((out / "plan.json").read_text())
    return result


@pytest.mark.parametrize("planner", ["cem", "mppi"])
def test_what_is_planned_is_written_and_no_worse_than_holding_still(
    planner: str, untrained_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    last = {"goal-frames": "1"}
    result = plan(untrained_bundle, dataset / "slide", tmp_path / "out", planner=planner, **last)
    assert result["planner"]["name"] == planner
    assert result["planner"]["goal_frames"] == 1
    assert result["names"] == list(JOINTS)
    assert result["step_dt"] == 0.2
    rows = np.array(result["rows"])
    assert rows.shape == (HORIZON, len(JOINTS))
    assert (np.abs(rows) <= 2).all()  # the trained range
    assert [i["candidates"] for i in result["iterations"][:2]] == [9, 9]
    assert result["candidates"] == sum(i["candidates"] for i in result["iterations"])
    best = [i["best"] for i in result["iterations"]]
    assert best == sorted(best, reverse=True)
    distance = result["final_goal_distance"]
    assert distance["plan"] == best[-1] <= distance["hold_still"]
    assert distance["recorded_actions"] > 0
    with Image.open(tmp_path / "out/plan.png") as picture:
        two_rows = picture.height
    cut = plan(untrained_bundle, dataset / "slide", tmp_path / "cut", planner=planner, at="2.5", goal="+0.4")
    assert cut["final_goal_distance"]["happened"] is None
    assert cut["final_goal_distance"]["recorded_actions"] is None
    with Image.open(tmp_path / "cut/plan.png") as picture:
        assert picture.height < two_rows


def test_a_goal_is_to_be_kept_as_the_node_has_it(
    untrained_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    result = plan(untrained_bundle, dataset / "slide", tmp_path / "out", planner="cem")
    assert result["planner"]["goal_frames"] == NodeConfig().goal_frames == 3
    alone = plan(
        untrained_bundle, dataset / "slide", tmp_path / "alone", planner="cem", **{"goal-frames": "1"}
    )
    assert alone["iterations"][0]["best"] != result["iterations"][0]["best"]


def test_a_bundle_with_proposals_begins_at_them(
    proposing_bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = plan(proposing_bundle, dataset / "slide", tmp_path / "out", iterations="")
    assert result["planner"]["name"] == "propose"
    assert [one["candidates"] for one in result["iterations"]] == [9]
    few = plan(proposing_bundle, dataset / "slide", tmp_path / "few", iterations="", samples="1")
    assert [one["candidates"] for one in few["iterations"]] == [1]
    mixed = plan(
        proposing_bundle,
        dataset / "slide",
        tmp_path / "mixed",
        planner="refine",
        **{"num-elites": "2", "goal-frames": "1"},
    )
    assert mixed["planner"]["num_elites"] == 2
    assert [one["candidates"] for one in mixed["iterations"]] == [9, 9]
    assert mixed["final_goal_distance"]["plan"] <= mixed["final_goal_distance"]["hold_still"]
    for name, knob in (("initial-std", "0.2"), ("iterations", "2")):
        knobs = {"iterations": "", name: knob}
        free = plan(proposing_bundle, dataset / "slide", tmp_path / "free", **knobs)
        assert free["planner"]["name"] == "cem"
    words = words_for(proposing_bundle, dataset / "slide", tmp_path / "no", planner="propose")
    assert main(words) == 1
    assert "iterations: expected with another --planner only, found with propose" in capsys.readouterr().err
    far = plan(proposing_bundle, dataset / "slide", tmp_path / "far", horizon="21", at="0.5")
    assert far["planner"]["name"] == "cem"
    words = words_for(proposing_bundle, dataset / "slide", tmp_path / "no", planner="refine", horizon="21")
    assert main(words) == 1
    assert "horizon: expected 1 to 20 rows, found 21" in capsys.readouterr().err


@pytest.mark.parametrize("planner", ["propose", "refine"])
def test_a_bundle_without_proposals_has_none_to_begin_at(
    planner: str, untrained_bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_for(untrained_bundle, dataset / "slide", tmp_path / "out", planner=planner, iterations="")
    assert main(words) == 1
    assert "python -m export.proposals" in capsys.readouterr().err


def test_what_the_camera_saw_at_the_goal_is_no_distance_from_it(
    untrained_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    """Five steps of 0.2 s are the second after which the goal was taken."""
    json_file = tmp_path / "copy.json"
    result = plan(untrained_bundle, dataset / "slide", tmp_path, json=str(json_file))
    assert result["final_goal_distance"]["happened"] == 0
    assert json.loads(json_file.read_text()) == result
    later = plan(untrained_bundle, dataset / "slide", tmp_path, goal="+1.4")
    assert later["final_goal_distance"]["happened"] > 0


def test_equal_arguments_give_the_equal_plan_and_another_seed_another(
    untrained_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    first, again, other = (
        plan(untrained_bundle, dataset / "slide", tmp_path, seed=seed) for seed in ("3", "3", "4")
    )
    assert first["rows"] == again["rows"]
    assert first["iterations"] == again["iterations"]
    assert first["iterations"] != other["iterations"]


def test_the_precision_is_chosen_by_name(
    untrained_bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = plan(untrained_bundle, dataset / "slide", tmp_path / "out", precision="fp32")
    assert "fp32" in result["backend"]
    words = words_for(untrained_bundle, dataset / "slide", tmp_path / "other", precision="fp3")
    assert main(words) == 1
    assert "precision 'fp3': expected one of ['auto', 'fp32'" in capsys.readouterr().err


def test_a_goal_from_a_file_is_fitted_as_the_camera_is(
    untrained_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    """A picture twice the model's size, with a rim beside it that the centre crop takes away."""
    goal = np.zeros((2 * HEIGHT, 2 * WIDTH + 20, 3), np.uint8)
    goal[:, 10:-10] = 80
    small = np.full((HEIGHT, WIDTH, 3), 80, np.uint8)
    for name, pixels in (("goal.png", goal), ("small.png", small)):
        Image.fromarray(pixels).save(tmp_path / name)
    large, exact = (
        plan(untrained_bundle, dataset / "slide", tmp_path, goal=str(tmp_path / name))
        for name in ("goal.png", "small.png")
    )
    assert large["final_goal_distance"] == exact["final_goal_distance"]


def test_a_bag_is_seen_in_the_models_shape(untrained_bundle: Path, tmp_path: Path) -> None:
    bag = write_recording(tmp_path / "bag", 3.0)
    result = plan(untrained_bundle, bag, tmp_path / "out")
    assert result["candidates"] > 9
    assert result["names"] == list(JOINTS)


def test_the_example_of_its_help_runs(tmp_path: Path) -> None:
    """The shipped model and bag, in fewer candidates."""
    words = ["plan", "--recording", str(DEMO_BAG), "--at", "4", "--goal", "+1.6", "--out", str(tmp_path)]
    assert main([*words, "--samples", "8", "--iterations", "1"]) == 0
    result = json.loads((tmp_path / "plan.json").read_text())
    distance = result["final_goal_distance"]
    assert distance["happened"] == 0
    assert distance["plan"] <= distance["hold_still"]
    # What the robot did led to the goal: the model must see that.
    assert distance["recorded_actions"] < distance["hold_still"]


@pytest.mark.parametrize(
    "knobs",
    [
        {
            "planner": "cem",
            "num_elites": "3",
            "momentum": "0.5",
            "initial_std": "0.0002",
            "min_std": "0.0001",
        },
        {"planner": "mppi", "temperature": "0.5", "std": "0.0002", "noise_beta": "1", "max_step": "1"},
    ],
    ids=["cem", "mppi"],
)
def test_the_planners_knobs_are_options(
    knobs: dict[str, str], untrained_bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    """A deviation of almost nothing leaves the first guess, to hold still."""
    options = {name.replace("_", "-"): value for name, value in knobs.items()}
    result = plan(untrained_bundle, dataset / "slide", tmp_path, **options)
    recorded = {name: result["planner"][name] for name in knobs if name != "planner"}
    assert recorded == {name: float(value) for name, value in knobs.items() if name != "planner"}
    assert np.ptp(np.array(result["rows"]), axis=0).max() < 0.01


def test_the_help_says_the_defaults_that_the_planners_have() -> None:
    for name, (_, text) in KNOBS.items():
        for config in (CemConfig(), MppiConfig()):
            if name != "num_elites" and hasattr(config, name):
                assert f"{getattr(config, name):g}" in text, name


@pytest.fixture
def plug_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs a goal distance `seven` that is this expression of `futures`."""

    def install(expression: str) -> None:
        info = tmp_path / "brightness-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brightness\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[astra_ros.goal_distance]\nseven = brightness:make\n")
        (tmp_path / "brightness.py").write_text(
            f"def make(backend, goal):\n    return lambda futures: {expression}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

    yield install
    sys.modules.pop("brightness", None)


@pytest.mark.parametrize(
    "expression", ["futures[:, :, 0, 0, 0] * 0 + 7", "[[7.0] * len(one) for one in futures]"]
)
def test_goals_are_compared_by_what_is_asked_for(
    untrained_bundle: Path, dataset: Path, tmp_path: Path, plug_in: Callable[[str], None], expression: str
) -> None:
    """A plug-in that is installed, and answers with an array or a list."""
    plug_in(expression)
    result = plan(untrained_bundle, dataset / "slide", tmp_path / "out", **{"goal-distance": "seven"})
    assert result["planner"]["goal_distance"] == "seven"
    assert set(result["final_goal_distance"].values()) == {7.0}


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        (
            "1 / 0",
            "goal distance: expected numbers, found ZeroDivisionError: division by zero; mend the plug-in",
        ),
        ("futures[:, :, 0, 0, 0] * float('nan')", "expected a finite number for a robot at rest, found nan"),
        ("futures[0]", "goal distance: expected (futures, frames) = (1, "),
    ],
)
def test_a_plug_in_that_fails_is_told_before_the_search(
    untrained_bundle: Path,
    dataset: Path,
    tmp_path: Path,
    plug_in: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    expression: str,
    problem: str,
) -> None:
    plug_in(expression)
    words = words_for(untrained_bundle, dataset / "slide", tmp_path / "out", **{"goal-distance": "seven"})
    assert main(words) == 1
    assert problem in refusal(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"at": "3"}, "at: expected 0 to 2.9 s, the first and the last frame of slide, found 3 s"),
        ({"at": "-1"}, "at: expected 0 to 2.9 s"),
        ({"at": "nan"}, "found nan s"),
        ({"at": "2", "goal": "+1.2"}, "goal: expected a frame at +0 to +0.9 s, where slide goes on"),
        ({"goal": "+nan"}, "found none at +nan s"),
        ({"goal": "1.6"}, "goal: expected a picture's file or +SECONDS, found '1.6'"),
        ({"goal": "+soon"}, "found '+soon'"),
        ({"goal": __file__}, "picture: expected a JPEG or PNG file"),
        ({"horizon": "0"}, "horizon: expected 1 to 100 frames"),
        ({"horizon": "101"}, "found 101"),
        ({"samples": "0"}, "samples: expected 1 or more, found 0"),
        ({"iterations": "0"}, "iterations: expected 1 or more, found 0"),
        ({"seed": "-1"}, "seed: expected 0 or more, found -1"),
        ({"backend": "abacus"}, "abacus"),
        ({"temperature": "1"}, "temperature: expected with another --planner only, found with cem"),
        ({"planner": "mppi", "num-elites": "2"}, "num_elites: expected with another --planner only"),
        ({"num-elites": "10"}, "1 <= num_elites <= num_samples = 9, found 2, 10"),
        ({"goal-frames": "0"}, "goal_frames: expected 1 or more, found 0"),
        ({"noise-beta": "5000"}, "noise_beta: expected 0 to 10, found 5000"),
        ({"max-step": "inf"}, "max_step: expected more than 0 and finite, found inf"),
        ({"noise-beta": "nan"}, "noise_beta: expected 0 to 10, found nan"),
        ({"planner": "mppi", "max-step": "0"}, "max_step: expected more than 0 and finite, found 0"),
        ({"goal-distance": "lpips"}, "goal_distance: expected one of codec, perceptual, found 'lpips'"),
        ({"goal-distance": "perceptual"}, "goal_encoder: expected the file of a perceptual encoder"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    options: dict[str, str],
    problem: str,
    untrained_bundle: Path,
    dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words_for(untrained_bundle, dataset / "slide", tmp_path / "out", **options)) == 1
    assert problem in refusal(capsys)
    assert not (tmp_path / "out").exists()


def test_a_wrong_recording_is_refused_in_one_line(
    untrained_bundle: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_dataset(tmp_path / "other", ("shoulder", "elbow"))
    for recording, problem in (
        (dataset, "expected a bag or DATASET/EPISODE, found a dataset"),
        (dataset / "slip", "expected one of the 1 it holds, found 'slip'"),
        (other / "slide", "found arm, joint_position of shoulder, elbow; give"),
    ):
        assert main(words_for(untrained_bundle, recording, tmp_path / "out")) == 1
        assert problem in refusal(capsys)


def test_what_is_no_recording_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", "--recording", str(tmp_path / "none"), "--at", "1", "--goal", "+1"]
    assert main(words) == 1
    assert "expected a rosbag2 folder" in refusal(capsys)


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line; before it may come which backend was taken."""
    *log, line = capsys.readouterr().err.splitlines()
    assert line.startswith("astra plan: ")
    assert all(said.startswith(("backend ", "a denoising step ")) for said in log)
    return line
