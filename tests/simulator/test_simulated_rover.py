"""The simulated robot on wheels as a program: what it publishes, and what it obeys."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import WHY_NO_ROS
from tests.simulator.conftest import PYTHON, Start

if WHY_NO_ROS:
    pytest.skip(WHY_NO_ROS, allow_module_level=True)

from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Odometry

from astra_ros.msg import ActionSequence
from astra_ros.ros.stamps import to_ns
from tests.ros.rig import action_sequence
from tests.simulator.watcher import Watcher

pytestmark = [pytest.mark.slow, pytest.mark.ros]
AXES = ("linear.x", "angular.z")
START = "from astra_ros.ros.simulated_rover import main; main()"


class Driver(Watcher):
    """Somebody with a joystick, who sees what the robot tells."""

    def __init__(self, domain: int) -> None:
        super().__init__(domain)
        self.sensed: list[Odometry] = []
        self.node.create_subscription(Odometry, "odom", self.sensed.append, 200)
        self.commands = self.node.create_publisher(TwistStamped, "cmd_vel", 1)
        self.plans = self.node.create_publisher(ActionSequence, "action_sequence", 1)

    @property
    def velocity(self) -> tuple[float, float]:
        twist = self.sensed[-1].twist.twist
        return twist.linear.x, twist.angular.z

    def turn(self, rate: float) -> None:
        message = TwistStamped()
        message.twist.angular.z = rate
        self.commands.publish(message)


@pytest.mark.timeout(200)
def test_it_drives_as_it_is_told_and_stands_when_nobody_tells(
    start_in_simulator: Start, ros_domain: int
) -> None:
    del start_in_simulator  # skips
    words = ["--ros-args", "-p", f"python:={PYTHON}", "-p", "seed:=3"]
    process = subprocess.Popen([sys.executable, "-c", START, *words], stderr=subprocess.PIPE, text=True)
    driver = Driver(ros_domain)

    def keeps_turning() -> bool:
        driver.turn(0.8)
        return driver.velocity[1] == pytest.approx(0.8)

    try:
        driver.spin_until(lambda: len(driver.images) > 3 and driver.commands.get_subscription_count())
        assert set(np.diff([to_ns(one.header.stamp) for one in driver.images])) == {200_000_000}
        assert set(np.diff([to_ns(one.header.stamp) for one in driver.sensed])) == {50_000_000}
        driver.spin_until(lambda: driver.velocity == (0.0, 0.0))  # it begins with a turn
        driver.spin_until(keeps_turning)
        driver.spin_until(lambda: driver.velocity == (0.0, 0.0))
        rows = np.array([[0.0, -0.5]] * 10)
        plan = action_sequence(rows=rows, representation=7, names=list(AXES))
        driver.plans.publish(plan)
        driver.spin_until(lambda: driver.velocity[1] == pytest.approx(-0.5))
        driver.spin_until(lambda: driver.velocity == (0.0, 0.0))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        driver.close()
