"""When the future arrives, compare."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from astra_ros.msg import PredictionError
from astra_ros.ros.conversions import to_rgb
from astra_ros.ros.hindsight import Hindsight, psnr
from tests.ros.rig import SENSOR, Rig, image, joint_state

STEP_NS = 200_000_000


def grey(level: int) -> np.ndarray:
    return np.full((4, 6, 3), level, np.uint8)


def prediction(*levels: int) -> np.ndarray:
    return np.stack([grey(level) for level in levels])


def test_each_frame_is_compared_once_with_the_picture_of_its_time() -> None:
    hindsight = Hindsight(0.2)
    hindsight.remember(0, grey(10), prediction(12, 14))
    assert hindsight.compare(STEP_NS // 2, grey(0)) == []
    (first,) = hindsight.compare(STEP_NS + STEP_NS // 10, grey(15))
    assert (first.t0_ns, first.seconds_ahead, first.predicted, first.copied) == (0, 0.2, 9, 25)
    assert hindsight.compare(STEP_NS + STEP_NS // 8, grey(15)) == []
    (second,) = hindsight.compare(2 * STEP_NS, grey(14))
    assert (second.seconds_ahead, second.predicted, second.copied) == (0.4, 0, 16)


def test_a_picture_is_the_future_of_several_predictions() -> None:
    hindsight = Hindsight(0.2)
    for k in range(3):
        hindsight.remember(k * STEP_NS, grey(k), prediction(*[k] * 5))
    found = hindsight.compare(4 * STEP_NS, grey(4))
    assert [(one.seconds_ahead, one.predicted) for one in found] == [
        (pytest.approx(0.8), 16),
        (pytest.approx(0.6), 9),
        (pytest.approx(0.4), 4),
    ]


def test_memory_is_bounded() -> None:
    hindsight = Hindsight(0.2)
    for k in range(1000):
        hindsight.remember(k, grey(0), prediction(*[0] * 50))
    assert len(hindsight._predictions) == 64
    assert len(hindsight._predictions[0].frames) == 10
    hindsight.compare(100 * STEP_NS, grey(0))
    assert not hindsight._predictions


def test_decibels() -> None:
    assert psnr(255**2) == 0
    assert psnr(1.0) == pytest.approx(48.13, abs=0.01)
    assert math.isfinite(psnr(0.0))


def test_the_node_tells_how_wrong_it_was(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    errors: list[PredictionError] = []
    rig.robot.create_subscription(PredictionError, "world_model/prediction_error", errors.append, SENSOR)
    rig.activate()
    rig.spin_until(lambda: rig.node.count_subscribers(f"{rig.node_name}/prediction_error"))
    future = rig.serve(seed=1)
    assert rig.counters()["predicted_psnr_1s_db"] == ""
    later_ns = future.header.stamp.sec * 10**9 + future.header.stamp.nanosec + 5 * STEP_NS
    rig.spin_until(lambda: rig.now_ns() > later_ns)
    then = image(later_ns, seed=2)
    rig.joints.publish(joint_state(later_ns))
    rig.image.publish(then)
    rig.spin_until(lambda: errors)
    assert errors[0].header == then.header
    assert errors[0].observation_stamps == [future.header.stamp]
    row = [*errors[0].seconds_ahead, *errors[0].predicted_psnr, *errors[0].copied_psnr]
    predicted = to_rgb(future.compressed_frames[4]).astype(np.float32)
    seen, copied = (to_rgb(one).astype(np.float32) for one in (then, image(1, seed=1)))
    # The predicted frame was compared before it became a JPEG.
    assert row == pytest.approx(
        [1.0, psnr(np.square(predicted - seen).mean()), psnr(np.square(copied - seen).mean())], abs=0.2
    )
    rig.spin_until(lambda: rig.counters()["predicted_psnr_1s_db"])
    assert float(rig.counters()["predicted_psnr_1s_db"]) == pytest.approx(row[1], abs=0.01)
    assert float(rig.counters()["copied_psnr_1s_db"]) == pytest.approx(row[2], abs=0.01)
