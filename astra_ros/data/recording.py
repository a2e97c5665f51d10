"""Record episodes of the simulated robot straight to rosbag2, on the topics a real robot would have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from astra_ros.data.bag import BagWriter, message_type
from astra_ros.data.bag_messages import PLAN_STEP_S, PLAN_STEPS, header, jpeg, plan
from astra_ros.data.panda_sim import CAMERA_FRAME, JOINT_NAMES, PandaSim
from astra_ros.data.scripted import SCRIPTS, ScriptedPilot
from astra_ros.data.sim_robot import CONTROL_HZ
from astra_ros.data.worlds.base import Style
from astra_ros.types import NANOSECONDS, ByteArray

CAMERA_TOPIC, WRIST_TOPIC = "/camera/image_raw/compressed", "/wrist_camera/image_raw/compressed"
JOINT_STATES_TOPIC = "/joint_states"
JOINT_COMMANDS_TOPIC = "/joint_commands"
PLAN_TOPIC = "/action_sequence"
CAMERA_HZ, PLAN_HZ = 10, 5
EPISODE_START_NS = 1_700_000_000 * NANOSECONDS


def record_episode(folder: Path, seed: int, style: Style, duration_s: float, *, wrist: bool = False) -> None:
    """Simulate one episode and write it to `folder` (rosbag2, MCAP). The same seed and style write the same messages.

    wrist: also what the camera on the hand sees.
    """
    sim = PandaSim(seed)
    commands = ScriptedPilot(sim, seed, SCRIPTS[style]).commands()
    cameras = {CAMERA_TOPIC: sim.render, **({WRIST_TOPIC: sim.render_wrist} if wrist else {})}
    images: dict[int, dict[str, ByteArray]] = {}
    measured, commanded = [], []
    for tick in range(round(duration_s * CONTROL_HZ)):
        if tick % (CONTROL_HZ // CAMERA_HZ) == 0:
            images[tick] = {topic: render() for topic, render in cameras.items()}
        measured.append(sim.state.positions)
        commanded.append(next(commands))
        sim.step(commanded[-1])
    sim.close()
    with BagWriter(folder) as bag:
        _write(bag, images, np.array(measured), np.array(commanded))


def _write(
    bag: BagWriter, images: dict[int, dict[str, ByteArray]], measured: np.ndarray, commanded: np.ndarray
) -> None:
    for tick in range(len(measured)):
        stamp_ns = EPISODE_START_NS + tick * NANOSECONDS // CONTROL_HZ
        bag.write(JOINT_STATES_TOPIC, _joint_state(stamp_ns, measured[tick]), stamp_ns)
        bag.write(JOINT_COMMANDS_TOPIC, _joint_state(stamp_ns, commanded[tick]), stamp_ns)
        if tick % (CONTROL_HZ // PLAN_HZ) == 0:
            bag.write(PLAN_TOPIC, _plan(stamp_ns, commanded[tick:]), stamp_ns)
        for topic, pixels in images.get(tick, {}).items():
            bag.write(topic, jpeg(stamp_ns, CAMERA_FRAME, pixels), stamp_ns)


def _joint_state(stamp_ns: int, positions: np.ndarray) -> Any:
    empty = np.zeros(0)
    return message_type("sensor_msgs/msg/JointState")(
        header=header(stamp_ns),
        name=list(JOINT_NAMES),
        position=positions.astype(float),
        velocity=empty,
        effort=empty,
    )


def _plan(stamp_ns: int, upcoming: np.ndarray) -> Any:
    """Row k is the last command sent within step k, the one that rules where the arm is at its end."""
    last_tick = np.arange(1, PLAN_STEPS + 1) * round(PLAN_STEP_S * CONTROL_HZ) - 1
    rows = upcoming[np.minimum(last_tick, len(upcoming) - 1)]
    representation = message_type("astra_ros/msg/ActionSequence").REPRESENTATION_JOINT_POSITION
    return plan(stamp_ns, rows, JOINT_NAMES, representation)
