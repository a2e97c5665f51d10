"""A calibrated bundle in the node: uncertainty in its own unit, and unusual pictures flagged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter

from astra_ros.backends.bundle import load_bundle
from astra_ros.backends.manifest import FileSpec, TrustSpec
from astra_ros.msg import PredictedFuture
from astra_ros.rollout.trust import Familiarity, Trust, describe
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.client import WorldModelError
from astra_ros.ros.parameters import NodeConfig, why_uncalibrated
from astra_ros.ros.stamps import to_ns
from astra_ros.srv import EvaluateActions
from tests.ros.rig import Rig
from tests.ros.test_planner import PICTURE, PlannerRig
from tests.ros.test_questions import Asker, observe, open_questions, request
from tests.ros.test_standing_goal import set_goal
from tests.unit.rollout.test_trust import HORIZON, with_trust

UNUSUAL = PredictedFuture.FLAG_OUT_OF_DISTRIBUTION
SLOPE, INTERCEPT = 0.5, -1.0


@pytest.fixture
def calibrated(bundle_copy: Path) -> Path:
    """Knows the picture that rig.serve() shows, and no other."""
    with WorldModel.load(bundle_copy, "onnxruntime") as model:
        observe(model, 1)
        known = describe(model.memory.encoded(1, model.backend.encode)[None])[0]
    line = (np.full(HORIZON, value, np.float32) for value in (INTERCEPT, SLOPE))
    directions, scales = np.zeros((len(known), 1), np.float32), np.ones(2, np.float32)
    return with_trust(bundle_copy, Trust(Familiarity(known, directions, scales), 0.01, *line))


def test_integers_err_otherwise_than_what_was_fitted(untrained_bundle: Path) -> None:
    config, fitted = NodeConfig(uncertainty_samples=4), TrustSpec("trust.npz", 0.5, 2.0, ("one",), 4)
    manifest = load_bundle(untrained_bundle).manifest
    floats = replace(manifest, files=manifest.files | {"trust.npz": FileSpec("0" * 64, 1)}, trust=fitted)
    assert not why_uncalibrated(config, floats, "bf16")
    assert not why_uncalibrated(replace(config, uncertainty_samples=1), floats, "int8")
    assert why_uncalibrated(config, floats, "int8_bf16").startswith(
        "precision: expected one that errs as fp32, "
    )
    in_int8 = replace(fitted, precision="int8_bf16")
    integers = replace(floats, trust=None, trust_integers=in_int8)
    assert not why_uncalibrated(config, integers, "int8")
    assert "set precision:=int8_bf16, or fit" in why_uncalibrated(config, integers, "fp32")
    newer = replace(integers, trust=in_int8, trust_integers=replace(in_int8, interval_high=3.0))
    assert newer.trust_for("int8") == newer.trust_integers, "not what was fitted before there were two"
    both = replace(floats, trust_integers=in_int8)
    assert both.trust_for("bf16") == fitted
    assert not any(why_uncalibrated(config, both, precision) for precision in ("fp32", "bf16", "int8"))


def test_an_unusual_picture_is_flagged_and_reported(make_rig: Callable[..., Rig], calibrated: Path) -> None:
    rig = make_rig(bundle=str(calibrated))
    rig.activate()
    assert not rig.serve().flags & UNUSUAL
    for _ in range(3):
        assert rig.serve(seed=5).flags & UNUSUAL
    status = rig.status(DiagnosticStatus.WARN, "camera: expected pictures like those of training")
    assert "uncover the camera" in status.message
    asker = Asker(rig)
    assert asker.ask(request()).futures[0].flags & UNUSUAL
    assert all(flags & UNUSUAL for flags in asker.ask(request(top_k=0)).flags)
    assert not rig.serve().flags & UNUSUAL
    rig.status(DiagnosticStatus.OK)


def test_no_plan_is_made_of_an_unusual_picture(make_rig: Callable[..., Rig], calibrated: Path) -> None:
    rig = make_rig(bundle=str(calibrated))
    rig.activate()
    planner = PlannerRig(rig)
    try:
        rig.serve(seed=5)
        set_goal(rig, PICTURE)
        planner.run(planner.planner.model.info)
        with pytest.raises(
            WorldModelError, match=r"FLAG_OUT_OF_DISTRIBUTION\); plan again, .*uncover the camera"
        ):
            planner.plan()
        rig.serve()
        planner.plan()
    finally:
        planner.close()


def test_a_question_outlives_the_observation_that_it_began_with(
    make_rig: Callable[..., Rig], calibrated: Path
) -> None:
    """Pictures that come meanwhile take the place of that one in the memory."""
    rig = make_rig(bundle=str(calibrated))
    rig.activate()
    rig.serve()
    asker = Asker(rig)
    answer = asker.service.call_async(request(60, 40))
    rig.spin_until(lambda: open_questions(rig))
    for _ in range(8):
        rig.serve()
    assert not answer.done(), "the question must last longer than the pictures"
    assert asker.result(answer).status == EvaluateActions.Response.STATUS_OK


def test_uncertainty_is_the_expected_error(
    make_rig: Callable[..., Rig], calibrated: Path, untrained_bundle: Path
) -> None:
    def uncertainty(bundle: Path) -> np.ndarray:
        rig = make_rig(bundle=str(bundle), uncertainty_samples=4, namespace=f"/{bundle.name}")
        rig.activate()
        stamp = to_ns(rig.serve().header.stamp)
        reply = Asker(rig).ask(request())
        assert to_ns(reply.observation_stamp) == stamp
        assert rig.spin_until(lambda: rig.infos)[0].uncertainty_interval.tolist() == (
            [0.5, 2.0] if bundle == calibrated else []
        )
        return np.array(reply.futures[0].frame_uncertainty)

    expected = np.exp(INTERCEPT + SLOPE * np.log(uncertainty(untrained_bundle)))
    expected[HORIZON:] = np.nan  # those were not fitted
    np.testing.assert_allclose(uncertainty(calibrated), expected, rtol=1e-5)


def test_frames_that_were_not_fitted_leave_the_score_a_number(
    make_rig: Callable[..., Rig], calibrated: Path
) -> None:
    rig = make_rig(bundle=str(calibrated), uncertainty_samples=4, uncertainty_weight=2.0, goal_frames=1)
    rig.activate()
    set_goal(rig, PICTURE)
    rig.serve()
    reply = Asker(rig).ask(request(top_k=1))
    best = reply.futures[0]
    assert np.isnan(best.frame_uncertainty[HORIZON:]).all()
    assert len(best.frame_uncertainty) > HORIZON
    assert best.uncertainty == pytest.approx(np.mean(best.frame_uncertainty[:HORIZON]))
    np.testing.assert_allclose(
        reply.scores, -np.array(reply.final_goal_distance) - 2 * np.array(reply.uncertainty), rtol=1e-5
    )


def test_for_another_number_of_samples_there_is_no_interval_but_the_bare_spread(
    make_rig: Callable[..., Rig], calibrated: Path, untrained_bundle: Path
) -> None:
    """A calibration is for the number that it was fitted with, 4 here, whenever that is set."""
    line = "uncertainty_samples: expected 4, which the model's expected errors were fitted to, found 3"
    rig = make_rig(bundle=str(calibrated), uncertainty_samples=3)
    rig.activate()
    bare = make_rig(bundle=str(untrained_bundle), uncertainty_samples=3, namespace="/bare")
    bare.activate()
    spreads = []
    for one in (rig, bare):
        one.serve()
        spreads.append(np.array(Asker(one).ask(request()).futures[0].frame_uncertainty))
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=1e-5)
    assert len(rig.spin_until(lambda: rig.infos)[0].uncertainty_interval) == 0
    (warned,) = rig.spin_until(lambda: rig.warnings)
    assert warned.startswith(line)
    assert (
        "set uncertainty_samples:=4, or fit the bundle anew (python -m export.calibrate --samples 3)"
        in warned
    )
    assert not bare.warnings

    def sets(name: str, value: int) -> None:
        assert rig.node.set_parameters([Parameter(name, value=value)])[0].successful

    sets("uncertainty_samples", 4)
    rig.spin_until(lambda: len(rig.infos) == 2)
    assert rig.infos[1].uncertainty_interval.tolist() == [0.5, 2.0]
    sets("uncertainty_samples", 1)  # none: that says nothing else of the model
    sets("uncertainty_samples", 2)
    rig.spin_until(lambda: len(rig.infos) == 3)
    assert len(rig.infos[2].uncertainty_interval) == 0
    assert rig.infos[2].header == rig.infos[0].header
    rig.spin_until(lambda: len(rig.warnings) == 2)
    assert "found 2" in rig.warnings[1]
    sets("seed", 1)
    rig.spin_for(0.5)
    assert (len(rig.infos), len(rig.warnings)) == (3, 2)
