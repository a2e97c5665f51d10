"""The node `simulated_arm`: a Panda in MuJoCo, or PushT's disc, as a robot: camera, joint states, /clock, joint trajectories.

The program holds the arm still between two trajectories, in real time. Whoever makes the node himself lets simulated time pass
only while the arm carries out a trajectory, as fast as the machine can.

    ros2 run astra_ros simulated_arm --ros-args -p python:=.venv-sim/bin/python
"""

from __future__ import annotations

import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.action.server import RCLError
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import try_shutdown
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header
from trajectory_msgs.msg import JointTrajectory

from astra_ros.data.sim_client import SimClient, SimError
from astra_ros.ros import qos
from astra_ros.ros.conversions import to_image
from astra_ros.ros.declaration import (
    ConfigError,
    Limits,
    declare_parameters,
    parameter,
    read_config,
    require_choices,
)
from astra_ros.ros.stamps import to_time
from astra_ros.ros.trajectories import MAX_DURATION_S, TrajectoryError, read_trajectory
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

ROBOT_OF = {"reach": "panda", "lift": "panda", "push": "pusht"}
_START_NS = 1000 * NANOSECONDS
# A camera's driver sends its pictures one by one; so many at once would overrun a subscriber of depth 1.
_PICTURE_S = 0.015
# A picture that overtakes the clock looks as if it came from the future.
_CLOCK_S = 0.05


class SimulatedArm(Node):
    """sim: driven by this node alone. on_done: called with what came of each trajectory, after its last picture.

    options: of rclpy's Node.
    """

    def __init__(
        self, sim: SimClient, on_done: Callable[[dict[str, Any]], None] = lambda _lived: None, **options: Any
    ) -> None:
        super().__init__("simulated_arm", **options)
        self._sim, self._on_done = sim, on_done
        facts = sim.describe()
        self._names = [str(name) for name in facts["joint_names"]]
        self._frame_id = str(facts["camera_frame"])
        self._tick_ns = NANOSECONDS // int(facts["control_hz"])
        self._ticks_per_picture = int(facts["control_hz"]) // int(facts["camera_hz"])
        self.step_s = float(facts["step_s"])
        self._end_ns = _START_NS
        self.newest_stamp_ns = 0
        self.positions: FloatArray = np.zeros(len(self._names), np.float32)
        self._held: FloatArray | None = None
        self._clock_out = self.create_publisher(Clock, "/clock", qos.newest())
        self._image = self.create_publisher(Image, "image", qos.newest())
        self._joints = self.create_publisher(JointState, "joint_states", qos.newest())
        self.create_subscription(JointTrajectory, "joint_trajectory", self._on_trajectory, qos.newest())

    def show(self, lived: dict[str, Any]) -> None:
        """Publish what the arm sensed, in simulated time."""
        began_ns = self._end_ns
        for tick, positions in enumerate(lived["positions"]):
            picture = lived["pictures"][tick // self._ticks_per_picture]
            is_due = tick % self._ticks_per_picture == 0
            self._publish(began_ns + tick * self._tick_ns, positions, picture if is_due else None)
        self._end_ns = began_ns + len(lived["positions"]) * self._tick_ns
        self.positions = np.asarray(lived["last"], np.float32)
        self._publish(self._end_ns, lived["last"], lived["now"])

    def begin_again(self) -> None:
        """What comes next belongs to another time."""
        self._held = None
        self._end_ns += 10 * NANOSECONDS
        self._clock_out.publish(Clock(clock=to_time(self._end_ns)))
        time.sleep(_CLOCK_S)

    def hold(self) -> None:
        """One step in which the arm stays: at the end of the last trajectory, as a joint trajectory controller does, else where it is."""
        held = self.positions if self._held is None else self._held
        self.show(self._sim.execute(rows=held[None]))

    def _on_trajectory(self, message: JointTrajectory) -> None:
        if not message.points:
            return  # to end what is carried out, which is over by now
        try:
            rows = rows_left(
                message, self._names, round(self.step_s * NANOSECONDS), self.positions, self._end_ns
            )
        except TrajectoryError as error:
            self.get_logger().error(f"joint_trajectory: {error}")
            return
        lived = self._sim.execute(rows=rows)
        self._held = rows[-1]
        self.show(lived)
        self._on_done(lived)

    def _publish(self, stamp_ns: int, positions: FloatArray, picture: ByteArray | None) -> None:
        if stamp_ns <= self.newest_stamp_ns and picture is not None:
            return  # the end of one trajectory is the beginning of the next
        stamp: Time = to_time(stamp_ns)
        self._clock_out.publish(Clock(clock=stamp))
        self._joints.publish(
            JointState(
                header=Header(stamp=stamp), name=self._names, position=array("d", positions.astype(float))
            )
        )
        if picture is not None:
            self._image.publish(to_image(picture, Header(stamp=stamp, frame_id=self._frame_id)))
            self.newest_stamp_ns = stamp_ns
            time.sleep(_PICTURE_S)


def rows_left(
    trajectory: JointTrajectory, names: Sequence[str], step_ns: int, positions: FloatArray, now_ns: int
) -> FloatArray:
    """(n, a) what a joint trajectory controller carries out from now on, one row per step.

    What is over is skipped, wherever the arm is; until a later start it stays at positions (a,). Raises TrajectoryError.
    """
    plan = read_trajectory(trajectory, names, step_ns, positions, now_ns)
    elapsed, horizon = (now_ns - plan.stamp_ns) / plan.step_ns, len(plan.rows)
    if not -MAX_DURATION_S * NANOSECONDS / plan.step_ns < elapsed < horizon:
        raise TrajectoryError(
            f"header.stamp: expected a trajectory that begins within {MAX_DURATION_S:g} s and is not over, found a start"
            f" {elapsed * plan.step_ns / NANOSECONDS:.3f} s ago; stamp it on the arm's /clock (use_sim_time:=true), or with 0"
        )
    points = np.concatenate([[positions], np.where(np.isnan(plan.rows), positions, plan.rows)])
    wanted = elapsed + np.arange(1, 1 + np.ceil(horizon - elapsed))
    columns = [np.interp(wanted, np.arange(len(points)), joint) for joint in points.T]
    return np.stack(columns, axis=1).astype(np.float32)


@dataclass(frozen=True)
class ArmConfig:
    """One field per parameter, same name."""

    python: str = parameter("", "Python of the simulator's environment (make sim).", is_live=False)
    task: str = parameter(
        "reach",
        "What the episode starts with; push is of a disc and a T, the others of a Panda.",
        Limits(choices=tuple(ROBOT_OF)),
        is_live=False,
    )
    seed: int = parameter(0, "Of the episode.", Limits(0, 2**31 - 1), is_live=False)

    def __post_init__(self) -> None:
        require_choices(self)


def main() -> None:
    """`ros2 run astra_ros simulated_arm`. Between trajectories time passes as it does. Exit code 0 on SIGINT and SIGTERM."""
    rclpy.init()
    try:
        asking = Node("simulated_arm", start_parameter_services=False)
        declare_parameters(asking, ArmConfig)
        config = read_config(asking, ArmConfig)
        asking.destroy_node()
        with tempfile.TemporaryDirectory() as folder:
            _live(config, Path(folder) / "simulator.log")
    except (SimError, ConfigError, ParameterException) as error:
        if rclpy.ok():
            try_shutdown()
            sys.exit(f"simulated_arm: {error}")
    except (KeyboardInterrupt, ExternalShutdownException, RCLError):
        pass
    finally:
        try_shutdown()


def _live(config: ArmConfig, log: Path) -> None:
    """Until the context ends."""
    if not config.python:
        raise ConfigError(
            "python: expected that of the simulator's environment, found none; in a clone `make sim`, then start with"
            " --ros-args -p python:=$PWD/.venv-sim/bin/python"
        )
    with SimClient(Path(config.python), log, ROBOT_OF[config.task]) as sim:
        arm, executor = SimulatedArm(sim), SingleThreadedExecutor()
        arm.show(sim.reset(task=config.task, seed=config.seed))
        executor.add_node(arm)
        while rclpy.ok():
            ends_s = time.monotonic() + arm.step_s
            arm.hold()
            executor.spin_once(timeout_sec=0.0)  # also where a step takes all of its time
            while (left_s := ends_s - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left_s)
