"""The file of held-out episodes, and the one that the project ships."""

from pathlib import Path

import pytest

from astra_ros.data.held_out import held_out
from astra_ros.data.lerobot import Dataset

REPOSITORY = Path(__file__).resolve().parents[3]
SHIPPED = REPOSITORY / "config/held_out.yaml"
DATA = REPOSITORY / "runs/data"
WORLDS = (
    "panda_sim",
    "panda_more",
    "panda_attempts",
    "panda_long",
    "panda_trust",
    "panda_test",
    "driving_sim",
    "rooms_sim",
    "command_sim",
    "metaworld",
    "pusht",
)
REAL = {
    "g1": ["episode_000001", "episode_000076", "episode_000077", "episode_000086"],
    "droid": ["train_00002_cam0", "val_00899_cam2", "val_01799_cam0"],
    "bridge": ["episode_000000_cam0", "episode_000021_cam1"],
    "rc_track": ["segment_00", "segment_01", "segment_03"],
    "rc_carpet": ["segment_01", "segment_08", "segment_18", "segment_24", "segment_33"],
    "handheld": ["segment_00", "segment_01", "segment_04"],
}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_names_and_patterns_divide_a_dataset(tmp_path: Path) -> None:
    file = write(tmp_path / "held_out.yaml", "arm: [episode_3, 'late_[12]?']\nnone: []\n")
    episodes = ("episode_1", "episode_3", "episode_33", "late_10", "late_30", "late_29")
    split = held_out(file).split("arm", episodes)
    assert split.held_out == ("episode_3", "late_10", "late_29")
    assert split.training == ("episode_1", "episode_33", "late_30")
    assert held_out(file).split("none", episodes).training == episodes


def test_what_would_train_on_held_out_episodes_is_refused(tmp_path: Path) -> None:
    file = held_out(write(tmp_path / "held_out.yaml", "arm: [episode_3]\n"))
    with pytest.raises(ValueError, match=r"held_out.yaml: leg: .* found no entry; add `leg: \[NAME, ...\]`"):
        file.split("leg", ("episode_3",))
    with pytest.raises(
        ValueError, match=r"arm: expected names of its episodes, found episode_3; it has episode_4$"
    ):
        file.split("arm", ("episode_4",))
    with pytest.raises(
        ValueError, match=r"; it has episode_0, episode_1, episode_2, episode_4, episode_5, …$"
    ):
        file.split("arm", [f"episode_{number}" for number in (0, 1, 2, 4, 5, 6)])


def test_a_recording_that_was_cut_is_named_by_its_pattern(tmp_path: Path) -> None:
    """An import cuts where the camera paused: 003 is then 003_segment_00 and so on."""
    episodes = ("001", "003_segment_00", "003_segment_01")
    with pytest.raises(ValueError, match=r'found 003; "003\*" holds out the 2 that begin like it'):
        held_out(write(tmp_path / "held_out.yaml", 'arm: ["003"]')).split("arm", episodes)
    file = held_out(write(tmp_path / "held_out.yaml", 'arm: ["003*"]'))
    assert file.split("arm", episodes).training == ("001",)


def test_a_file_that_is_not_there_is_missed_with_the_key_that_names_one(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"found none at .*none.yaml; run in the clone, .*data.held_out=FILE"
    ):
        held_out(tmp_path / "none.yaml")


def test_a_pattern_that_holds_nothing_out_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused it is not: held-out seeds of a world may be simulated later."""
    file = held_out(write(tmp_path / "held_out.yaml", 'arm: ["episode_1?", "late_*", "odd_[1]"]\n'))
    split = file.split("arm", ("episode_10", "episode_20", "odd_[1]"))
    assert split.held_out == ("episode_10", "odd_[1]")
    (warning,) = (record.getMessage() for record in caplog.records)
    assert (
        "held_out.yaml: arm: expected patterns of its episodes' names, found late_*, which holds" in warning
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- episode_3", "expected `data set: .*` entries, found list"),
        ("arm: episode_3", "arm: expected a list of episode names, found 'episode_3'"),
        ("arm: [3]", r"arm: expected a list of episode names, found \[3\]; quote names that are numbers"),
        ("arm: [", "expected YAML, found"),
    ],
)
def test_a_file_that_is_not_lists_of_names(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        held_out(write(tmp_path / "held_out.yaml", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("world", WORLDS)
def test_worlds_hold_out_the_seeds_from_100000_on(world: str) -> None:
    names = [f"episode_{seed:06d}" for seed in (0, 42, 99_999, 100_000, 100_100, 999_999)]
    split = held_out(SHIPPED).split(world, names)
    assert split.training == tuple(names[:3])
    assert split.held_out == tuple(names[3:])


def test_every_real_set_holds_some_episodes_out() -> None:
    file = held_out(SHIPPED)
    assert set(file.patterns) == {*WORLDS, *REAL}
    for name, episodes in REAL.items():
        split = file.split(name, episodes)
        assert split.held_out
        assert split.training


@pytest.mark.skipif(not DATA.exists(), reason="no datasets in runs/data; make them with `astra data import`")
@pytest.mark.parametrize("name", sorted(REAL))
def test_the_imported_sets_keep_their_share(name: str) -> None:
    if not (DATA / name / "meta/info.json").exists():
        pytest.skip(f"no dataset runs/data/{name}; make it with `astra data import`")
    dataset = Dataset.open(DATA / name)
    split = held_out(SHIPPED).split(dataset.name, dataset.episode_names)
    frames = sum(dataset.num_frames(episode) for episode in split.held_out)
    assert 0.1 < frames / sum(dataset.num_frames(episode) for episode in dataset.episode_names) < 0.26
