"""A robot with two cameras from its dataset to a bundle that is evaluated: on toy data, in seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.manifest import CameraSpec
from astra_ros.cli.main import main
from astra_ros.data.lerobot import DatasetWriter
from astra_ros.denoiser.checkpoint import load_checkpoint
from astra_ros.denoiser.presets import tiny
from export.contract import ExportConfig
from export.to_onnx import export_bundle
from tests.unit.training.toy_data import ARM, FPS, SIZE, sliding_square, toy_config

NAMES = ("front", "wrist")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In front a square slides; the wrist sees it mirrored."""
    folder = tmp_path_factory.mktemp("data")
    with DatasetWriter(
        folder / "toy_arm", "toy_arm", ARM, FPS, SIZE, dict.fromkeys(NAMES, (SIZE, SIZE))
    ) as writer:
        for seed in range(4):
            episode = sliding_square(ARM, seed, 50)
            mirrored = episode.pixels[:, :, ::-1]
            writer.append(replace(episode, pixels=np.concatenate([episode.pixels, mirrored], axis=1)))
    (folder / "held_out.yaml").write_text("toy_arm: [episode_002, episode_003]\n")
    one = toy_config(folder).replace(f", {{path: {folder}/toy_car}}", "")
    (folder / "toy.yaml").write_text(one)
    return folder


def train(data: Path, out: Path, *words: str) -> int:
    return main(["train", str(data / "toy.yaml"), "--out", str(out), "--minutes", "1", *words])


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    assert train(data, out, "data.cameras=[front, wrist]", "size=[256, 128]") == 0
    return out


@pytest.fixture(scope="module")
def bundle(data: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "two"
    export_bundle(load_checkpoint(trained), out, ExportConfig(data=data / "toy_arm"))
    return out


def test_the_model_is_of_both_cameras(trained: Path, bundle: Path) -> None:
    config = load_checkpoint(trained).config
    assert (config.image_height, config.image_width, config.cameras) == (256, 128, NAMES)
    assert (config.denoiser.latent_height, config.denoiser.latent_width) == (32, 16)
    camera = load_bundle(bundle).manifest.camera
    assert camera == CameraSpec(256, 128, names=NAMES)
    assert (camera.count, camera.size) == (2, (256, 128))


def test_a_bundle_of_one_camera_says_nothing_of_names(untrained_bundle: Path) -> None:
    """Earlier versions can read it."""
    assert "names" not in json.loads((untrained_bundle / "manifest.json").read_text())["camera"]
    assert load_bundle(untrained_bundle).manifest.camera.count == 1


def test_checkpoint_and_bundle_are_evaluated_on_both(
    data: Path, trained: Path, bundle: Path, tmp_path: Path
) -> None:
    shared = ["--data", str(data / "toy_arm"), "--held-out", str(data / "held_out.yaml")]
    for model, words in ((trained, ["--windows", "2", "--seeds", "1"]), (bundle, ["--horizon", "4"])):
        file = tmp_path / f"{model.name}.json"
        assert main(["evaluate", str(model), "--test", "held_out", *shared, *words, "--json", str(file)]) == 0
        assert file.is_file()


def test_a_plan_is_searched_in_both(data: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = data / "toy_arm/episode_003"
    words = [str(bundle), "--at", "4", "--goal", "+1", "--samples", "4", "--iterations", "1"]
    assert main(["plan", "--recording", str(recording), *words]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.cameras=[front, head]", "size=[256, 128]"], "expected camera head, found observation.images.front"),
        (["data.cameras=[front, front]", "size=[256, 128]"], "cameras: expected every name once, found front, front"),
        (["data.cameras=[front, wrist]", "size=[160, 128]"], "image_height: expected a multiple of 64, codec.factor"),
        (["data.cameras=[front, wrist]", "size=[250, 128]"], "size: expected a height that is a multiple of 8, found 250"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert train(data, tmp_path / "run", *words) == 1
    assert line in capsys.readouterr().err


def test_without_a_word_it_is_the_first_camera(data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "run") == 0
    assert load_checkpoint(tmp_path / "run").config.cameras == ()


def test_a_model_of_one_camera_is_gone_on_from(data: Path, tmp_path: Path) -> None:
    """Its codec and all that does not read actions."""
    assert train(data, tmp_path / "one") == 0
    one = f"codec_run={tmp_path / 'one'}", f"video_model={tmp_path / 'one'}"
    assert train(data, tmp_path / "two", "data.cameras=[front, wrist]", "size=[256, 128]", *one) == 0
    assert load_checkpoint(tmp_path / "two").config.cameras == NAMES


def test_the_share_of_every_camera_is_whole() -> None:
    with pytest.raises(ValueError, match="height: expected a multiple of 3, the number of cameras"):
        CameraSpec(128, 128, names=("a", "b", "c"))
    with pytest.raises(ValueError, match="image_height: expected a multiple of 96"):
        replace(tiny(), cameras=("a", "b", "c"))
