"""A simulated robot as a node: what every kind of robot has in common. Camera and /clock, and time that passes as it lives.

Whoever makes the node himself lets simulated time pass only while the robot carries something out, as fast as the machine can;
the programs let it pass in real time.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from rclpy.action.server import RCLError
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.utilities import try_shutdown
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from astra_ros.data.sim_client import SimClient, SimError
from astra_ros.msg import ModelInfo
from astra_ros.ros import qos
from astra_ros.ros.conversions import to_image
from astra_ros.ros.declaration import ConfigError, declare_parameters, read_config
from astra_ros.ros.stamps import to_time
from astra_ros.types import NANOSECONDS, ByteArray, FloatArray

OnDone = Callable[[dict[str, Any]], None]
START_NS = 1000 * NANOSECONDS
# A camera's driver sends its pictures one by one; so many at once would overrun a subscriber of depth 1.
_PICTURE_S = 0.015
# A picture that overtakes the clock looks as if it came from the future.
_CLOCK_S = 0.05


def nobody_asks(_lived: dict[str, Any]) -> None:
    """What came of a plan, where nobody waits for it."""


class SimulatedRobot(Node):
    """sim: driven by this node alone. on_done: called with what came of each plan, after its last picture.

    node_name: of the node and of the program. plan_topic, plan_type: what it carries out.
    """

    node_name: ClassVar[str]
    plan_topic: ClassVar[str]
    plan_type: ClassVar[type]

    def __init__(self, sim: SimClient, on_done: OnDone = nobody_asks, **options: Any) -> None:
        """options: of rclpy's Node."""
        super().__init__(self.node_name, **options)
        self._sim, self._on_done = sim, on_done
        facts = sim.describe()
        self.names = [str(name) for name in facts["names"]]
        self._frame_id = str(facts["camera_frame"])
        self._tick_ns = NANOSECONDS // int(facts["control_hz"])
        self._ticks_per_picture = int(facts["control_hz"]) // int(facts["camera_hz"])
        self.step_s = float(facts["step_s"])
        self.now_ns = START_NS
        self.newest_stamp_ns = 0
        self.measured: FloatArray = np.zeros(len(self.names), np.float32)
        self._last_row: FloatArray | None = None
        self._clock_out = self.create_publisher(Clock, "/clock", qos.newest())
        self._image = self.create_publisher(Image, "image", qos.newest())
        self.create_subscription(self.plan_type, self.plan_topic, self._on_plan, qos.newest())

    @staticmethod
    def plan(rows: FloatArray, info: ModelInfo) -> Any:
        """Rows (horizon, a) as the robot takes them."""
        raise NotImplementedError

    @property
    def rest(self) -> FloatArray:
        """(a,) what leaves the robot where it is."""
        raise NotImplementedError

    def tell(self, stamp: Time, measured: FloatArray) -> None:
        """Publish what the robot measures of itself."""
        raise NotImplementedError

    def rows_left(self, message: Any) -> FloatArray | None:
        """(n, a) what is left to be carried out of a plan, one row per step; None: nothing. Raises ValueError."""
        raise NotImplementedError

    def next_row(self) -> FloatArray:
        """(a,) for a step in which no plan is carried out."""
        raise NotImplementedError

    def show(self, lived: dict[str, Any]) -> None:
        """Publish what the robot sensed, in simulated time."""
        began_ns = self.now_ns
        for tick, measured in enumerate(lived["measured"]):
            picture = lived["pictures"][tick // self._ticks_per_picture]
            is_due = tick % self._ticks_per_picture == 0
            self._publish(began_ns + tick * self._tick_ns, measured, picture if is_due else None)
        self.now_ns = began_ns + len(lived["measured"]) * self._tick_ns
        self.measured = np.asarray(lived["last"], np.float32)
        self._publish(self.now_ns, lived["last"], lived["now"])

    def begin_again(self) -> None:
        """What comes next belongs to another time."""
        self._last_row = None
        self.now_ns += 10 * NANOSECONDS
        self._clock_out.publish(Clock(clock=to_time(self.now_ns)))
        time.sleep(_CLOCK_S)

    def live_on(self) -> None:
        """One step."""
        self.show(self._sim.execute(rows=self.next_row()[None]))

    def _on_plan(self, message: Any) -> None:
        try:
            rows = self.rows_left(message)
        except ValueError as error:
            self.get_logger().error(f"{self.plan_topic}: {error}")
            return
        if rows is None:
            return
        lived = self._sim.execute(rows=rows)
        self._last_row = rows[-1]
        self.show(lived)
        self._on_done(lived)

    def _publish(self, stamp_ns: int, measured: FloatArray, picture: ByteArray | None) -> None:
        if stamp_ns <= self.newest_stamp_ns and picture is not None:
            return  # the end of one plan is the beginning of the next
        stamp: Time = to_time(stamp_ns)
        self._clock_out.publish(Clock(clock=stamp))
        self.tell(stamp, measured)
        if picture is not None:
            self._image.publish(to_image(picture, Header(stamp=stamp, frame_id=self._frame_id)))
            self.newest_stamp_ns = stamp_ns
            time.sleep(_PICTURE_S)


def run(kind: type[SimulatedRobot], config_type: type[Any], robot_of: Callable[[Any], str]) -> None:
    """The program of a robot, in real time. robot_of: of its configuration. Exit code 0 on SIGINT and SIGTERM."""
    rclpy.init()
    name = kind.node_name
    try:
        asking = Node(name, start_parameter_services=False)
        declare_parameters(asking, config_type)
        config = read_config(asking, config_type)
        asking.destroy_node()
        with tempfile.TemporaryDirectory() as folder:
            live(kind, config, robot_of(config), Path(folder) / "simulator.log")
    except (SimError, ConfigError, ParameterException) as error:
        if rclpy.ok():
            try_shutdown()
            sys.exit(f"{name}: {error}")
    except (KeyboardInterrupt, ExternalShutdownException, RCLError):
        pass
    finally:
        try_shutdown()


def live(kind: type[SimulatedRobot], config: Any, robot: str, log: Path) -> None:
    """Until the context ends."""
    if not config.python:
        raise ConfigError(
            "python: expected that of the simulator's environment, found none; in a clone `make sim`, then start with"
            " --ros-args -p python:=$PWD/.venv-sim/bin/python"
        )
    with SimClient(Path(config.python), log, robot) as sim:
        node, executor = kind(sim), SingleThreadedExecutor()
        node.show(sim.reset(task=config.task, seed=config.seed))
        executor.add_node(node)
        while rclpy.ok():
            ends_s = time.monotonic() + node.step_s
            node.live_on()
            executor.spin_once(timeout_sec=0.0)  # also where a step takes all of its time
            while (left_s := ends_s - time.monotonic()) > 0:
                executor.spin_once(timeout_sec=left_s)
