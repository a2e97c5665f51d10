"""The simulated arm as a robot: a program of its own, and what it publishes."""

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

from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import JointState
from trajectory_msgs.msg import JointTrajectory

from astra_ros.ros.stamps import to_ns
from tests.ros.rig import trajectory
from tests.simulator.watcher import Watcher

pytestmark = [pytest.mark.slow, pytest.mark.ros]
START = "from astra_ros.ros.simulated_arm import main; main()"


def start(*parameters: str) -> subprocess.Popen[str]:
    words = [word for parameter in parameters for word in ("-p", parameter)]
    command = [sys.executable, "-c", START, "--ros-args", *words]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


class ArmWatcher(Watcher):
    def __init__(self, domain: int) -> None:
        super().__init__(domain)
        self.joints: list[JointState] = []
        self.node.create_subscription(JointState, "joint_states", self.joints.append, 200)
        self.plan = self.node.create_publisher(JointTrajectory, "joint_trajectory", 1)


@pytest.mark.timeout(200)
def test_it_shows_itself_obeys_and_ends_cleanly(start_in_simulator: Start, ros_domain: int) -> None:
    del start_in_simulator  # skips
    process, watcher = start(f"python:={PYTHON}", "seed:=200000"), ArmWatcher(ros_domain)
    try:
        watcher.spin_until(lambda: len(watcher.images) > 3 and watcher.plan.get_subscription_count())
        stamps = [to_ns(image.header.stamp) for image in watcher.images]
        assert set(np.diff(stamps)) == {200_000_000}
        picture = watcher.images[0]
        assert (picture.width, picture.height, picture.encoding) == (256, 256, "rgb8")
        watcher.spin_until(
            lambda: np.ptp([one.position for one in watcher.joints[-8:]], axis=0).max() < 0.002
        )
        before = dict(zip(watcher.joints[-1].name, watcher.joints[-1].position, strict=True))
        joint = "panda_joint1"
        wanted = before[joint] + 0.3
        watcher.plan.publish(trajectory([(1.0, [wanted])], (joint,)))
        place = list(before).index(joint)
        # Where it was sent it stays, and goes on to, as under a joint trajectory controller.
        watcher.spin_until(lambda: abs(watcher.joints[-1].position[place] - wanted) < 0.003)
        after = dict(zip(watcher.joints[-1].name, watcher.joints[-1].position, strict=True))
        others = [name for name in before if name != joint]
        np.testing.assert_allclose([after[n] for n in others], [before[n] for n in others], atol=0.03)
        client = watcher.node.create_client(SetParameters, "simulated_arm/set_parameters")
        watcher.spin_until(client.service_is_ready)
        asked = [Parameter("use_sim_time", value=False).to_parameter_msg()]
        answer = client.call_async(SetParameters.Request(parameters=asked))
        watcher.spin_until(answer.done)
        assert answer.result().results[0].successful
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors
    finally:
        process.kill()
        watcher.close()


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        (
            (),
            "python: expected that of the simulator's environment, found none; in a clone `make sim`, then start",
        ),
        (("python:=/none",), "/none: expected the simulator's Python, found none; make it: make sim"),
        # Whose Python has no simulator.
        ((f"python:={sys.executable}",), "the simulator did not start; its last words, of "),
        (("task:=juggle",), "task: expected one of"),
    ],
)
def test_what_cannot_be_is_one_line(parameters: tuple[str, ...], line: str) -> None:
    process = start(*parameters)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"simulated_arm: {line}" in errors or line in errors
    assert "Traceback" not in errors
