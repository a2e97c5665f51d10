"""Nodes under test, each with a robot to talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.utilities import try_shutdown

from astra_ros.rollout.world_model import WorldModel
from astra_ros.types import Prediction
from tests.ros.rig import Rig


@pytest.fixture(scope="session", autouse=True)
def ros(ros_domain: int) -> Iterator[None]:
    rclpy.init(args=[], domain_id=ros_domain)
    yield
    try_shutdown()


@pytest.fixture
def make_rig(untrained_bundle: Path) -> Iterator[Callable[..., Rig]]:
    """Nodes of a test's own; all are destroyed at its end."""
    rigs: list[Rig] = []

    def make(namespace: str = "", **parameters: Any) -> Rig:
        rigs.append(Rig(parameters.pop("bundle", str(untrained_bundle)), namespace, **parameters))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def history_lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of remembered pictures at every prediction from now on."""
    lengths: list[int] = []
    predict = WorldModel.predict

    def counting(model: WorldModel, *arguments: Any) -> Prediction:
        lengths.append(len(model.memory))
        return predict(model, *arguments)

    monkeypatch.setattr(WorldModel, "predict", counting)
    return lengths


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """One active node, and its robot."""
    rig = make_rig()
    rig.activate()
    return rig
