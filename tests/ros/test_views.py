"""Pictures of several cameras put together, and a node whose model sees two."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from astra_ros.backends.bundle import load_bundle
from astra_ros.frames.preprocess import fit_stacked
from astra_ros.msg import Goal
from astra_ros.ros import views
from astra_ros.ros.conversions import to_image, to_jpeg
from astra_ros.ros.inbox import Frame
from astra_ros.ros.live import LiveStream, Match
from astra_ros.ros.refusal import Drop, Refusal
from astra_ros.ros.stamps import to_time
from astra_ros.ros.views import Views
from astra_ros.srv import SetGoal
from astra_ros.types import ByteArray
from export.contract import ExportConfig
from export.to_onnx import export_bundle
from tests.bundle_fixture import untrained, untrained_model
from tests.ros.rig import SENSOR, Rig, joint_state
from tests.ros.test_goal_picture import astra_goal

MS = 1_000_000
SLOP_S = 0.05
TOPICS = ("/front/image", "/wrist/image", "/head/image")


class Clock:
    """Monotonic time, which a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(views, "time", clock)
    return clock


def frame(stamp_ms: float, level: int = 0, received_s: float = 100.0) -> Frame:
    return Frame(round(stamp_ms * MS), "", np.full((2, 3, 3), level, np.uint8), received_s, 0.0)


def levels(found: Frame | Refusal) -> list[int]:
    """Of each camera's rows."""
    assert isinstance(found, Frame), found
    return [int(rows[0, 0, 0]) for rows in np.split(found.pixels, len(found.pixels) // 2)]


def test_a_lone_camera_never_waits() -> None:
    own = Views(TOPICS[:1])
    own.add(0, frame(5, 7))
    (found,) = own.take(SLOP_S)
    assert levels(found) == [7]
    assert own.take(SLOP_S) == []


def test_pictures_of_one_instant_are_one_in_the_order_of_the_cameras(clock: Clock) -> None:
    own = Views(TOPICS)
    for camera, level in ((2, 30), (0, 10), (1, 20)):
        assert own.take(SLOP_S) == []
        own.add(camera, frame(5, level))
    (found,) = own.take(SLOP_S)
    assert levels(found) == [10, 20, 30]
    assert isinstance(found, Frame)
    assert found.pixels.shape == (6, 3, 3)
    assert found.stamp_ns == 5 * MS


def test_it_waits_for_a_picture_that_may_be_nearer(clock: Clock) -> None:
    own = Views(TOPICS[:2])
    own.add(1, frame(970, 1))
    own.add(0, frame(1000, 50))
    assert own.take(SLOP_S) == []
    own.add(1, frame(1010, 2))
    assert [levels(one) for one in own.take(SLOP_S)] == [[50, 2]]


def test_the_earlier_picture_is_taken_where_it_is_nearer(clock: Clock) -> None:
    own = Views(TOPICS[:2])
    own.add(1, frame(990, 1))
    own.add(0, frame(1000, 50))
    own.add(1, frame(1023, 2))
    assert [levels(one) for one in own.take(SLOP_S)] == [[50, 1]]


def test_after_the_slop_the_best_that_came_is_taken(clock: Clock) -> None:
    own = Views(TOPICS[:2])
    own.add(1, frame(970, 1))
    own.add(0, frame(1000, 50))
    clock.now_s += SLOP_S
    assert [levels(one) for one in own.take(SLOP_S)] == [[50, 1]]


def test_a_slower_camera_is_shown_again(clock: Clock) -> None:
    own, taken = Views(TOPICS[:2]), []
    for k in range(6):
        own.add(0, frame(33 * k, k, clock.now_s))
        if k % 3 == 0:
            own.add(1, frame(33 * k, 100 + k))
        taken += own.take(SLOP_S)
        clock.now_s += 0.033
    assert [levels(one) for one in taken] == [[0, 100], [1, 100], [2, 103], [3, 103]]


@pytest.mark.parametrize(
    ("other", "line"),
    [
        (None, "/wrist/image: expected a picture within 0.05 s (sync_slop_s) of that on /front/image, found none; start that camera"),
        (900, "found the nearest 0.100 s older: it stopped, is slow, or has another clock"),
        (1200, "found the nearest 0.200 s newer"),
    ],
)  # fmt: skip
def test_what_has_no_picture_beside_it_is_refused(clock: Clock, other: float | None, line: str) -> None:
    own = Views(TOPICS[:2])
    own.add(0, frame(1000))
    if other is not None:
        own.add(1, frame(other))
    clock.now_s += SLOP_S
    (found,) = own.take(SLOP_S)
    assert isinstance(found, Refusal)
    assert found.cause is Drop.NO_OTHER_PICTURE
    assert line in str(found)


def test_a_camera_that_stopped_costs_no_memory(clock: Clock) -> None:
    """Nor the others' pictures, when the first one stopped."""
    own, found = Views(TOPICS[:2]), []
    for k in range(300):
        own.add(0, frame(k))
        found += own.take(10.0)
    assert len(found) >= 300 - views._MOST_KEPT
    own = Views(TOPICS[:2])
    for k in range(300):
        own.add(1, frame(k, k % 256))
        own.take(10.0)
    assert len(own._others[0]) == views._MOST_KEPT


def test_what_was_forgotten_is_not_shown(clock: Clock) -> None:
    own = Views(TOPICS[:2])
    own.add(1, frame(1000, 1))
    own.add(0, frame(1000, 2))
    own.clear()
    clock.now_s += 1.0
    assert own.take(SLOP_S) == []
    own.add(0, replace(frame(1000, 3), received_s=clock.now_s))
    clock.now_s += 1.0
    (found,) = own.take(SLOP_S)
    assert isinstance(found, Refusal)


HEIGHT, WIDTH = 64, 64
NAMES = ("front", "wrist")


@pytest.fixture(scope="session")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle for pictures of 32x64 of either camera."""
    config = untrained_model().config.for_pictures(HEIGHT, WIDTH, NAMES)
    out = tmp_path_factory.mktemp("bundles") / "two_cameras"
    export_bundle(untrained(config), out, ExportConfig("panda", chunks=3))
    return out


def grey(level: int, size: tuple[int, int] = (48, 96)) -> ByteArray:
    return np.full((*size, 3), level, np.uint8)


class TwoCameras:
    """A robot with two cameras, in front of an active node."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.wrist = rig.robot.create_publisher(Image, "image_2", SENSOR)
        rig.activate()
        rig.spin_until(self.wrist.get_subscription_count)

    def see(self, front: int, wrist: int | None, *, apart_ms: float = 0.0) -> int:
        """Publish grey pictures and joints. Returns the stamp of the first camera's."""
        stamp_ns = self.rig.now_ns()
        self.rig.joints.publish(joint_state(stamp_ns))
        self.rig.image.publish(to_image(grey(front), Header(stamp=to_time(stamp_ns), frame_id="front")))
        if wrist is not None:
            self.show_wrist(wrist, stamp_ns + round(apart_ms * MS))
        return stamp_ns

    def show_wrist(self, level: int, stamp_ns: int) -> None:
        self.wrist.publish(to_image(grey(level), Header(stamp=to_time(stamp_ns), frame_id="wrist")))


@pytest.fixture
def robot(make_rig: Callable[..., Rig], two_cameras: Path) -> TwoCameras:
    return TwoCameras(make_rig(bundle=str(two_cameras)))


@pytest.fixture
def observed(monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    """Every picture that enters the history from now on."""
    frames: list[Frame] = []
    observe = LiveStream._observe

    def watched(stream: LiveStream, frame: Frame) -> Match | None:
        frames.append(frame)
        return observe(stream, frame)

    monkeypatch.setattr(LiveStream, "_observe", watched)
    return frames


def test_the_model_sees_both_cameras(observed: list[Frame], robot: TwoCameras) -> None:
    stamp_ns = robot.see(10, 200, apart_ms=3)
    future = robot.rig.future_at(stamp_ns)
    (seen,) = observed
    assert seen.pixels.shape == (HEIGHT, WIDTH, 3)
    assert (seen.pixels[: HEIGHT // 2] == 10).all()
    assert (seen.pixels[HEIGHT // 2 :] == 200).all()
    assert future.header.frame_id == "front"
    assert robot.rig.spin_until(lambda: robot.rig.infos)[-1].camera_names == [*NAMES]
    assert robot.rig.drops() == {}


def test_another_wrist_gives_another_future(robot: TwoCameras) -> None:
    """And the same one the same: nothing else differs."""
    frames = []
    for wrist in (200, 20, 200):
        robot.rig.node._configured().forget()
        frames.append(robot.rig.future_at(robot.see(10, wrist)).compressed_frames[0].data.tobytes())
    assert frames[0] == frames[2] != frames[1]


def test_without_the_other_camera_nothing_is_predicted_and_the_line_says_why(
    make_rig: Callable[..., Rig], two_cameras: Path
) -> None:
    robot = TwoCameras(make_rig(bundle=str(two_cameras), sync_slop_s=0.1))
    robot.see(10, None)
    line = "/image_2: expected a picture within 0.1 s (sync_slop_s) of that on /image, found none; start that camera"
    robot.rig.status(DiagnosticStatus.WARN, line)
    assert robot.rig.drops() == {"no_other_picture": 1}
    robot.rig.status(DiagnosticStatus.WARN, "/image_2: expected pictures, found none for ")
    assert not robot.rig.futures
    robot.rig.future_at(robot.see(10, 20))
    robot.rig.status(DiagnosticStatus.OK)


def test_a_wrist_that_is_late_is_waited_for(observed: list[Frame], robot: TwoCameras) -> None:
    stamp_ns = robot.see(10, None)
    robot.rig.spin_for(0.3)
    assert not robot.rig.futures
    robot.show_wrist(90, stamp_ns + 20 * MS)
    robot.rig.future_at(stamp_ns)
    assert (observed[-1].pixels[HEIGHT // 2 :] == 90).all()


def test_no_other_picture_is_needed_to_end_the_wait(make_rig: Callable[..., Rig], two_cameras: Path) -> None:
    """The wrist's stamp is the earlier one, and its next picture could be nearer."""
    robot = TwoCameras(make_rig(bundle=str(two_cameras), sync_slop_s=0.4))
    began_s = time.monotonic()
    robot.rig.future_at(robot.see(10, 20, apart_ms=-5))
    assert 0.3 < time.monotonic() - began_s < 3.0


def test_pictures_of_either_camera_must_be_in_order(robot: TwoCameras) -> None:
    stamp_ns = robot.see(10, 20)
    robot.rig.future_at(stamp_ns)
    robot.show_wrist(90, stamp_ns - MS)
    robot.rig.spin_until(lambda: robot.rig.drops() == {"out_of_order": 1})
    (line,) = robot.rig.spin_until(lambda: robot.rig.warnings)
    assert "/image_2: header.stamp: expected every picture to be newer" in line


def test_compressed_pictures_of_both(
    observed: list[Frame], make_rig: Callable[..., Rig], two_cameras: Path
) -> None:
    """Remapping the base topic carries over, for either camera."""
    remapped = ["--ros-args", "-r", "image_2:=/hand/image_raw"]
    rig = make_rig(bundle=str(two_cameras), image_transport="compressed", cli_args=remapped)
    topics = ("image/compressed", "/hand/image_raw/compressed")
    cameras = [rig.robot.create_publisher(CompressedImage, topic, SENSOR) for topic in topics]
    rig.configure_and_activate()
    rig.spin_until(lambda: all(one.get_subscription_count() for one in cameras))
    stamp_ns = rig.now_ns()
    rig.joints.publish(joint_state(stamp_ns))
    for level, camera in zip((30, 160), cameras, strict=True):
        camera.publish(to_jpeg(grey(level), Header(stamp=to_time(stamp_ns)), 95))
    rig.future_at(stamp_ns)
    assert [int(half.mean()) for half in np.split(observed[-1].pixels, 2)] == pytest.approx([30, 160], abs=2)


def test_a_goal_is_a_picture_per_camera(robot: TwoCameras, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.png" for name in NAMES]
    for file, level in zip(files, (10, 200), strict=True):
        PIL.Image.fromarray(grey(level, (30, 40))).save(file)
    code, out, errors = astra_goal(robot.rig, *files)
    assert code == 0, errors
    assert out == f"/world_model: the goal is {files[0]}, {files[1]}\n"
    for wrong in ([*files, files[0]], files[:1]):  # one alone would be taken for both, cut in two
        code, _, errors = astra_goal(robot.rig, *wrong)
        assert code == 1
        assert (
            f"picture: expected 2, one per camera of the model (front, wrist), found {len(wrong)}" in errors
        )


def test_a_goal_of_both_is_cut_camera_by_camera(robot: TwoCameras, two_cameras: Path) -> None:
    """Both are higher than the model's: either loses its top and its bottom."""
    tall = np.concatenate([grey(10, (80, 80)), grey(200, (80, 80))])
    tall[[*range(19), *range(61, 99), *range(141, 160)]] = 90
    camera = load_bundle(two_cameras).manifest.camera
    fitted = fit_stacked(tall, camera.count, *camera.size)
    assert sorted(np.unique(fitted).tolist()) == [10, 200]
    odd = Goal(type=Goal.TYPE_IMAGE, image=to_image(grey(10, (81, 80)), Header()))
    client = robot.rig.robot.create_client(SetGoal, "world_model/set_goal")
    robot.rig.spin_until(client.service_is_ready)
    answer = client.call_async(SetGoal.Request(goal=odd))
    robot.rig.spin_until(answer.done)
    assert "goal.image: height: expected a multiple of 2, the number of cameras" in answer.result().message
