"""From a recording to arrays: synchronisation, commands and what is refused."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from astra_ros.data.bag import BagError, BagWriter, message_type, typestore
from astra_ros.data.episode import Episode, EpisodeTopics, frame_stride, read_contents, read_episode
from astra_ros.data.normalisation import fit_action_spec
from astra_ros.data.schema import ActionSchema
from astra_ros.types import NANOSECONDS

IMAGE, STATES, COMMANDS = "/camera/image_raw/compressed", "/joint_states", "/joint_commands"
PERIOD_NS = NANOSECONDS // 10
Stamp = Callable[[int], int | None]


def header(stamp_ns: int) -> Any:
    time = message_type("builtin_interfaces/msg/Time")(
        sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS
    )
    return message_type("std_msgs/msg/Header")(stamp=time, frame_id="")


def joints(stamp_ns: int, **positions: float) -> Any:
    empty = np.zeros(0)
    return message_type("sensor_msgs/msg/JointState")(
        header=header(stamp_ns),
        name=list(positions),
        position=np.array(list(positions.values())),
        velocity=empty,
        effort=empty,
    )


def picture(stamp_ns: int, level: int) -> Any:
    stream = io.BytesIO()
    Image.new("RGB", (48, 32), (level, level, level)).save(stream, "PNG")
    data = np.frombuffer(stream.getvalue(), np.uint8)
    return message_type("sensor_msgs/msg/CompressedImage")(header=header(stamp_ns), format="png", data=data)


def write(
    folder: Path,
    *,
    commanded: tuple[str, ...] = ("a", "b"),
    num_frames: int = 6,
    picture_stamp: Stamp = lambda now: now,
    state_stamp: Stamp = lambda now: now,
    command_stamp: Stamp = lambda now: now,
) -> Path:
    """Joint a is ten times the time in seconds; its command is one more; states come 30 ms off the frames.

    *_stamp: what a message's header says of the time at which it was sent; None: it was not sent.
    """
    with BagWriter(folder) as bag:
        for k in range(num_frames):
            now = NANOSECONDS + k * PERIOD_NS
            if (stamp := picture_stamp(now)) is not None:
                bag.write(IMAGE, picture(stamp, 10 * k), now)
            for shifted in (now - 30_000_000, now + 20_000_000):
                if (stamp := state_stamp(shifted)) is not None:
                    bag.write(STATES, joints(stamp, b=-1.0, a=10 * shifted / NANOSECONDS), shifted)
            if commanded and (stamp := command_stamp(now)) is not None:
                rows = {name: 10 * now / NANOSECONDS + 1 if name == "a" else 0.0 for name in commanded}
                bag.write(COMMANDS, joints(stamp, **rows), now)
    return folder


def test_joints_are_interpolated_to_the_frames_and_put_in_order(tmp_path: Path) -> None:
    episode = read_episode(write(tmp_path / "bag"), ("a", "b"), 16)
    assert episode.pixels.shape == (6, 16, 16, 3)
    assert [int(frame.mean()) for frame in episode.pixels] == [0, 10, 20, 30, 40, 50]
    assert np.allclose(episode.measured[:, 0], 10 + np.arange(6), atol=1e-4)
    assert np.allclose(episode.measured[:, 1], -1.0)


def test_the_command_of_a_frame_is_the_last_one_before_it(tmp_path: Path) -> None:
    episode = read_episode(write(tmp_path / "bag"), ("a", "b"), 16)
    assert np.allclose(episode.commanded[1:, 0], 10 + np.arange(5) + 1, atol=1e-4)


def test_without_commands_what_the_joints_did_stands_for_them(tmp_path: Path) -> None:
    episode = read_episode(write(tmp_path / "bag", commanded=()), ("a", "b"), 16)
    assert np.array_equal(episode.commanded, episode.measured)


def test_before_the_first_command_the_joints_are_where_they_are(tmp_path: Path) -> None:
    late = write(tmp_path / "bag", command_stamp=after(0.25))
    episode = read_episode(late, ("a", "b"), 16)
    assert np.array_equal(episode.commanded[:4], episode.measured[:4])
    assert np.allclose(episode.commanded[4:, 0], [14, 15], atol=1e-4)


def test_what_was_never_commanded_is_where_it_is(tmp_path: Path) -> None:
    """A gripper often has another topic than its arm."""
    episode = read_episode(write(tmp_path / "bag", commanded=("a",)), ("b", "a"), 16)
    assert np.array_equal(episode.commanded[:, 0], episode.measured[:, 0])
    assert np.allclose(episode.commanded[1:, 1], 10 + np.arange(5) + 1, atol=1e-4)


def test_commands_of_other_joints_are_refused_with_their_topic(tmp_path: Path) -> None:
    folder = write(tmp_path / "bag", commanded=("finger",))
    with pytest.raises(BagError, match=rf"{COMMANDS}: name: expected some of a, b, found finger; .*NONE"):
        read_episode(folder, ("a", "b"), 16)


def after(seconds: float) -> Stamp:
    """Sent only from then on."""
    return lambda now: now if now >= NANOSECONDS * (1 + seconds) else None


def of_another_clock(seconds: float) -> Stamp:
    return lambda now: now + round(seconds * NANOSECONDS)


def test_frames_before_the_first_joint_state_are_left_out(tmp_path: Path) -> None:
    """A recorder's subscriptions do not begin together."""
    episode = read_episode(write(tmp_path / "bag", state_stamp=after(0.25)), ("a", "b"), 16)
    assert [int(frame.mean()) for frame in episode.pixels] == [20, 30, 40, 50]
    assert np.allclose(episode.measured[1:, 0], [13, 14, 15], atol=1e-4)
    assert episode.commanded.shape == (4, 2)


BAD_STAMPS: dict[str, tuple[dict[str, Any], str]] = {
    "states of another clock": ({"state_stamp": of_another_clock(-400)}, r"joint_states: .* nearest 399\.\d+ s"),
    "states without stamps": ({"state_stamp": lambda _: 0}, "joint_states: .* expected a joint state within 0.1 s"),
    "states that paused": (
        {"num_frames": 12, "state_stamp": lambda now: None if 1.25 < now / NANOSECONDS < 1.75 else now},
        r"joint_states: .* nearest 0\.\d+ s",
    ),
    "states that came late": ({"num_frames": 20, "state_stamp": after(1.3)}, r"joint_states: .* nearest 1\.\d+ s"),
    "states behind": (
        {"num_frames": 40, "state_stamp": lambda now: now - 300_000_000},
        r"joint_states: header.stamp: .* found 0\.300 s before them; the clocks differ",
    ),
    "states ahead": (
        {"num_frames": 40, "state_stamp": lambda now: now + 800_000_000},
        r"joint_states: header.stamp: .* or up to 0\.5 s after them, found 0\.800 s after them; the clocks differ",
    ),
    "commands ahead": (
        {"num_frames": 60, "command_stamp": lambda now: now + 2 * NANOSECONDS},
        r"joint_commands: header.stamp: .* found 2\.000 s after them; the clocks differ",
    ),
    "commands without stamps": ({"command_stamp": lambda _: 0}, "joint_commands: .* found 0 to 0 ns; stamp"),
    "commands of one stamp": ({"command_stamp": lambda _: NANOSECONDS}, "joint_commands: .* growing stamps"),
    "commands of another clock": ({"command_stamp": of_another_clock(400)}, "joint_commands: .* found 401000000000"),
    "pictures without stamps": (
        {"picture_stamp": lambda _: 0},
        "compressed: header.stamp: expected 2 pictures or more with growing stamps, found 0 ns after 0 ns",
    ),
    "one picture": ({"num_frames": 1}, "expected 2 pictures or more with growing stamps, found one picture"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_STAMPS)
def test_stamps_that_do_not_fit_each_other_are_refused(tmp_path: Path, kind: str) -> None:
    arguments, message = BAD_STAMPS[kind]
    with pytest.raises(BagError, match=message) as caught:
        read_episode(write(tmp_path / "bag", **arguments), ("a", "b"), 16)
    assert "\n" not in str(caught.value)


def test_pictures_may_be_late(tmp_path: Path) -> None:
    """They arrive 0.3 s after their moment, joint states at once."""
    folder = write(tmp_path / "bag", num_frames=20, picture_stamp=lambda now: now - 300_000_000)
    episode = read_episode(folder, ("a", "b"), 16)
    assert np.allclose(episode.measured[1:, 0], 10 * episode.stamps_ns[1:] / NANOSECONDS, atol=1e-4)


@pytest.mark.parametrize("wanted", ["reference", "desired"])
def test_what_a_trajectory_controller_wants_are_commands(
    tmp_path: Path, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ros2_control publishes it, under a field that has had two names."""
    point = "trajectory_msgs/JointTrajectoryPoint"
    (package := tmp_path / "prefix/share/control_msgs/msg").mkdir(parents=True)
    (package / "JointTrajectoryControllerState.msg").write_text(
        f"std_msgs/Header header\nstring[] joint_names\n{point} {wanted}\n{point} error\n"
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path / "prefix"))
    typestore.cache_clear()
    state = message_type("control_msgs/msg/JointTrajectoryControllerState")
    trajectory_point = message_type("trajectory_msgs/msg/JointTrajectoryPoint")
    none, at_once = np.zeros(0), message_type("builtin_interfaces/msg/Duration")(0, 0)

    def at(*positions: float) -> Any:
        return trajectory_point(np.array(positions), none, none, none, at_once)

    with BagWriter(tmp_path / "bag") as bag:
        for tick in range(6):
            now = NANOSECONDS + tick * PERIOD_NS
            bag.write(IMAGE, picture(now, 10 * tick), now)
            bag.write(STATES, joints(now, a=0.0, b=0.0), now)
            told = at(2.0, now / NANOSECONDS)
            bag.write(COMMANDS, state(header(now), ["b", "a"], told, at(0.0, 0.0)), now)
    episode = read_episode(tmp_path / "bag", ("a", "b"), 16)
    typestore.cache_clear()
    assert np.allclose(episode.commanded[1:, 0], episode.stamps_ns[:-1] / NANOSECONDS)
    assert np.allclose(episode.commanded[1:, 1], 2.0)


def test_part_of_a_recording_in_another_shape(tmp_path: Path) -> None:
    episode = read_episode(write(tmp_path / "bag"), ("a", "b"), (8, 24), frames=range(2, 5))
    assert episode.pixels.shape == (3, 8, 24, 3)
    assert [int(frame.mean()) for frame in episode.pixels] == [20, 30, 40]
    assert np.allclose(episode.measured[:, 0], [12, 13, 14], atol=1e-4)
    assert np.allclose(episode.commanded[:, 0], [12, 13, 14], atol=1e-4), "the command before: one more"


def test_what_is_in_a_recording_is_found_without_decoding_it(tmp_path: Path) -> None:
    contents = read_contents(write(tmp_path / "bag"))
    assert contents.joints == (("b", "a"),)
    assert contents.picture_sizes == ((32, 48),)
    assert np.array_equal(np.diff(contents.stamps_ns), [PERIOD_NS] * 5)


def test_a_joint_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        BagError,
        match=rf"{STATES}: name: expected a, elbow; missing elbow, found b, a; `ros2 topic echo {STATES} --once",
    ):
        read_episode(write(tmp_path / "bag"), ("a", "elbow"), 16)


def test_joint_states_that_end_before_the_camera_begins_are_told(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(STATES, joints(NANOSECONDS, a=0.0), NANOSECONDS)
        for now in (10 * NANOSECONDS, 11 * NANOSECONDS):
            bag.write(IMAGE, picture(now, 0), now)
    with pytest.raises(
        BagError, match=rf"{STATES}: expected messages while the camera ran, found none of a;"
    ):
        read_episode(tmp_path / "bag", ("a",), 16)


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        (EpisodeTopics(image=STATES), "/joint_states: expected .*CompressedImage or .*Image, found .*JointState"),
        (EpisodeTopics(joint_states=IMAGE), "compressed: expected .*JointState, found .*CompressedImage"),
        (EpisodeTopics(joint_states="/gripper/position"), "position: expected .*JointState, found std_msgs/msg/Float64"),
        (
            EpisodeTopics(joint_commands="/gripper/position"),
            "expected .*JointState or .*ControllerState, found std_msgs/msg/Float64; import without them: --joint-commands NONE",
        ),
    ],
)  # fmt: skip
def test_a_topic_of_another_type_is_named_with_both(
    tmp_path: Path, topics: EpisodeTopics, message: str
) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(IMAGE, picture(NANOSECONDS, 0), NANOSECONDS)
        bag.write(STATES, joints(NANOSECONDS, a=0.0), NANOSECONDS)
        bag.write("/gripper/position", message_type("std_msgs/msg/Float64")(0.5), NANOSECONDS)
    with pytest.raises(BagError, match=message):
        read_episode(tmp_path / "bag", ("a",), 16, topics)


def test_a_missing_camera_topic_is_named(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as bag:
        bag.write(STATES, joints(NANOSECONDS, a=0.0), NANOSECONDS)
    with pytest.raises(BagError, match=f"expected topic {IMAGE}, found {STATES}"):
        read_episode(tmp_path / "bag", ("a",), 16)


def moving_episode(period_s: float = 0.1, num_frames: int = 40) -> Episode:
    stamps = (np.arange(num_frames) * period_s * NANOSECONDS).astype(np.int64)
    measured = np.stack([np.sin(stamps / NANOSECONDS), np.zeros(num_frames)], axis=1).astype(np.float32)
    return Episode("moving", stamps, np.zeros((num_frames, 8, 8, 3), np.uint8), measured, measured + 0.1)


def test_normalisation_and_range_come_from_the_recording() -> None:
    episode = moving_episode()
    schema = ActionSchema("two joints", "arm", "joint_position", ("a", "b"), ("rad", "m"))
    spec = fit_action_spec([episode], schema, 0.2)
    both = np.concatenate([episode.measured[2:], episode.commanded[2:]])  # a first step ends at frame 2
    assert np.allclose(spec.mean, both.mean(0), atol=1e-4)
    assert np.allclose(spec.std, both.std(0), atol=1e-4)
    assert spec.lower[0] < both[:, 0].min() < both[:, 0].max() < spec.upper[0]
    assert np.isfinite(spec.features(episode.measured, episode.measured[0], is_past=True)).all()


@pytest.mark.parametrize(("period_s", "stride"), [(0.1, 2), (0.2, 1), (1 / 30, 6)])
def test_camera_rates_that_divide_the_step(period_s: float, stride: int) -> None:
    assert frame_stride(moving_episode(period_s), 0.2) == stride


def test_a_camera_rate_that_does_not_divide_the_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"camera period 0\.140 s does not divide step_dt 0\.2 s"):
        frame_stride(moving_episode(0.14), 0.2)
