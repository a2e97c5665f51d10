"""Record drives of the simulated robot on wheels straight to rosbag2, on the topics a real one would have."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.bag import BagWriter, message_type
from astra_ros.data.bag_messages import PLAN_STEP_S, PLAN_STEPS, jpeg, odometry, plan, velocity_command
from astra_ros.data.rover_sim import (
    AXES,
    CAMERA_FRAME,
    RoverDriver,
    RoverSim,
    RoverState,
)
from astra_ros.data.sim_robot import CONTROL_HZ
from astra_ros.data.worlds.base import Style
from astra_ros.types import NANOSECONDS, ByteArray

CAMERA_TOPIC, PLAN_TOPIC = "/camera/image_raw/compressed", "/action_sequence"
ODOM_TOPIC, COMMAND_TOPIC = "/odom", "/cmd_vel"
CAMERA_HZ, PLAN_HZ = 10, 5
EPISODE_START_NS = 1_700_000_000 * NANOSECONDS


def record_drive(folder: Path, seed: int, style: Style, duration_s: float) -> None:
    """Simulate one episode and write it to `folder` (rosbag2, MCAP). The same seed and style write the same messages."""
    sim = RoverSim(seed)
    commands = RoverDriver(sim, seed, style).commands()
    images: dict[int, ByteArray] = {}
    states, commanded = [], []
    for tick in range(round(duration_s * CONTROL_HZ)):
        if tick % (CONTROL_HZ // CAMERA_HZ) == 0:
            images[tick] = sim.render()
        states.append(sim.state)
        commanded.append(next(commands))
        sim.step(commanded[-1])
    sim.close()
    with BagWriter(folder) as bag:
        _write(bag, images, states, np.array(commanded))


def _write(
    bag: BagWriter, images: dict[int, ByteArray], states: Sequence[RoverState], commanded: np.ndarray
) -> None:
    for tick, state in enumerate(states):
        stamp_ns = EPISODE_START_NS + tick * NANOSECONDS // CONTROL_HZ
        bag.write(ODOM_TOPIC, odometry(stamp_ns, state.position, state.yaw, state.velocity), stamp_ns)
        bag.write(COMMAND_TOPIC, velocity_command(stamp_ns, commanded[tick]), stamp_ns)
        if tick % (CONTROL_HZ // PLAN_HZ) == 0:
            bag.write(PLAN_TOPIC, _plan(stamp_ns, commanded[tick:]), stamp_ns)
        if tick in images:
            bag.write(CAMERA_TOPIC, jpeg(stamp_ns, CAMERA_FRAME, images[tick]), stamp_ns)


def _plan(stamp_ns: int, upcoming: np.ndarray) -> Any:
    """Row k is the mean of the commands of step k."""
    ticks = np.arange(PLAN_STEPS * round(PLAN_STEP_S * CONTROL_HZ))
    sent = upcoming[np.minimum(ticks, len(upcoming) - 1)]
    rows = sent.reshape(PLAN_STEPS, -1, len(AXES)).mean(axis=1)
    representation = message_type("astra_ros/msg/ActionSequence").REPRESENTATION_BASE_VELOCITY
    return plan(stamp_ns, rows, AXES, representation)
