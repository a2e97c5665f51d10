"""The main job: observations in, predicted futures out."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from sensor_msgs.msg import CompressedImage, Image

from astra_ros.actions.spec import ActionSpec
from astra_ros.backends.bundle import load_bundle
from astra_ros.frames.preprocess import fit
from astra_ros.history.layout import NUM_SLOTS
from astra_ros.msg import ActionSequence, PredictedFuture
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.conversions import to_jpeg, to_rgb
from astra_ros.ros.stamps import to_ns
from astra_ros.types import NANOSECONDS, Observation
from tests.bundle_fixture import CHUNK, HEIGHT, WIDTH
from tests.ros.rig import (
    HORIZON,
    JOINTS,
    POSITIONS,
    SENSOR,
    Rig,
    action_sequence,
    image,
    joint_state,
    plan_rows,
)

STEP_NS = 200_000_000
MakeRig = Callable[..., Rig]


def rows_of(actions: ActionSequence) -> np.ndarray:
    return np.reshape(actions.data, (actions.horizon, len(actions.names)))


def test_predicts_for_holding_still_without_a_plan(rig: Rig) -> None:
    future = rig.serve()
    assert future.flags == PredictedFuture.FLAG_HOLD_STILL
    assert not any(future.id.uuid)
    assert future.actions.representation == ActionSequence.REPRESENTATION_JOINT_POSITION
    assert tuple(future.actions.names) == JOINTS
    np.testing.assert_array_equal(rows_of(future.actions), np.tile(POSITIONS, (HORIZON, 1)))


def test_stamps_frame_and_model(rig: Rig, untrained_bundle: str) -> None:
    bundle = load_bundle(untrained_bundle)
    future = rig.serve()
    t0 = to_ns(future.header.stamp)
    assert to_ns(future.step_dt) == STEP_NS
    assert [to_ns(frame.header.stamp) for frame in future.compressed_frames] == [
        t0 + k * STEP_NS for k in range(1, HORIZON + 1)
    ]
    assert (
        {frame.header.frame_id for frame in future.compressed_frames}
        == {"camera_optical"}
        == {future.header.frame_id}
    )
    assert (future.model_id, future.bundle_sha256) == (bundle.manifest.model_id, bundle.sha256)
    assert (future.denoising_steps, future.seed) == (bundle.manifest.num_steps, 0)
    assert np.isnan([future.score, future.uncertainty]).all()
    assert not future.frames


def test_times_are_parts_of_the_whole(rig: Rig) -> None:
    future = rig.serve()
    preprocess, inference, total = (
        to_ns(duration) for duration in (future.preprocess_time, future.inference_time, future.total_latency)
    )
    assert preprocess > 0
    assert inference > 0
    assert preprocess + inference <= total < 20e9
    assert 0 < to_ns(future.observation_age) < 20e9


def test_a_plan_is_echoed_with_its_id(rig: Rig) -> None:
    rig.plan.publish(action_sequence())
    future = rig.spin_until(lambda: (served := rig.serve()).flags == 0 and served)
    assert list(future.id.uuid) == list(range(16))
    np.testing.assert_allclose(rows_of(future.actions), plan_rows(), atol=1e-6)


def test_plans_that_are_sent_in_one_go_follow_each_other(rig: Rig) -> None:
    start_ns = rig.now_ns()
    rig.plan.publish(action_sequence(start_ns, step_dt=10.0))
    rig.plan.publish(action_sequence(start_ns + HORIZON * 10_000_000_000, rows=-plan_rows()))
    rig.spin_until(lambda: rig.counters().get("action_sequence.received") == "2")
    future = rig.serve()
    assert not future.flags & PredictedFuture.FLAG_HOLD_STILL
    # On the way to the first row of the first; the second alone would have them stay until it begins.
    assert (rows_of(future.actions) > POSITIONS).all()


def test_what_is_published_is_what_the_model_predicts(make_rig: MakeRig, untrained_bundle: str) -> None:
    rig = make_rig(compress_frames=False, seed=5)
    rig.activate()
    future = rig.serve(seed=3)
    t0 = to_ns(future.header.stamp)
    with WorldModel.load(untrained_bundle, "onnxruntime") as model:
        model.observe(Observation(t0, fit(to_rgb(image(t0, seed=3)), HEIGHT, WIDTH), POSITIONS))
        expected = model.predict(t0, np.tile(POSITIONS, (HORIZON, 1)), 5).frames
    np.testing.assert_array_equal([to_rgb(frame) for frame in future.frames], expected)
    assert not future.compressed_frames
    assert future.seed == 5


def test_same_observations_and_seed_give_the_same_bytes(make_rig: MakeRig) -> None:
    rigs = [make_rig(name, seed=seed, compress_frames=False) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    for rig in rigs:
        rig.activate()
    start_ns = rigs[0].now_ns()
    stamps = [start_ns + k * 1_000_000 for k in range(3)]
    frames = [observe_in_turn(rig, stamps) for rig in rigs]
    assert frames[0] == frames[1]
    assert frames[0] != frames[2]


def observe_in_turn(rig: Rig, stamps: list[int]) -> list[bytes]:
    for k, stamp_ns in enumerate(stamps):
        rig.joints.publish(joint_state(stamp_ns))
        rig.image.publish(image(stamp_ns, seed=k))
        future = rig.future_at(stamp_ns)
    return [bytes(frame.data) for frame in future.frames]


def test_history_and_actions_matter(make_rig: MakeRig) -> None:
    """The message is a prediction, not a picture of the present."""
    rig = make_rig(compress_frames=False)
    rig.activate()
    first = rig.serve(seed=1)
    rig.plan.publish(action_sequence())
    second = rig.spin_until(lambda: (served := rig.serve(seed=1)).flags == 0 and served)
    assert [bytes(frame.data) for frame in first.frames] != [bytes(frame.data) for frame in second.frames]


@pytest.mark.parametrize(
    ("picture", "name"),
    [
        ({"encoding": "bgr8"}, "bgr8"),
        ({"encoding": "mono8", "channels": 1}, "mono8"),
        ({"encoding": "rgba8", "channels": 4}, "rgba8"),
        ({"height": 120, "width": 40}, "tall"),
        ({"height": HEIGHT, "width": WIDTH}, "the model's size"),
        ({"height": 32, "width": 32}, "square"),
        ({"height": 8, "width": 8}, "tiny"),
        ({"width": 30, "step": 96, "data": image(0, height=48, width=32).data}, "padded rows"),
    ],
)
def test_pictures_of_any_size_and_encoding_are_served(
    rig: Rig, picture: dict[str, object], name: str
) -> None:
    assert len(rig.serve(**picture).compressed_frames) == HORIZON, name


def test_frames_are_jpegs_of_the_models_size(rig: Rig) -> None:
    for frame in rig.serve().compressed_frames:
        with PIL.Image.open(io.BytesIO(frame.data)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (WIDTH, HEIGHT))


def test_compressed_transport_follows_the_remapped_base_topic(make_rig: MakeRig) -> None:
    rig = make_rig(image_transport="compressed", cli_args=["--ros-args", "-r", "image:=/camera/image_raw"])
    camera = rig.robot.create_publisher(CompressedImage, "/camera/image_raw/compressed", SENSOR)
    rig.configure_and_activate()
    rig.spin_until(camera.get_subscription_count)
    stamp_ns = rig.now_ns()
    message = to_jpeg(to_rgb(image(stamp_ns)), image(stamp_ns).header, 90)
    rig.joints.publish(joint_state(stamp_ns))
    camera.publish(message)
    assert len(rig.future_at(stamp_ns).compressed_frames) == HORIZON


def test_joint_positions_are_those_at_the_pictures_stamp(rig: Rig) -> None:
    stamp_ns = rig.now_ns()
    for offset_ms, offset in ((-20, 0.0), (20, 0.1)):
        positions = [float(position) + offset for position in POSITIONS[::-1]]
        rig.joints.publish(joint_state(stamp_ns + offset_ms * 1_000_000, JOINTS[::-1], positions))
    rig.image.publish(image(stamp_ns))
    np.testing.assert_allclose(rows_of(rig.future_at(stamp_ns).actions)[0], POSITIONS + 0.05, atol=1e-6)


def test_a_picture_that_comes_late_has_the_joint_states_and_the_plan_of_its_time(make_rig: MakeRig) -> None:
    rig = make_rig(sync_slop_s=0.05)  # and max_observation_age_s is 30
    rig.activate()
    now_ns = rig.now_ns()
    stamp_ns = now_ns - 8 * NANOSECONDS
    for number, start_ns in enumerate((stamp_ns, now_ns - 5 * NANOSECONDS, now_ns - 4 * NANOSECONDS), 1):
        plan = action_sequence(start_ns, step_dt=2.0)
        plan.id.uuid = np.full(16, number, np.uint8)
        rig.plan.publish(plan)
    for seconds in range(9):
        rig.joints.publish(joint_state(stamp_ns + seconds * NANOSECONDS))
    rig.spin_until(lambda: rig.counters().get("action_sequence.received") == "3")
    rig.spin_until(lambda: rig.counters().get("joint_states.received") == "9")
    rig.image.publish(image(stamp_ns))
    assert rig.future_at(stamp_ns).id.uuid.tolist() == [1] * 16


def test_a_picture_waits_for_the_joint_state_after_it(rig: Rig) -> None:
    stamp_ns = rig.now_ns()
    rig.joints.publish(joint_state(stamp_ns - 20_000_000))
    rig.image.publish(image(stamp_ns))
    rig.spin_for(0.3)
    assert not rig.futures
    rig.joints.publish(joint_state(stamp_ns + 20_000_000, JOINTS, [float(p) + 0.1 for p in POSITIONS]))
    np.testing.assert_allclose(rows_of(rig.future_at(stamp_ns).actions)[0], POSITIONS + 0.05, atol=1e-6)


def test_the_newest_picture_wins_and_the_rest_is_history(rig: Rig) -> None:
    start_ns = rig.now_ns()
    stamps = [start_ns + k * 5_000_000 for k in range(6)]
    for k, stamp_ns in enumerate(stamps):
        rig.image.publish(image(stamp_ns, seed=k))
        rig.spin_until(lambda: rig.counters().get("image.received") == str(k + 1))  # noqa: B023
    # All of them waited for this one.
    rig.joints.publish(joint_state(stamps[-1]))
    rig.future_at(stamps[-1])
    assert [to_ns(future.header.stamp) for future in rig.futures] == stamps[-1:]
    assert rig.drops() == {"superseded": 5}


def test_a_fast_camera_need_not_be_predicted_from_at_every_picture(make_rig: MakeRig) -> None:
    """The others are history all the same."""
    rig = make_rig(max_rate_hz=10.0, future_tolerance_s=10.0)
    rig.activate()
    shown, start_ns = list[int](), to_ns(rig.serve().header.stamp)
    for tick in range(1, 10):  # of a camera at 30 Hz that trembles
        stamp_ns = start_ns + round((tick + 0.1 * (-1) ** tick) * NANOSECONDS / 30)
        rig.joints.publish(joint_state(stamp_ns))
        rig.image.publish(image(stamp_ns))
        if tick % 3 == 0:
            shown.append(stamp_ns)
            rig.future_at(stamp_ns)
        else:
            received = str(tick + 1)
            rig.spin_until(lambda: rig.counters().get("image.received") == received)  # noqa: B023
    assert [to_ns(one.header.stamp) for one in rig.futures] == [start_ns, *shown]
    model = rig.node._configured()._model
    assert len(model.memory) == 10


def test_plan_times_out(make_rig: MakeRig) -> None:
    rig = make_rig(plan_timeout_s=1.0)
    rig.activate()
    rig.plan.publish(action_sequence())
    rig.spin_until(lambda: rig.serve().flags == 0)
    rig.spin_until(lambda: rig.serve().flags == PredictedFuture.FLAG_HOLD_STILL)


def test_model_info_is_latched(rig: Rig, untrained_bundle: str) -> None:
    manifest = load_bundle(untrained_bundle).manifest
    info = rig.spin_until(lambda: rig.infos and rig.infos[-1])
    assert (info.model_id, info.bundle_sha256) == (manifest.model_id, load_bundle(untrained_bundle).sha256)
    assert (info.image_height, info.image_width, info.image_encoding) == (HEIGHT, WIDTH, "rgb8")
    assert (info.chunk_len, info.max_horizon, info.num_history_slots) == (
        CHUNK,
        manifest.max_horizon,
        NUM_SLOTS,
    )
    assert tuple(info.action_names) == JOINTS
    np.testing.assert_allclose(
        [info.action_lower, info.action_upper], [manifest.action.lower, manifest.action.upper]
    )
    assert list(info.denoising_steps) == [manifest.num_steps]
    assert "onnxruntime" in info.backend_version


def test_preview_is_drawn_for_whoever_looks(rig: Rig) -> None:
    sheets: list[Image] = []
    subscription = rig.robot.create_subscription(Image, "world_model/preview/image", sheets.append, SENSOR)
    rig.spin_until(lambda: rig.node.count_subscribers("/world_model/preview/image"))
    future = rig.serve()
    sheet = rig.spin_until(lambda: sheets and sheets[-1])
    assert sheet.header == future.header
    assert sheet.encoding == "rgb8"
    assert to_rgb(sheet).shape[1] == 6 * (WIDTH + 6) + 6  # two rows
    rig.robot.destroy_subscription(subscription)


def test_preview_is_not_drawn_for_nobody(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bool] = []
    monkeypatch.setattr("astra_ros.ros.outputs.contact_sheet", lambda *_: drawn.append(True))
    rig.serve()
    rig.serve()
    assert not drawn


def unwatch(rig: Rig) -> None:
    """Nobody takes predictions from now on."""
    topic = f"{rig.node_name}/predicted_future"
    (subscription,) = (one for one in rig.robot.subscriptions if one.topic_name == topic)
    rig.robot.destroy_subscription(subscription)
    rig.spin_until(lambda: not rig.node.count_subscribers(topic))


def observe(rig: Rig) -> None:
    stamp_ns, before = rig.now_ns(), int(rig.counters().get("image.received", "0"))
    rig.joints.publish(joint_state(stamp_ns))
    rig.image.publish(image(stamp_ns))
    rig.spin_until(lambda: rig.counters().get("image.received") == str(before + 1))


def test_nothing_is_predicted_for_nobody_but_all_is_observed(rig: Rig, history_lengths: list[int]) -> None:
    unwatch(rig)
    observe(rig)
    rig.spin_until(lambda: rig.counters()["predicting_for"] == "nobody")
    assert rig.counters()["predictions"] == "0"
    rig.status(DiagnosticStatus.OK, "active")
    rig.robot.create_subscription(Image, "world_model/preview/image", lambda _: None, SENSOR)
    rig.spin_until(lambda: rig.node.count_subscribers("/world_model/preview/image"))
    observe(rig)
    rig.spin_until(lambda: rig.counters()["predicting_for"] == "hold still")
    assert history_lengths == [2]


@pytest.mark.parametrize("parameter", ["predict_always", "preview_always_on"])
def test_predictions_for_nobody_can_be_asked_for(make_rig: MakeRig, parameter: str) -> None:
    rig = make_rig(**{parameter: True})
    rig.activate()
    unwatch(rig)
    observe(rig)
    rig.spin_until(lambda: rig.counters()["predictions"] == "1")


def test_spec_of_the_fixture_is_what_these_tests_assume(untrained_bundle: str) -> None:
    spec: ActionSpec = load_bundle(untrained_bundle).manifest.action
    assert (spec.names, spec.step_dt) == (JOINTS, 0.2)
    assert min(spec.upper) > 1.5
