"""Transitions: what they acquire, what they free, and what they say when they fail."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from astra_ros.rollout.chunks import roll_out
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.outputs import Outputs
from astra_ros.ros.worker import Worker
from astra_ros.types import FloatArray
from tests.bundle_fixture import CHUNK
from tests.ros.rig import HORIZON, JOINTS, Rig, action_sequence, image, joint_state, plan_rows

MakeRig = Callable[..., Rig]
SUCCESS, FAILURE, FAULT = (
    TransitionCallbackReturn.SUCCESS,
    TransitionCallbackReturn.FAILURE,
    TransitionCallbackReturn.ERROR,
)


def graph_of(rig: Rig) -> tuple[list[str], ...]:
    """Everything of the node that other nodes can see."""
    name, namespace = rig.node.get_name(), rig.node.get_namespace()
    return tuple(
        sorted(entity for entity, _ in find(name, namespace))
        for find in (
            rig.robot.get_publisher_names_and_types_by_node,
            rig.robot.get_subscriber_names_and_types_by_node,
            rig.robot.get_service_names_and_types_by_node,
        )
    )


def test_twenty_round_trips_leave_nothing_behind(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.spin_until(lambda: "/world_model/change_state" in graph_of(rig)[2])
    before, threads = graph_of(rig), None
    for _ in range(20):
        rig.activate()
        rig.serve()
        assert rig.node.trigger_deactivate() == SUCCESS
        assert rig.node.trigger_cleanup() == SUCCESS
        threads = threads or threading.active_count()
    assert threading.active_count() == threads
    assert not [thread.name for thread in threading.enumerate() if thread.name == "world_model"]
    rig.spin_until(lambda: graph_of(rig) == before)


def test_the_log_says_which_backend_was_taken(
    untrained_bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(str(untrained_bundle))
    try:
        assert rig.node.trigger_configure() == SUCCESS
    finally:
        rig.close()
    said = "[world_model]: backend onnxruntime (asked for by name, onnxruntime "
    assert capfd.readouterr().err.count(said) == 1
    assert not logging.getLogger("astra_ros").handlers


def test_deactivate_and_activate_again_starts_with_an_empty_history(
    rig: Rig, history_lengths: list[int]
) -> None:
    rig.serve()
    rig.spin_for(0.2)
    rig.serve()
    assert rig.node.trigger_deactivate() == SUCCESS
    assert rig.node.trigger_activate() == SUCCESS
    rig.serve()
    assert history_lengths == [1, 2, 1]


def test_two_namespaces_do_not_hear_each_other(make_rig: MakeRig) -> None:
    left, right = make_rig("left"), make_rig("right")
    left.activate()
    right.activate()
    left.serve()
    right.spin_for(0.3)
    assert not right.futures
    assert right.drops() == {}
    right.serve()
    assert (len(left.futures), len(right.futures)) == (1, 1)
    assert left.image.topic_name == "/left/image"
    assert left.node_name == "/left/world_model"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda bundle: (bundle / "decode.onnx").unlink(), ["decode.onnx", "no such file", "export"]),
        (
            lambda bundle: (bundle / "weights.bin").write_bytes(
                b"x" * (bundle / "weights.bin").stat().st_size
            ),
            ["weights.bin", "expected sha256"],
        ),
        (lambda bundle: (bundle / "manifest.json").unlink(), ["manifest.json", "expected a bundle folder"]),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), ["line 1 column 2"]),
        (
            lambda bundle: change_manifest(bundle, lambda manifest: manifest.update(schema_version=1)),
            ["schema_version: expected 4", "found 1", "export.to_onnx CHECKPOINT --space"],
        ),
    ],
    ids=["file missing", "wrong hash", "no manifest", "broken manifest", "old schema"],
)
def test_a_bad_bundle_fails_configure_until_a_good_one_is_set(
    make_rig: MakeRig,
    bundle_copy: Path,
    untrained_bundle: Path,
    damage: Callable[[Path], object],
    line: list[str],
) -> None:
    damage(bundle_copy)
    rig = make_rig(bundle=str(bundle_copy))
    assert rig.node.trigger_configure() == FAILURE
    status = rig.status(DiagnosticStatus.ERROR, "configure failed: ")
    for text in (*line, str(bundle_copy)):
        assert text in status.message
    assert "\n" not in status.message
    assert rig.spin_until(lambda: rig.warnings) == [status.message]
    rig.node.set_parameters([Parameter("bundle", value=str(untrained_bundle))])
    rig.activate()
    rig.serve()
    rig.status(DiagnosticStatus.OK, "active")


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_model_of_another_representation_fails_configure_with_one_line(
    make_rig: MakeRig, bundle_copy: Path
) -> None:
    change_manifest(bundle_copy, lambda manifest: manifest["action"].update(representation="rate"))
    rig = make_rig(bundle=str(bundle_copy))
    assert rig.node.trigger_configure() == FAILURE
    message = rig.status(DiagnosticStatus.ERROR, "configure failed: action: expected joint_position").message
    assert "expected joint_position" in message
    assert "found rate of panda_joint1, " in message
    assert "(action space 'panda'" in message
    assert "\n" not in message


def test_a_wrong_graph_for_candidates_fails_configure_if_they_are_prepared(
    make_rig: MakeRig, bundle_copy: Path
) -> None:
    entries = {}
    for batch in (4, 8):  # which of them is opened is the backend's choice
        raw = (bundle_copy / f"step_0_x{batch}.onnx").read_bytes()
        (bundle_copy / f"append_x{batch}.onnx").write_bytes(raw)
        entries[f"append_x{batch}.onnx"] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    change_manifest(bundle_copy, lambda manifest: manifest["files"].update(entries))
    rig = make_rig(bundle=str(bundle_copy), prepare_candidates=True)
    assert rig.node.trigger_configure() == FAILURE
    assert "append_x" in rig.status(DiagnosticStatus.ERROR, "configure failed: ").message
    rig.node.set_parameters([Parameter("prepare_candidates", value=False)])
    assert rig.node.trigger_configure() == SUCCESS


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"backend": "abacus"}, "backend 'abacus'"),
        ({"horizon": 999}, "horizon: expected at most"),
        ({"image_transport": "pigeon"}, "image_transport: expected one of raw, compressed, found 'pigeon'"),
    ],
)
def test_bad_parameters_fail_configure(make_rig: MakeRig, parameters: dict[str, object], line: str) -> None:
    rig = make_rig(**parameters)
    before = graph_of(rig)
    assert rig.node.trigger_configure() == FAILURE
    assert line in rig.status(DiagnosticStatus.ERROR).message
    assert graph_of(rig) == before


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "/joint_states.subscription.reliability",
            "best effort",
            "expected one of system_default, reliable, best_effort, best_available, found 'best effort'",
        ),
        ("/action_sequence.subscription.depth", -1, "expected a whole number of 0 or more, found -1"),
        (
            "/goal.subscription.durability",
            True,
            "expected one of system_default, transient_local, volatile, best_available, found True",
        ),
        (
            "/world_model/preview/image.publisher.history",
            "all",
            "expected one of system_default, keep_last, keep_all, found 'all'",
        ),
    ],
)
def test_a_wrong_quality_of_service_fails_configure_and_leaves_nothing_behind(
    make_rig: MakeRig, name: str, value: object, line: str
) -> None:
    rig = make_rig(**{f"qos_overrides.{name}": value})

    def entities() -> tuple[int, ...]:
        node = rig.node
        return tuple(len(list(kind)) for kind in (node.subscriptions, node.publishers, node.services))

    before = entities()
    for _ in range(2):
        assert rig.node.trigger_configure() == FAILURE
        message = rig.status(DiagnosticStatus.ERROR, "configure failed: ").message
        assert f"qos_overrides.{name}: {line}; correct it in the params_file" in message
        assert entities() == before


def test_two_wrong_parameters_are_mended_one_at_a_time(make_rig: MakeRig) -> None:
    rig = make_rig(image_transport="theora", preemption="wait")
    assert rig.node.trigger_configure() == FAILURE
    for name, value, is_accepted in (
        ("horizon", 3, True),
        ("preemption", "sometimes", False),
        ("image_transport", "raw", True),
        ("preemption", "queue", True),
        ("uncertainty_weight", 1.0, False),
    ):
        (answer,) = rig.node.set_parameters([Parameter(name, value=value)])
        assert answer.successful is is_accepted, (name, answer.reason)
    assert rig.node.trigger_configure() == SUCCESS


def test_an_arm_whose_joints_have_a_prefix(make_rig: MakeRig) -> None:
    rig, names = make_rig(joint_prefix="left_"), [f"left_{name}" for name in JOINTS]
    rig.activate()
    assert rig.spin_until(lambda: rig.infos)[0].action_names == names
    rig.plan.publish(action_sequence(names=names))
    rig.spin_until(lambda: "action_sequence.received" in rig.counters())
    stamp_ns = rig.now_ns()
    rig.joints.publish(joint_state(stamp_ns, names))
    rig.image.publish(image(stamp_ns))
    future = rig.future_at(stamp_ns)
    assert future.actions.names == names
    np.testing.assert_allclose(np.array(future.actions.data).reshape(HORIZON, -1), plan_rows(), atol=1e-5)
    rig.joints.publish(joint_state(rig.now_ns()))
    rig.spin_until(lambda: rig.drops() == {"other_joints": 1})


def test_an_exception_in_configure_is_seen_and_everything_is_freed(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[WorldModel] = []
    close = WorldModel.close

    def counting(model: WorldModel) -> None:
        closed.append(model)
        close(model)

    monkeypatch.setattr(WorldModel, "close", counting)
    rig = make_rig()
    rig.spin_until(lambda: "/world_model/change_state" in graph_of(rig)[2])
    before = graph_of(rig)
    with monkeypatch.context() as patch:
        patch.setattr(Outputs, "__init__", explode)
        assert rig.node.trigger_configure() == FAULT
    assert "configure failed: TypeError: planted" in rig.status(DiagnosticStatus.ERROR).message
    rig.spin_until(lambda: any("Traceback" in line and "planted" in line for line in rig.warnings))
    assert len(closed) == 1
    rig.spin_until(lambda: graph_of(rig) == before)
    rig.activate()
    rig.serve()


def test_an_exception_in_activate_leads_back_to_unconfigured(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig()
    rig.node.trigger_configure()
    with monkeypatch.context() as patch:
        patch.setattr(Worker, "start", explode)
        assert rig.node.trigger_activate() == FAULT
    assert "activate failed: TypeError: planted" in rig.status(DiagnosticStatus.ERROR).message
    rig.activate()
    rig.serve()


def never_stop(patch: pytest.MonkeyPatch) -> list[WorldModel]:
    """Of workers. Returns the models that are closed from now on."""
    stop, closed = Worker.stop, list[WorldModel]()
    patch.setattr(Worker, "stop", lambda worker, timeout_s: stop(worker, timeout_s) and False)
    patch.setattr(WorldModel, "close", closed.append)
    return closed


def test_a_worker_that_does_not_stop_is_seen_and_keeps_its_model(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        closed = never_stop(patch)
        assert rig.node.trigger_deactivate() == FAULT
    assert not closed
    assert (
        "deactivate failed: RuntimeError: a prediction did not end within"
        in rig.status(DiagnosticStatus.ERROR).message
    )
    rig.activate()
    rig.serve()


def test_a_worker_that_does_not_stop_costs_the_end_a_line(
    untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rig = Rig(str(untrained_bundle))
    rig.configure_and_activate()
    closed = never_stop(monkeypatch)
    rig.close()
    assert not closed
    said = capfd.readouterr().err
    assert said.count("a prediction did not end within 10 s") == 1
    assert "Traceback" not in said


def test_deactivate_waits_for_a_chunk_and_not_for_the_prediction(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks: list[FloatArray] = []

    def slow(*arguments: Any) -> Iterator[FloatArray]:
        for chunk in roll_out(*arguments):
            chunks.append(chunk)
            time.sleep(0.2)
            yield chunk

    monkeypatch.setattr("astra_ros.rollout.world_model.roll_out", slow)
    rig = make_rig(horizon=100)
    rig.activate()
    rig.joints.publish(joint_state(stamp_ns := rig.now_ns()))
    rig.image.publish(image(stamp_ns))
    rig.spin_until(lambda: chunks)
    assert rig.node.trigger_deactivate() == SUCCESS
    assert len(chunks) < 100 / CHUNK
    rig.spin_for(0.1)
    assert not rig.futures


def explode(*_: object) -> None:
    raise TypeError("planted")


def test_a_transition_that_the_state_does_not_have_is_refused_and_survived(make_rig: MakeRig) -> None:
    rig = make_rig()
    client = rig.robot.create_client(ChangeState, "world_model/change_state")
    rig.spin_until(client.service_is_ready)
    for transition, success in (
        (Transition.TRANSITION_ACTIVATE, False),
        (Transition.TRANSITION_CONFIGURE, True),
        (Transition.TRANSITION_ACTIVATE, True),
    ):
        reply = client.call_async(ChangeState.Request(transition=Transition(id=transition)))
        rig.spin_until(reply.done)
        assert reply.result().success is success
    rig.spin_until(rig.image.get_subscription_count)
    rig.spin_until(rig.joints.get_subscription_count)
    rig.serve()


@pytest.mark.parametrize("transition", ["cleanup", "shutdown"])
def test_the_model_is_closed(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, transition: str) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(WorldModel, "close", lambda _model: closed.append(True))
    rig = make_rig()
    rig.node.trigger_configure()
    assert not closed
    assert getattr(rig.node, f"trigger_{transition}")() == SUCCESS
    assert closed == [True]


@pytest.mark.parametrize("state", ["unconfigured", "inactive", "active"])
def test_shutdown_from_any_state(make_rig: MakeRig, state: str) -> None:
    rig = make_rig()
    if state != "unconfigured":
        rig.node.trigger_configure()
    if state == "active":
        rig.activate_configured()
    assert rig.node.trigger_shutdown() == SUCCESS
    rig.status(DiagnosticStatus.OK, "finalized")
    assert not [thread for thread in threading.enumerate() if thread.name == "world_model"]


def test_shutdown_ends_what_was_wrong(rig: Rig) -> None:
    rig.plan.publish(action_sequence(step_dt=0.0))
    rig.status(DiagnosticStatus.WARN, "step_dt")
    assert rig.node.trigger_shutdown() == SUCCESS
    rig.status(DiagnosticStatus.OK, "finalized")


def test_live_parameters_take_effect_at_the_next_prediction(rig: Rig) -> None:
    assert len(rig.serve().compressed_frames) == HORIZON
    set_parameters(rig, horizon=3, seed=7, compress_frames=False)
    future = rig.serve()
    assert len(future.frames) == 3
    assert future.seed == 7


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"bundle": "/elsewhere"}, "bundle: expected no change while the node is configured"),
        ({"image_transport": "compressed"}, "image_transport: expected no change"),
        ({"horizon": 500}, "horizon: expected at most"),
        ({"horizon": -1}, "horizon"),
        ({"jpeg_quality": 101}, "jpeg_quality"),
        ({"seed": "seven"}, "Wrong parameter type"),
        ({"seed": 9, "horizon": 500}, "horizon: expected at most"),
    ],
)
def test_bad_changes_are_refused_as_a_whole(rig: Rig, values: dict[str, object], reason: str) -> None:
    found = set_parameters(rig, **values)
    assert not found[0]
    assert reason in found[1]
    future = rig.serve()
    assert (len(future.compressed_frames), future.seed) == (HORIZON, 0)


def set_parameters(rig: Rig, **values: object) -> tuple[bool, str]:
    client = rig.robot.create_client(SetParametersAtomically, "world_model/set_parameters_atomically")
    rig.spin_until(client.service_is_ready)
    request = SetParametersAtomically.Request(
        parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    )
    reply = client.call_async(request)
    rig.spin_until(reply.done)
    result = reply.result().result
    return result.successful, result.reason
