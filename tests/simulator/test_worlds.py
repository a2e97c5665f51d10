"""The worlds through the program and the dataset reader: what acts is what is seen, and the styles are what they say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from astra_ros.data.episode import Episode
from astra_ros.data.lerobot import Dataset
from astra_ros.types import ByteArray
from tests.simulator.conftest import Start, output_of

ABRUPT, SMOOTH = "episode_000000", "episode_000001"
DECLARED = {
    "driving": ("driving_sim", "drive", "rate", 2),
    "rooms": ("rooms_camera", "camera", "relative_pose", 12),
    "command": ("rooms_command", "command", "rate", 6),
    "metaworld": ("metaworld", "arm", "joint_position", 8),
    "pusht": ("pusht", "arm", "joint_position", 2),
}
FOCAL_PX = {"driving": 64 / np.tan(np.radians(62 / 2)), "rooms": 64 / np.tan(np.radians(70 / 2))}
HORIZON_ROWS = slice(30, 66)
Simulate = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def folders(simulate: Simulate, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two episodes of every world, one in each style."""
    root = tmp_path_factory.mktemp("worlds")
    options = ("--episodes", "2")
    programs = [simulate(world, root / world, *options) for world in DECLARED]
    for program in programs:
        assert "2 written, 0 failed" in output_of(program)
    return {world: root / world for world in DECLARED}


@pytest.fixture(scope="module")
def episodes(folders: dict[str, Path]) -> dict[tuple[str, str], Episode]:
    return {
        (world, name): Dataset.open(folder).read(name, 128)
        for world, folder in folders.items()
        for name in (ABRUPT, SMOOTH)
    }


@pytest.fixture(scope="module")
def probe(start_in_simulator: Start, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    file = tmp_path_factory.mktemp("probe") / "found.npz"
    output_of(start_in_simulator(str(Path(__file__).with_name("probe.py")), str(file)))
    return dict(np.load(file))


@pytest.mark.parametrize("world", DECLARED)
def test_a_world_declares_its_actions_and_keeps_its_rate(folders: dict[str, Path], world: str) -> None:
    dataset = Dataset.open(folders[world])
    schema = dataset.schema
    assert (schema.space, schema.modality, schema.representation, schema.dim) == DECLARED[world]
    assert dataset.fps == 10
    assert [dataset.num_frames(name) for name in dataset.episode_names] == [100, 100]
    lines = (folders[world] / "meta/episodes.jsonl").read_text().splitlines()
    assert [json.loads(line)["tasks"][0].split("/")[-1] for line in lines] == ["abrupt", "smooth"]


@pytest.mark.parametrize("name", [ABRUPT, SMOOTH])
@pytest.mark.parametrize("world", DECLARED)
def test_there_is_something_to_see_and_it_moves(
    episodes: dict[tuple[str, str], Episode], world: str, name: str
) -> None:
    pixels = episodes[world, name].pixels.astype(float)
    assert pixels.std(axis=(1, 2, 3)).min() > 8
    assert np.abs(np.diff(pixels, axis=0)).mean() > 0.4


@pytest.mark.parametrize("world", DECLARED)
def test_the_same_seed_gives_the_same_episode_and_another_seed_another(
    probe: dict[str, np.ndarray], world: str
) -> None:
    first, again, other = probe[f"same_{world}"]
    assert first == again
    assert first != other


@pytest.mark.parametrize("name", [ABRUPT, SMOOTH])
def test_a_car_that_steers_right_sees_the_far_country_move_left(
    episodes: dict[tuple[str, str], Episode], name: str
) -> None:
    episode = episodes["driving", name]
    steer, speed = episode.measured[1:].T
    right_turn = speed / 2.7 * np.tan(0.5 * steer) * 0.1
    shifts = [_shift(*pair, HORIZON_ROWS) for pair in _pairs(episode.pixels)]
    assert np.corrcoef(right_turn, shifts)[0, 1] < -0.9
    assert np.polyfit(right_turn, shifts, 1)[0] == pytest.approx(-FOCAL_PX["driving"], rel=0.25)


def test_a_car_goes_as_far_and_turns_as_much_as_its_action_says(probe: dict[str, np.ndarray]) -> None:
    stands, slow, fast, right, left = probe["car_states"]
    turn = 0.9 / 2.7 * np.tan(0.5)
    assert np.allclose(stands, 0)
    assert np.allclose([slow, fast], [[0.3, 0, 0], [0.9, 0, 0]])
    assert right[2] == pytest.approx(-turn)
    assert np.allclose(left, right * [1, -1, -1])
    assert np.hypot(*right[:2]) == pytest.approx(0.9, abs=0.005)


def test_a_faster_car_changes_its_view_more(probe: dict[str, np.ndarray]) -> None:
    before, stands, slow, fast, right, left = probe["car_views"]
    assert np.array_equal(stands, before)
    assert 0 < _error(slow, before) < _error(fast, before)
    assert _shift(before, right, HORIZON_ROWS) == pytest.approx(-_shift(before, left, HORIZON_ROWS), abs=3)
    assert _shift(before, right, HORIZON_ROWS) < -10


@pytest.mark.parametrize("name", [ABRUPT, SMOOTH])
def test_camera_poses_are_rotations_in_a_room_and_continuous(
    episodes: dict[tuple[str, str], Episode], name: str
) -> None:
    rotations, positions = _poses(episodes["rooms", name])
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-5)
    assert np.allclose(np.linalg.det(rotations), 1, atol=1e-5)
    assert np.linalg.norm(np.diff(positions, axis=0), axis=1).max() < 0.25
    assert (np.abs(positions) < 4.3).all()
    assert (rotations[:, 2, 1] < -0.8).all(), "the camera's y axis points down"


@pytest.mark.parametrize("motion", ["yaw_left", "nose_up", "roll_right"])
def test_a_turn_of_the_camera_moves_the_picture_as_its_pose_says(
    probe: dict[str, np.ndarray], motion: str
) -> None:
    turn = probe["pose_still"][:, :3].T @ probe[f"pose_{motion}"][:, :3]
    before, after = probe["view_still"], probe[f"view_{motion}"]
    right, wrong = _error(after, _turned(before, turn)), _error(after, _turned(before, turn.T))
    assert right < 0.5 * wrong
    assert right < 0.6 * _error(after, before)


@pytest.mark.parametrize(("motion", "axis", "towards"), [("forward", 2, 1), ("left", 0, -1), ("up", 1, -1)])
def test_a_camera_moves_along_its_own_axes(
    probe: dict[str, np.ndarray], motion: str, axis: int, towards: int
) -> None:
    still, moved = probe["pose_still"], probe[f"pose_{motion}"]
    offset = still[:, :3].T @ (moved[:, 3] - still[:, 3])
    assert np.allclose(offset, 0.2 * towards * np.eye(3)[axis], atol=1e-6)


def test_the_picture_grows_on_the_way_forward_and_moves_against_the_way_aside(
    probe: dict[str, np.ndarray],
) -> None:
    still, forward = probe["view_still"], probe["view_forward"]
    assert (
        _error(forward, _zoomed(still, 1.04)) < _error(forward, still) < _error(forward, _zoomed(still, 0.96))
    )
    assert _shift(still, probe["view_left"], slice(0, 128)) > 0
    assert _shift(still.transpose(1, 0, 2), probe["view_up"].transpose(1, 0, 2), slice(0, 128)) > 0


@pytest.mark.parametrize("name", [ABRUPT, SMOOTH])
def test_the_disc_is_seen_where_its_joints_say(episodes: dict[tuple[str, str], Episode], name: str) -> None:
    episode = episodes["pusht", name]
    red, _, blue = np.moveaxis(episode.pixels.astype(int), 3, 0)
    seen = np.array([np.argwhere(frame)[:, ::-1].mean(axis=0) + 0.5 for frame in blue - red > 90])
    assert np.allclose(seen / 128 * 0.512, episode.measured, atol=0.004)


def test_a_disc_is_commanded_what_it_was_told_by_the_time_of_the_frame(
    probe: dict[str, np.ndarray], episodes: dict[tuple[str, str], Episode]
) -> None:
    told, commanded = probe["disc_commands"].astype(np.float32), probe["disc_commanded"]
    np.testing.assert_array_equal(commanded[1:], told[1:-1:2])  # two periods a frame
    np.testing.assert_array_equal(commanded[0], probe["disc_measured"][0])
    read = episodes["pusht", ABRUPT]
    np.testing.assert_array_equal(read.commanded, commanded)
    np.testing.assert_array_equal(read.measured, probe["disc_measured"])


def test_keys_and_mouse_do_what_their_names_say(probe: dict[str, np.ndarray]) -> None:
    forward, back, left, right, mouse_right, mouse_down = probe["command_velocities"]
    assert np.allclose(forward, [1, 0, 0, 0, 0, 0])
    assert np.allclose(left, [0, 1, 0, 0, 0, 0])
    assert np.allclose(back, -forward)
    assert np.allclose(right, -left)
    assert np.allclose(mouse_right, [0, 0, 0, -1, 0, 0]), "yaw is positive to the left"
    assert np.allclose(mouse_down, [0, 0, 0, 0, -1, 0]), "pitch is positive upwards"


def test_the_mouse_turns_the_view_of_a_walk(episodes: dict[tuple[str, str], Episode]) -> None:
    episode = episodes["command", ABRUPT]
    rows = episode.measured[1:]
    turns = np.flatnonzero(
        (rows[:, :4] == 0).all(axis=1) & (np.abs(rows[:, 4]) > 0.1) & (np.abs(rows[:, 5]) < 0.1)
    )
    assert len(turns) >= 5
    shifts = [_shift(episode.pixels[turn], episode.pixels[turn + 1], slice(0, 128)) for turn in turns]
    assert np.allclose(shifts, -0.1 * rows[turns, 4] * FOCAL_PX["rooms"], atol=2.5)


def test_keys_are_pressed_or_not(episodes: dict[tuple[str, str], Episode]) -> None:
    for name in (ABRUPT, SMOOTH):
        assert set(np.unique(episodes["command", name].measured[:, :4])) <= {0.0, 1.0}


def test_abrupt_actions_are_held_for_a_while_and_then_jump(episodes: dict[tuple[str, str], Episode]) -> None:
    for world in ("driving", "command"):
        changes = np.abs(np.diff(episodes[world, ABRUPT].measured[1:], axis=0)).max(axis=1)
        jumps = np.flatnonzero(changes > 1e-6)
        assert 6 <= len(jumps) <= 33, world
        assert np.diff(jumps).min() >= 3, "0.3 s at least"
        assert np.diff(jumps).max() <= 15, "1.5 s at most"
        assert np.median(changes[jumps]) > 0.4


def test_smooth_actions_never_jump(episodes: dict[tuple[str, str], Episode]) -> None:
    steer, speed = np.abs(np.diff(episodes["driving", SMOOTH].measured[1:], axis=0)).max(axis=0)
    assert steer < 0.07
    assert speed < 0.51
    mouse = np.abs(np.diff(episodes["command", SMOOTH].measured[1:, 4:], axis=0))
    assert mouse.max() < 0.5


@pytest.mark.parametrize("world", ["rooms", "metaworld", "pusht"])
def test_abrupt_motion_changes_faster_than_smooth_motion(
    episodes: dict[tuple[str, str], Episode], world: str
) -> None:
    abrupt, smooth = (
        np.quantile(np.abs(np.diff(_path(episodes[world, name]), 2, axis=0)).max(axis=1), 0.9)
        for name in (ABRUPT, SMOOTH)
    )
    assert abrupt > 1.3 * smooth


def test_the_same_command_continues_where_it_stopped(folders: dict[str, Path], simulate: Simulate) -> None:
    folder = folders["command"]
    before = {file: file.read_bytes() for file in folder.glob("videos/**/*.mp4")}
    output = output_of(simulate("command", folder, "--episodes", "3"))
    assert "2 episodes were there, 1 written, 0 failed" in output
    assert all(file.read_bytes() == content for file, content in before.items())
    assert Dataset.open(folder).episode_names == (ABRUPT, SMOOTH, "episode_000002")


def test_a_folder_of_another_world_is_refused_with_one_line(
    folders: dict[str, Path], simulate: Simulate
) -> None:
    program = simulate("driving", folders["command"], "--episodes", "1")
    output, _ = program.communicate(timeout=120)
    assert program.returncode == 1
    assert len(output.strip().splitlines()) == 1, output
    assert "meta/astra.json" in output
    assert "expected driving_sim" in output


def _pairs(pixels: ByteArray) -> list[tuple[ByteArray, ByteArray]]:
    return list(pairwise(pixels))


def _shift(before: ByteArray, after: ByteArray, rows: slice, reach: int = 26) -> int:
    """How many pixels to the right the picture moved."""
    first, second = (picture[rows].mean(axis=2) for picture in (before, after))
    width = first.shape[1]
    errors = {
        shift: float(
            (
                (
                    second[:, max(0, shift) : width + min(0, shift)]
                    - first[:, max(0, -shift) : width - max(0, shift)]
                )
                ** 2
            ).mean()
        )
        for shift in range(-reach, reach + 1)
    }
    return min(errors, key=lambda shift: errors[shift])


def _turned(picture: ByteArray, turn: np.ndarray) -> np.ndarray:
    """What a camera sees after a turn (its new axes in the old ones); NaN where it did not look before."""
    size = len(picture)
    centres = np.arange(size) - (size - 1) / 2
    x, y = np.meshgrid(centres, centres)
    rays = np.stack([x, y, np.full_like(x, FOCAL_PX["rooms"])], axis=-1) @ turn.T
    columns, rows = (
        np.rint(rays[..., axis] / rays[..., 2] * FOCAL_PX["rooms"] + (size - 1) / 2).astype(int)
        for axis in (0, 1)
    )
    return _sampled(picture, rows, columns)


def _zoomed(picture: ByteArray, factor: float) -> np.ndarray:
    places = np.rint((np.arange(128) - 63.5) / factor + 63.5).astype(int)
    rows, columns = np.meshgrid(places, places, indexing="ij")
    return _sampled(picture, rows, columns)


def _sampled(picture: ByteArray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    inside = (rows >= 0) & (rows < 128) & (columns >= 0) & (columns < 128)
    sampled = picture[rows.clip(0, 127), columns.clip(0, 127)].astype(float)
    return np.where(inside[..., None], sampled, np.nan)


def _error(picture: ByteArray, other: np.ndarray) -> float:
    return float(np.nanmean((picture.astype(float) - other) ** 2))


def _poses(episode: Episode) -> tuple[np.ndarray, np.ndarray]:
    poses = episode.measured.reshape(-1, 3, 4).astype(float)
    return poses[:, :, :3], poses[:, :, 3]


def _path(episode: Episode) -> np.ndarray:
    """Camera positions, or joints of the arm."""
    return _poses(episode)[1] if episode.measured.shape[1] == 12 else episode.measured[:, :7]
