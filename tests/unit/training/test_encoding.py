"""From datasets to latents: what the codec sees, what is kept on disk, and how often each dataset is drawn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file

from astra_ros.codec.autoencoder import Codec, CodecConfig
from astra_ros.codec.pictures import encode_episode
from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import ActionSchema, DatasetWriter
from astra_ros.data.segments import SegmentConfig
from astra_ros.training.config import DataConfig, DataSource
from astra_ros.training.frames import FramePool, gather_frames
from astra_ros.training.latents import EncodedSet, LatentStore, encode_sets, encoder_digest
from astra_ros.training.machine import make_fabric
from astra_ros.training.mix import TrainingSet, open_sets
from astra_ros.training.segments import fit_specs, segment_sampler
from tests.unit.training.toy_data import ARM, FPS, sliding_square, write_toy_data

SIZE = (32, 32)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return make_fabric("32-true")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_toy_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def sets(data: Path) -> list[TrainingSet]:
    sources = (DataSource(str(data / "toy_arm"), 3.0), DataSource(str(data / "toy_car")))
    return open_sets(DataConfig(sources, str(data / "held_out.yaml")), SIZE)


@pytest.fixture
def codec() -> Codec:
    torch.manual_seed(0)
    return Codec(CodecConfig(latent_channels=4, widths=(8, 8), num_blocks=1))


def test_held_out_episodes_are_set_aside(sets: list[TrainingSet]) -> None:
    assert [one.names for one in sets] == [("episode_000", "episode_001")] * 2
    assert [one.held_out for one in sets] == [("episode_002",)] * 2


def test_a_dataset_that_is_held_out_entirely_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text('toy_arm: ["*"]\n')
    with pytest.raises(
        ValueError, match=r"toy_arm: expected episodes to train on, found 3, all of them held out by"
    ):
        open_sets(DataConfig((DataSource(str(data / "toy_arm")),), str(tmp_path / "all.yaml")), SIZE)


def test_two_datasets_of_one_name_are_refused(data: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(data / "toy_arm", tmp_path / "site_b/toy_arm"))
    sources = (DataSource(str(data / "toy_arm")), DataSource(str(other)))
    with pytest.raises(ValueError, match="name: expected one of its own, found toy_arm, which") as caught:
        open_sets(DataConfig(sources, str(data / "held_out.yaml")), SIZE)
    assert str(caught.value).startswith(f"{other}: ")
    assert f"{data}/toy_arm has too" in str(caught.value)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("units", replace(ARM, units=("mm", "1"))),
        ("names", replace(ARM, names=("grip", "slide"))),
        ("modality", replace(ARM, modality="command")),
    ],
)
def test_one_space_declared_in_two_ways_is_refused(
    data: Path, tmp_path: Path, field: str, other: ActionSchema
) -> None:
    with DatasetWriter(tmp_path / "second", "second", other, FPS, SIZE) as writer:
        writer.append(sliding_square(ARM, 0))
    (tmp_path / "held_out.yaml").write_text("toy_arm: [episode_002]\nsecond: []\n")
    sources = (DataSource(str(data / "toy_arm")), DataSource(str(tmp_path / "second")))
    with pytest.raises(
        ValueError, match=rf"second: {field}: expected .*toy_arm of the same action"
    ) as caught:
        open_sets(DataConfig(sources, str(tmp_path / "held_out.yaml")), SIZE)
    assert f"expected {getattr(ARM, field)} as" in str(caught.value)
    assert f"has, found {getattr(other, field)}; import it again" in str(caught.value)


def stored(path: Path, size: tuple[int, int], camera: tuple[int, int] | None) -> Path:
    """A dataset of an earlier version where the camera is not known."""
    with DatasetWriter(path, "toy_arm", ARM, FPS, size, camera) as writer:
        writer.append(sliding_square(ARM, 0))
        writer.append(sliding_square(ARM, 2))
    if camera is None:
        file = path / "meta/astra.json"
        fields = json.loads(file.read_text())
        del fields["camera"]
        file.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize(
    ("size", "camera", "model", "found"),
    [
        ((128, 128), None, (128, 128), ""),
        ((64, 64), None, (128, 128), ""),  # a small camera, enlarged as at run time
        ((64, 64), (64, 64), (96, 160), ""),  # its own pictures, cropped once
        ((96, 160), (240, 320), (96, 160), ""),
        ((38, 64), (48, 64), (96, 160), ""),  # stored as large as they were
        ((185, 320), (240, 320), (480, 832), ""),
        ((128, 128), None, (96, 160), "128 x 128 of an unknown shape; import it again: .* --size 96 160; if the"),
        ((128, 128), (240, 320), (96, 160), "128 x 128 of 240 x 320; import it again: .* --size 96 160$"),
        ((96, 160), (240, 320), (192, 320), "96 x 160 of 240 x 320; import it again: .* --size 192 320$"),
    ],
)  # fmt: skip
def test_a_model_learns_from_the_view_that_it_will_have(
    tmp_path: Path,
    data: Path,
    size: tuple[int, int],
    camera: tuple[int, int] | None,
    model: tuple[int, int],
    found: str,
) -> None:
    source = DataSource(str(stored(tmp_path / "toy_arm", size, camera)))
    config = DataConfig((source,), str(data / "held_out.yaml"))
    if not found:
        assert len(open_sets(config, model)) == 1
        return
    with pytest.raises(ValueError, match=f"toy_arm: pictures: expected what .* found {found}"):
        open_sets(config, model)


def test_pictures_for_the_codec_are_in_proportion_and_bounded(
    sets: list[TrainingSet], tmp_path: Path
) -> None:
    pool = gather_frames(sets, SIZE, 24, seed=0)
    assert pool.frames.shape == (24, *SIZE, 3)
    of_arm = pool.episode < pool.episode[18]
    assert of_arm.sum() == 18  # three quarters
    for number, background in enumerate(pool.backgrounds):
        own = pool.frames[pool.episode == number].astype(float).mean(axis=0)
        np.testing.assert_allclose(background, own, atol=0.5)
    pool.save(tmp_path / "frames.safetensors")
    again = FramePool.load(tmp_path / "frames.safetensors")
    assert (again.frames == pool.frames).all()
    frames, backgrounds = again.draw(5, np.random.default_rng(0))
    assert frames.shape == backgrounds.shape == (5, *SIZE, 3)


def test_every_episode_is_encoded_once(
    sets: list[TrainingSet], codec: Codec, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode_sets(LatentStore(tmp_path, codec, fabric, 0.2), sets, SIZE, fabric)
    episode, latents = encoded[0].episodes[1]
    original = sets[0].dataset.read("episode_001", SIZE)
    assert latents.dtype == np.float16
    assert (latents == encode_episode(codec, original.pixels)).all()
    for field in ("measured", "commanded", "stamps_ns"):
        assert (getattr(episode, field) == getattr(original, field)).all()
    monkeypatch.setattr(LatentStore, "_write", lambda *_: pytest.fail("encoded again"))
    assert len(encode_sets(LatentStore(tmp_path, codec, fabric, 0.2), sets, SIZE, fabric)[1].episodes) == 2


@pytest.fixture
def own(data: Path, tmp_path: Path) -> TrainingSet:
    """Of a dataset that a test may change."""
    path = shutil.copytree(data / "toy_arm", tmp_path / "data/toy_arm")
    return reopened(Path(path), data)


def reopened(path: Path, data: Path) -> TrainingSet:
    (one,) = open_sets(DataConfig((DataSource(str(path)),), str(data / "held_out.yaml")), SIZE)
    return one


def import_again(path: Path, schema: ActionSchema, change: Callable[[Episode], Episode]) -> None:
    shutil.rmtree(path)
    with DatasetWriter(path, "toy_arm", schema, FPS, 128) as writer:
        for seed in range(3):
            writer.append(change(sliding_square(ARM, seed)))


CORRECTIONS: dict[str, tuple[ActionSchema, Callable[[Episode], Episode]]] = {
    "commands": (ARM, lambda e: replace(e, commanded=np.roll(e.commanded, 1, axis=0))),
    "order of joints": (
        replace(ARM, names=ARM.names[::-1], units=ARM.units[::-1]),
        lambda e: replace(e, measured=e.measured[:, ::-1], commanded=e.commanded[:, ::-1]),
    ),
    "units": (replace(ARM, units=("mm", "1")), lambda e: e),
    "pictures": (ARM, lambda e: replace(e, pixels=255 - e.pixels // 2)),
}


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_a_dataset_that_was_imported_again_is_encoded_again(
    own: TrainingSet, data: Path, codec: Codec, fabric: Fabric, tmp_path: Path, kind: str
) -> None:
    store, path = LatentStore(tmp_path / "latents", codec, fabric, 0.2), own.dataset.path
    store.encode(own, SIZE)
    import_again(path, *CORRECTIONS[kind])
    again = reopened(path, data)
    assert store.load(again) == ([], ["episode_000", "episode_001"]), "rows of the old import are not used"
    store.encode(again, SIZE)
    (episode, latents), _ = store.load(again)[0]
    wanted = again.dataset.read("episode_000", SIZE)
    assert (episode.measured == wanted.measured).all()
    assert (episode.commanded == wanted.commanded).all()
    assert (latents == encode_episode(codec, wanted.pixels)).all()


def test_a_dataset_that_was_moved_or_touched_is_not_encoded_again(
    own: TrainingSet,
    data: Path,
    codec: Codec,
    fabric: Fabric,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = LatentStore(tmp_path / "latents", codec, fabric, 0.2)
    store.encode(own, SIZE)
    moved = Path(shutil.copytree(own.dataset.path, tmp_path / "elsewhere/toy_arm", copy_function=shutil.copy))
    monkeypatch.setattr(LatentStore, "_write", lambda *_: pytest.fail("encoded again"))
    store.encode(reopened(moved, data), SIZE)


def test_latents_of_earlier_versions_are_taken_unless_frames_are_missing(
    own: TrainingSet, codec: Codec, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LatentStore(tmp_path / "latents", codec, fabric, 0.2)
    store.encode(own, SIZE)
    first, second = sorted((tmp_path / "latents").rglob("*.safetensors"))
    tensors = load_file(first)
    save_file(tensors, first)  # which has no metadata
    save_file({key: value[:-1].clone() for key, value in load_file(second).items()}, second)
    assert [episode.name for episode, _ in store.load(own)[0]] == ["episode_000"]
    written: list[str] = []
    monkeypatch.setattr(LatentStore, "_write", lambda _self, _one, episode: written.append(episode.name))
    store.encode(own, SIZE)
    assert written == ["episode_001"]


def test_an_interrupted_encoding_leaves_no_half_file_and_goes_on(
    sets: list[TrainingSet], codec: Codec, fabric: Fabric, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LatentStore(tmp_path, codec, fabric, 0.2)
    with monkeypatch.context() as patch:
        patch.setattr(
            "astra_ros.training.latents.os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            store.encode(sets[0], SIZE)
    assert not store.load(sets[0])[0]
    store.encode(sets[0], SIZE)
    assert len(store.load(sets[0])[0]) == 2


def test_a_damaged_file_is_one_bad_episode(
    sets: list[TrainingSet], codec: Codec, fabric: Fabric, tmp_path: Path
) -> None:
    store = LatentStore(tmp_path, codec, fabric, 0.2)
    store.encode(sets[0], SIZE)
    file = next(tmp_path.rglob("episode_000.safetensors"))
    file.write_bytes(file.read_bytes()[:100])
    episodes, bad = store.load(sets[0])
    assert ([episode.name for episode, _ in episodes], bad) == (["episode_001"], ["episode_000"])


def test_a_camera_of_another_rate_is_a_bad_episode(
    sets: list[TrainingSet], codec: Codec, fabric: Fabric, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = LatentStore(tmp_path, codec, fabric, step_dt=0.3)
    store.encode(sets[0], SIZE)
    assert store.load(sets[0]) == ([], ["episode_000", "episode_001"])
    assert (
        "skipped a bad episode: episode_000: camera period 0.200 s does not divide step_dt 0.3 s"
        in capsys.readouterr().out
    )


def test_latents_belong_to_an_encoder_not_to_a_decoder(codec: Codec) -> None:
    before = encoder_digest(codec)
    with torch.no_grad():
        next(codec.decoder.parameters()).add_(1.0)
    assert encoder_digest(codec) == before
    with torch.no_grad():
        codec.std.mul_(2.0)
    assert encoder_digest(codec) != before


@pytest.fixture
def encoded(sets: list[TrainingSet], codec: Codec, fabric: Fabric, tmp_path: Path) -> list[EncodedSet]:
    return encode_sets(LatentStore(tmp_path, codec, fabric, 0.2), sets, SIZE, fabric)


def test_datasets_are_drawn_as_their_weights_say(encoded: list[EncodedSet]) -> None:
    sampler = segment_sampler(encoded, fit_specs(encoded, 0.2), SegmentConfig())
    spaces = sampler.draw(2000, np.random.default_rng(0)).space
    assert float((spaces == 0).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_a_dataset_without_a_usable_episode_is_refused(encoded: list[EncodedSet]) -> None:
    empty = replace(encoded[1], episodes=[], bad=["episode_000", "episode_001"])
    with pytest.raises(ValueError, match="toy_car: expected a usable episode, found 2 bad ones"):
        fit_specs([encoded[0], empty], 0.2)
