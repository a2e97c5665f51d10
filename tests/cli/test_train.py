"""`astra train` from datasets to a checkpoint: on toy data, in seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from astra_ros.cli.distillation_run import as_taught
from astra_ros.cli.main import main
from astra_ros.cli.training_samples import TrainingSamples, spread
from astra_ros.codec import taef2
from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.data.lerobot import ActionSchema, Dataset, DatasetWriter
from astra_ros.denoiser.checkpoint import Checkpoint, load_checkpoint
from astra_ros.training.mix import TrainingSet
from astra_ros.training.progress import Progress
from export.contract import ExportConfig
from export.to_onnx import export_bundle
from tests.unit.training.toy_data import ARM, CAR, FPS, SIZE, sliding_square, toy_config, write_toy_data

DISTILLATION = Path(__file__).parents[2] / "config" / "distill" / "tiny.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def config(data: Path) -> Path:
    file = data / "toy.yaml"
    file.write_text(toy_config(data))
    return file


def train(config: Path, out: Path, *words: str) -> int:
    return main(["train", str(config), "--out", str(out), "--minutes", "1", *words])


def distil(teacher: Path, out: Path, *words: str) -> int:
    return main(["distill", str(DISTILLATION), "--out", str(out), f"teacher={teacher}", *words])


@pytest.fixture(scope="module")
def trained(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert train(config, out, "seed=5") == 0
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(out)
    return {**checkpoint.denoiser.state_dict(), **checkpoint.codec.state_dict()}


def test_it_ends_with_a_checkpoint_of_every_action_space(trained: Path) -> None:
    checkpoint = load_checkpoint(trained)
    assert list(checkpoint.actions) == ["toy_arm", "toy_car"]
    assert checkpoint.config.denoiser.width == 32
    provenance = checkpoint.provenance
    assert provenance["command"].startswith("astra ")
    assert provenance["train_config"]["seed"] == 5
    assert provenance["data"]["toy_car"]["held_out"] == ["episode_002"]
    assert provenance["data"]["toy_car"]["training"] == ["episode_000", "episode_001"]
    assert provenance["data"]["toy_car"]["episodes"] == 2
    assert set(provenance["held_out_db_at_1s"]) == {
        "toy_arm",
        "toy_arm_gain",
        "toy_arm_codec",
        "toy_car",
        "toy_car_gain",
        "toy_car_codec",
    }


def test_it_shows_what_it_does(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == [
        "codec",
        "decoder",
        "denoiser",
        "held out",
    ]
    with Image.open(trained / "curves.png") as curves:
        assert curves.size == (4 * 480, 320)
    with Image.open(trained / "strips" / "100_toy_arm.png") as strip:
        assert strip.size == (
            17 * 128,
            6 * 128,
        )  # the observed frame and 16 steps; three moments, two rows each


def test_a_model_is_trained_on_for_one_of_its_robots(config: Path, trained: Path, tmp_path: Path) -> None:
    """On the same latents, in the same terms."""
    path = next(
        one["path"]
        for one in load_checkpoint(trained).provenance["train_config"]["data"]["sets"]
        if "car" in one["path"]
    )
    words = (f"start_from={trained}", f"data.sets=[{{path: {path}}}]", "training.max_steps=3")
    assert train(config, tmp_path, *words) == 0
    before, after = load_checkpoint(trained), load_checkpoint(tmp_path)
    assert list(after.actions) == ["toy_car"]
    assert after.actions["toy_car"] == before.actions["toy_car"]
    for name, value in before.codec.encoder.state_dict().items():
        assert torch.equal(after.codec.encoder.state_dict()[name], value)
    averaged = load_file(tmp_path / "state" / "decoder.safetensors")
    for name, value in after.codec.decoder.state_dict().items():
        assert torch.equal(value, averaged[f"ema.decoder.{name}"])
    change = after.denoiser.position - before.denoiser.position
    assert 0 < change.abs().max() < 0.2
    assert distil(tmp_path, tmp_path / "student", "optimisation.max_steps=1") == 0
    assert not (tmp_path / "latents").exists()


def test_a_student_holds_out_what_its_teacher_did(config: Path, trained: Path, tmp_path: Path) -> None:
    """Whatever the file says by now."""
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    words = [f"codec_run={trained}", car_and(config, tmp_path), "training.max_steps=1"]
    assert train(config, teacher, *words) == 0
    (tmp_path / "held_out.yaml").write_text("toy_car: []\n")
    assert distil(teacher, student, "optimisation.max_steps=1") == 0
    assert "toy_car" in load_checkpoint(student).provenance["held_out_db_at_1s"]


def test_a_student_leaves_out_what_its_teacher_did_not_have_and_what_is_held_out_by_now(config: Path) -> None:
    lines = list[str]()
    now = TrainingSet(Dataset.open(config.parent / "toy_car"), ("first", "new"), ("second", "third"), 1.0)
    taught = {"training": ["first", "third", "gone"], "held_out": ["second", "lost"]}
    student = as_taught(now, taught, lines.append)
    assert (student.names, student.held_out) == (("first",), ("second",))
    assert lines == ["toy_car: left out 2 that the teacher did not have, or that are held out by now"]
    early = as_taught(now, {"held_out": ["second"]}, lines.append)  # which did not keep what it trained on
    assert (early.names, early.held_out) == (("first", "new"), ("second",))


def test_a_student_keeps_to_its_teachers_episodes_and_to_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, teacher, student = write_toy_data(tmp_path / "data"), tmp_path / "teacher", tmp_path / "student"
    (tmp_path / "toy.yaml").write_text(toy_config(data))
    stages = ("training", "codec_training.optimisation", "decoder_training.optimisation")
    assert train(tmp_path / "toy.yaml", teacher, *[f"{stage}.max_steps=1" for stage in stages]) == 0
    words = ("space=toy_car", "optimisation.max_steps=1")
    begun = {"training": ["episode_000", "episode_001"], "held_out": ["episode_002"]}
    write_toy_data(data, 4, first=3)
    (data / "held_out.yaml").write_text("toy_arm: []\ntoy_car: [episode_002]\n")
    capsys.readouterr()
    assert distil(teacher, student, *words) == 0
    assert "toy_car: left out 1 that the teacher did not have" in capsys.readouterr().out
    assert json.loads((student / "split.json").read_text()) == {"toy_car": begun}
    (data / "held_out.yaml").write_text("toy_arm: []\ntoy_car: [episode_000]\n")
    (teacher / "split.json").unlink()
    assert distil(teacher, student, *words) == 0
    assert "toy_car: held out as at the first start, 2 differ now" in capsys.readouterr().out
    assert json.loads((student / "split.json").read_text()) == {"toy_car": begun}
    # The best checkpoint has no split beside it, and says itself what it was trained on.
    assert distil(teacher / "best", tmp_path / "other", *words) == 0
    without = {"training": ["episode_001"], "held_out": ["episode_002"]}
    assert json.loads((tmp_path / "other" / "split.json").read_text()) == {"toy_car": without}


def car_and(config: Path, folder: Path) -> str:
    """The word for a run on toy_car alone, of which episode_001 is held out, and not the last one as before."""
    (folder / "held_out.yaml").write_text("toy_car: [episode_001, episode_002]\n")
    sets = f"sets: [{{path: {config.parent / 'toy_car'}}}]"
    return f"data={{{sets}, held_out: {folder / 'held_out.yaml'}, codec_frames: 64}}"


@pytest.mark.parametrize("words", ["start_from={0}", "codec_run={0}", "codec_run={0} video_model={0}"])
def test_what_an_earlier_model_was_trained_on_is_not_held_out(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    earlier = words.format(trained).split()
    assert train(config, tmp_path / "run", *earlier, car_and(config, tmp_path), "training.max_steps=1") == 0
    data = load_checkpoint(tmp_path / "run").provenance["data"]
    assert data["toy_car"]["held_out"] == ["episode_002"]
    assert (data["toy_arm"]["held_out"], data["toy_arm"]["weight"]) == (["episode_002"], 0.0)
    capsys.readouterr()
    options = ["--data", str(config.parent / "toy_car"), "--held-out", str(tmp_path / "held_out.yaml")]
    assert main(["evaluate", str(tmp_path / "run"), *options]) == 1
    assert "toy_car: expected held-out episodes that the model was not trained on, found 1 that it was" in (
        capsys.readouterr().err
    )


def test_training_episodes_have_no_held_out_score(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "held_out.yaml").write_text("toy_arm: [episode_002]\ntoy_car: []\n")
    words = [f"codec_run={trained}", f"data.held_out={tmp_path / 'held_out.yaml'}", "training.max_steps=1"]
    assert train(config, tmp_path / "run", *words) == 0
    provenance = load_checkpoint(tmp_path / "run").provenance
    assert set(provenance["held_out_db_at_1s"]) == {"toy_arm", "toy_arm_gain", "toy_arm_codec"}
    strips = {file.name for file in (tmp_path / "run" / "strips").iterdir()}
    assert strips == {"100_toy_arm.png", "100_toy_car_trained_on.png"}
    lines = [line for line in capsys.readouterr().out.splitlines() if "no held-out" in line]
    assert lines == ["toy_car: found no held-out episodes; strips show training episodes, no score"]


def test_what_is_too_short_is_not_measured_and_does_not_hide_what_is(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Held out: half a second and six of the arm; what a camera of another rate saw of it; half a second of the car."""
    checkpoint, square = load_checkpoint(trained), sliding_square(ARM, 0)
    slow = replace(square, stamps_ns=square.stamps_ns * 3 // 2)
    for name, schema, fps, episodes in (
        ("toy_arm", ARM, FPS, [sliding_square(ARM, 0, 3), sliding_square(ARM, 1)]),
        ("toy_slow", ARM, FPS / 1.5, [slow]),
        ("toy_car", CAR, FPS, [sliding_square(CAR, 0, 3)]),
    ):
        with DatasetWriter(tmp_path / name, name, schema, fps, SIZE) as writer:
            for episode in episodes:
                writer.append(episode)
    opened = [Dataset.open(tmp_path / name) for name in ("toy_arm", "toy_slow", "toy_car")]
    sets = [TrainingSet(one, (), one.episode_names, 1.0) for one in opened]
    samples = TrainingSamples(sets, (SIZE, SIZE), checkpoint.config.step_dt, tmp_path / "strips")
    assert set(samples.evaluate(checkpoint, 1.0)) == {"toy_arm", "toy_arm_gain", "toy_arm_codec"}
    why, *lines = capsys.readouterr().out.splitlines()
    assert why.startswith("not sampled: episode_000: camera period 0.300 s does not divide")
    assert lines == [
        f"{name}: found none of 1 s in 1 episodes; not sampled" for name in ("toy_slow", "toy_car")
    ]


@pytest.mark.parametrize(
    ("stretched", "frames", "found"),
    [
        (
            1.25,
            30,
            r"found 2 bad ones, the last: episode_001: camera period 0\.250 s does not divide step_dt 0\.2 s",
        ),
        (1.0, 5, r"found 0\.8 s"),
    ],
)
def test_what_no_episode_can_be_used_of_is_refused_before_anything_is_made(
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stretched: float,
    frames: int,
    found: str,
) -> None:
    """By another camera's rate, or shorter than a chunk."""
    with DatasetWriter(tmp_path / "odd", "odd", CAR, FPS / stretched, SIZE) as writer:
        for seed in range(2):
            square = sliding_square(CAR, seed, frames)
            writer.append(
                replace(square, stamps_ns=(square.stamps_ns * stretched).astype(square.stamps_ns.dtype))
            )
    (tmp_path / "held_out.yaml").write_text("odd: []\n")
    sets = f"data={{sets: [{{path: {tmp_path / 'odd'}}}], held_out: {tmp_path / 'held_out.yaml'}, codec_frames: 64}}"
    assert train(config, tmp_path / "run", sets) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"odd: expected an episode of 1\.6 s, a chunk, or longer, {found}", line)
    assert not (tmp_path / "run").exists()


def test_samples_are_spread_over_the_held_out_episodes() -> None:
    assert spread("abcdefghij", 4) == [*"adgj", *"bcefhi"]
    assert spread("ab", 4) == ["a", "b"]
    assert spread((), 4) == []


def test_a_model_is_trained_on_with_its_codec(config: Path, trained: Path, tmp_path: Path) -> None:
    """Which goes on from the start's, as the denoiser does, on latents of its own."""
    words = (
        f"start_from={trained}",
        "retrain_codec=true",
        "codec_training.motion=0.05",
        "training.max_steps=1",
    )
    one_step = ("codec_training.optimisation.max_steps=1", "codec_training.optimisation.learning_rate=1e-6")
    assert train(config, tmp_path, *words, *one_step, "training.learning_rate=0") == 0
    before, after = load_checkpoint(trained), load_checkpoint(tmp_path)
    moved = [
        (value - before.codec.encoder.state_dict()[name]).abs().max().item()
        for name, value in after.codec.encoder.state_dict().items()
    ]
    assert 0 < max(moved) < 1e-5
    assert torch.equal(after.denoiser.position, before.denoiser.position)
    assert [*(tmp_path / "latents").iterdir()]
    assert json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])["stage"] == "codec"


def test_other_joints_under_a_known_name_are_refused(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ActionSchema("toy_arm", "arm", "joint_position", ("grip", "slide"), ("1", "m"))
    with DatasetWriter(tmp_path / "toy_arm", "toy_arm", other, FPS, SIZE) as writer:
        for seed in range(3):
            writer.append(sliding_square(ARM, seed))
    words = [f"start_from={trained}", f"data.sets=[{{path: {tmp_path / 'toy_arm'}}}]"]
    assert train(config, tmp_path / "run", *words) == 1
    assert not (tmp_path / "run").exists()  # so that the corrected command is not another run
    *_, line = capsys.readouterr().err.splitlines()
    assert "expected arm, joint_position of slide, grip, as the model has them" in line
    assert "found arm, joint_position of grip, slide; give" in line


def test_a_start_of_another_size_is_refused(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is trained, and so that the corrected command is not another run."""
    assert train(config, tmp_path / "out", f"start_from={trained}", "denoiser.width=64") == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert "start_from: expected a model of the same sizes, found" in line
    assert not (tmp_path / "out").exists()


def test_a_codec_learns_to_let_its_latents_move(config: Path, tmp_path: Path) -> None:
    assert train(config, tmp_path, "codec_training.motion=0.1", "training.max_steps=1") == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    told = {line["stage"]: "motion" in line for line in lines if "gradient_norm" in line}
    assert told == {"codec": True, "decoder": False, "denoiser": False}


def test_a_video_model_learns_to_act(config: Path, trained: Path, tmp_path: Path) -> None:
    """Another adapter and another router, on what an earlier model knows of pictures."""
    changes = ["denoiser.adapter=cross_attention", "denoiser.actions.router=single", "training.max_steps=1"]
    words = [f"codec_run={trained}", f"video_model={trained}", "training.learning_rate=1e-9", *changes]
    assert train(config, tmp_path, *words) == 0
    before, after = weights(trained), weights(tmp_path)
    for name in ("position", "blocks.0.attention.qkv.weight"):
        torch.testing.assert_close(after[name], before[name], rtol=0.0, atol=1e-6)
    assert before.keys() != after.keys()


@pytest.mark.parametrize(
    ("part", "since"),
    [
        ("action_encoder.router_prior", "action experts began one per modality"),
        ("pose_map.painter", "an action drew a sketch"),
    ],
)
def test_a_model_of_an_earlier_version_serves_as_video_model_only(
    part: str, since: str, config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(trained, old)
    stored = load_file(old / "weights.safetensors")
    kept = {name: value for name, value in stored.items() if not name.startswith(f"denoiser.{part}")}
    assert kept.keys() < stored.keys()
    save_file(kept, old / "weights.safetensors")
    words = [f"codec_run={old}", f"video_model={old}", "training.max_steps=1"]
    assert train(config, tmp_path / "run", *words) == 0
    assert train(config, tmp_path / "on", f"start_from={old}") == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.endswith(f"trained before {since}; train again, or take it as video_model")


def test_a_video_model_of_another_size_or_codec_is_refused(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"codec_run={trained}", f"video_model={trained}"]
    assert train(config, tmp_path / "wide", *words, "denoiser.width=64") == 1
    assert ": expected torch.Size(" in capsys.readouterr().err.splitlines()[-1]
    assert train(config, tmp_path / "alone", words[1]) == 1
    assert "expected its codec's run as codec_run beside it, found none" in capsys.readouterr().err
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    stored = load_file(other / "weights.safetensors")
    name = next(name for name in stored if name.startswith("codec.encoder."))
    save_file(stored | {name: stored[name] + 1}, other / "weights.safetensors")
    assert train(config, tmp_path / "out", words[0], f"video_model={other}") == 1
    assert "video_model: expected a model of the same codec" in capsys.readouterr().err


def test_again_it_only_evaluates(config: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = weights(trained)
    assert train(config, trained, "seed=5") == 0
    assert "held out 100.0 %" in (said := capsys.readouterr().out)
    assert not any(line.startswith("codec") for line in said.splitlines())
    assert all(torch.equal(value, before[name]) for name, value in weights(trained).items())


def test_a_run_keeps_to_the_data_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its weights are of their normalisation, and were trained on what is listed as such."""
    stages = ("training", "codec_training.optimisation", "decoder_training.optimisation")
    data, out, few = tmp_path / "data", tmp_path / "run", [f"{stage}.max_steps=1" for stage in stages]
    write_toy_data(data)
    (tmp_path / "toy.yaml").write_text(toy_config(data))
    assert train(tmp_path / "toy.yaml", out, *few) == 0
    before = load_checkpoint(out)
    capsys.readouterr()
    write_toy_data(data, 5, first=3)  # two more; the last of the five is held out now
    assert train(tmp_path / "toy.yaml", out, *few) == 0
    said, after = capsys.readouterr().out, load_checkpoint(out)
    assert after.actions == before.actions
    assert after.provenance["data"] == before.provenance["data"]
    assert f"toy_arm: left out 2 new; to use them choose another --out, start_from={out}" in said
    assert "toy_arm: held out as at the first start, 1 differ now; choose another --out to change" in said
    for name in ("toy_arm", "toy_car"):
        shutil.rmtree(data / name)
    write_toy_data(data, 2)
    assert train(tmp_path / "toy.yaml", out, *few) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "toy_arm: expected the 3 episodes with which the run of " in line
    assert "found 1 missing, first episode_002; bring them back" in line


def test_an_interrupted_run_ends_like_one_that_was_not(
    config: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = []

    def interrupt(_: TrainingSamples, checkpoint: Checkpoint, share: float) -> dict[str, float]:
        del checkpoint
        shares.append(share)
        if len(shares) == 3:
            raise KeyboardInterrupt
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSamples, "evaluate", interrupt)
        assert train(config, tmp_path, "seed=5", "checkpoint_minutes=1e-9") == 130
    assert train(config, tmp_path, "seed=5") == 0
    before = weights(trained)
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path).items())


@pytest.mark.parametrize("stage", ["codec", "decoder"])
def test_an_interrupted_codec_ends_like_one_that_was_not(
    config: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def interrupt(progress: Progress, step: int, *_: float, **__: float) -> None:
        if (progress._name, step) == (stage, 3):
            raise KeyboardInterrupt

    words = ("seed=5", "training.max_steps=1")
    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", interrupt)
        assert train(config, tmp_path, *words) == 130
    assert train(config, tmp_path, *words) == 0
    before, after = (load_checkpoint(out).codec.state_dict() for out in (trained, tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in after.items())


@pytest.mark.slow
def test_two_processes_are_one(config: Path, trained: Path, tmp_path: Path) -> None:
    """Same samples, averaged gradients, shared latents: every weight is that of the run on one process."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["train", str(config), "--out", str(tmp_path), "--minutes", "1", "seed=5"]
    command = [*torchrun, "-m", "astra_ros.cli.main", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=240
    )
    assert result.returncode == 0, result.stderr
    before = weights(trained)
    for name, value in weights(tmp_path).items():
        torch.testing.assert_close(value, before[name], rtol=0.0, atol=1e-6, msg=name)
    assert load_checkpoint(tmp_path).provenance["processes"] == 2


def test_a_folder_is_one_run(config: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(config, trained, "seed=6") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "run.json: seed: expected 5, with which this run was started, found 6; repeat" in line


def test_another_denoiser_on_the_same_latents(config: Path, trained: Path, tmp_path: Path) -> None:
    """What an ablation needs: neither codec nor latents are made again, and the decoder is the refined one."""
    changes = ["objective.history_noise=clean", "denoiser.actions.router=hard", "training.max_steps=2"]
    assert train(config, tmp_path, f"codec_run={trained}", *changes) == 0
    assert {file.name for file in tmp_path.iterdir()}.isdisjoint(
        {"codec.safetensors", "frames.safetensors", "latents"}
    )
    checkpoint, before = load_checkpoint(tmp_path), load_checkpoint(trained).codec.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.codec.state_dict().items())
    assert checkpoint.config.denoiser.actions.router == "hard"
    assert checkpoint.provenance["train_config"]["objective"]["history_noise"]["heavy"] == 0.0


def test_a_codec_is_taken_of_a_run_that_has_no_model_yet(config: Path, trained: Path, tmp_path: Path) -> None:
    begun = begun_of(trained, tmp_path)
    assert train(config, tmp_path / "run", f"codec_run={begun}", "training.max_steps=1") == 0
    stored, codec = load_file(trained / "codec.safetensors"), load_checkpoint(tmp_path / "run").codec
    assert all(torch.equal(value, stored[name]) for name, value in codec.state_dict().items())


def test_what_a_codec_without_a_model_yet_was_trained_on_is_not_held_out(
    config: Path, trained: Path, tmp_path: Path
) -> None:
    """Neither by its own run nor by the model that this one went on from."""
    begun, start = begun_of(trained, tmp_path), tmp_path / "start"
    start.mkdir()
    data = {"toy_car": {"held_out": ["episode_000"]}, "earlier": {"held_out": []}}
    (start / "config.json").write_text(json.dumps({"provenance": {"data": data}}))
    run = json.loads((begun / "run.json").read_text())
    (begun / "run.json").write_text(json.dumps({**run, "start_from": str(start)}))
    words = [f"codec_run={begun}", car_and(config, tmp_path), "training.max_steps=1"]
    assert train(config, tmp_path / "run", *words) == 0
    known = load_checkpoint(tmp_path / "run").provenance["data"]
    assert {name: one["held_out"] for name, one in known.items()} == {
        "toy_car": [],
        "toy_arm": ["episode_002"],
        "earlier": [],
    }


@pytest.mark.parametrize("missing", ["run.json", "split.json"])
def test_a_codec_that_does_not_say_what_it_was_trained_on_is_refused(
    config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    begun = begun_of(trained, tmp_path)
    (begun / missing).unlink()
    assert train(config, tmp_path / "run", f"codec_run={begun}") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        "codec_run: expected config.json, or run.json and split.json, which say what was trained on" in line
    )
    assert f"found none in {begun}; give the whole folder of a run" in line
    assert not (tmp_path / "run").exists()


def begun_of(trained: Path, folder: Path) -> Path:
    """The run as it was when its codec was trained and its denoiser was not."""
    begun = folder / "begun"
    shutil.copytree(trained / "latents", begun / "latents")
    for name in ("codec.safetensors", "run.json", "split.json"):
        shutil.copy(trained / name, begun)
    return begun


def test_bad_episodes_are_counted_and_survived(
    data: Path, config: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(data / "toy_arm", tmp_path / "toy_arm")
    video = next((tmp_path / "toy_arm").rglob("episode_000000.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    sets = f"data.sets=[{{path: {tmp_path / 'toy_arm'}}}, {{path: {data / 'toy_car'}}}]"
    steps = [f"{stage}.max_steps=2" for stage in ("training", "codec_training.optimisation")]
    assert train(config, tmp_path / "out", sets, *steps) == 0
    assert "toy_arm: to latents: skipped a bad episode: " in capsys.readouterr().out
    arm: dict[str, Any] = load_checkpoint(tmp_path / "out").provenance["data"]["toy_arm"]
    assert (arm["episodes"], arm["bad_episodes"]) == (1, ["episode_000"])


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("denoiser.breadth=3", "denoiser: unknown key breadth; expected one of .*width"),
        ("training.batch=2.5", "training.batch: expected an integer, found '2.5'"),
        ("data.held_out=nowhere.yaml", "nowhere.yaml"),
        ("data.sets=[{path: nowhere}]", "nowhere"),
        (
            "segments.own=0.25",
            "segments.own: expected a whole number of a micro-batch's 2 segments, found 0.25 of them = 0.5; set",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, expected: str
) -> None:
    assert train(config, tmp_path / "out", word) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert all(part in line for part in expected.split(".*"))
    assert not (tmp_path / "out").exists()  # so that the corrected command is not another run


def test_distil_makes_a_student_for_one_robot(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("space=toy_car", "num_steps=1", "optimisation.batch=2", "checkpoint_minutes=1e-6")
    assert distil(trained, tmp_path, *words, "optimisation.max_steps=4") == 0
    student = load_checkpoint(tmp_path)
    assert list(student.actions) == ["toy_car"]
    assert student.config.num_steps == 1
    assert student.provenance["teacher"] == str(trained)
    assert set(student.provenance["held_out_db_at_1s"]) == {"toy_car", "toy_car_gain", "toy_car_codec"}
    strips = sorted(file.name for file in (tmp_path / "strips").iterdir())
    assert strips == [f"{share:03d}_toy_car.png" for share in (0, 25, 50, 75, 100)]  # also while it runs
    assert (tmp_path / "curves.png").is_file()
    assert distil(trained, tmp_path, *words, "optimisation.max_steps=5") == 1
    assert "run.json: optimisation: expected " in capsys.readouterr().err


def test_distil_refuses_what_is_not_a_checkpoint_of_this_kind(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(trained / "config.json", tmp_path)
    shutil.copy(trained / "weights.safetensors", tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    moved = {**fields["provenance"]["train_config"]}
    moved["data"] = {**moved["data"], "held_out": "nowhere.yaml"}
    for change, expected in (
        ({"provenance": {}}, "train_config: expected the configuration"),
        (
            {"model": {**fields["model"], "denoiser": {**fields["model"]["denoiser"], "depth": 2}}},
            "weights do not fit",
        ),
        (
            {"provenance": {**fields["provenance"], "train_config": moved}},
            "nowhere.yaml",
        ),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**fields, **change}))
        assert distil(tmp_path, tmp_path / "out") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert expected in line
        assert not (tmp_path / "out").exists()


def test_a_model_on_taef2s_latents_is_trained_and_exported(config: Path, tmp_path: Path) -> None:
    """Weights of its form stand in for its own, which a clone has not."""
    codec, folder = (
        Codec(CodecConfig(latent_channels=taef2.LATENT_CHANNELS, kind="taef2")),
        tmp_path / "taef2",
    )
    folder.mkdir()
    torch.save(codec.encoder.state_dict(), folder / taef2.ENCODER_FILE)
    torch.save(codec.decoder.state_dict(), folder / taef2.DECODER_FILE)
    sizes = [f"{part}.latent_channels={taef2.LATENT_CHANNELS}" for part in ("codec", "denoiser")]
    words = [f"codec_weights={folder}", "codec.kind=taef2", *sizes, "training.max_steps=2"]
    assert train(config, tmp_path / "run", *words) == 0
    trained = load_checkpoint(tmp_path / "run")
    for name, value in codec.state_dict().items():
        if name not in ("mean", "std"):
            assert torch.equal(trained.codec.state_dict()[name], value)
    bundle = export_bundle(trained, tmp_path / "bundle", ExportConfig(space="toy_arm", candidates=1))
    assert bundle.manifest.latents.channels == taef2.LATENT_CHANNELS
