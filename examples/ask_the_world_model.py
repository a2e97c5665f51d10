"""Which of three motions ends nearest to a goal picture? `python examples/ask_the_world_model.py goal.jpg`."""

import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from rclpy.utilities import try_shutdown
from sensor_msgs.msg import JointState

from astra_ros.ros.client import WorldModelClient
from astra_ros.ros.goal_picture import picture_goal

positions: dict[str, float] = {}  # of every joint; an arm and its gripper may publish each its own


def rank(model: WorldModelClient, picture: Path) -> None:
    """Print plans, best first: the first joint goes back, stays, goes on."""
    names = model.spec().names
    while missing := set(names) - positions.keys():
        print(f"waiting for joint_states of {', '.join(sorted(missing))}", file=sys.stderr)
        time.sleep(1.0)
    here = np.array([positions[name] for name in names])
    steps = np.arange(1, 9)[:, None]  # eight rows, spec().step_dt seconds apart
    first = np.eye(len(here))[0]
    plans = np.stack([here + radians * steps * first for radians in (-0.05, 0.0, 0.05)])
    reply = model.ask(plans, goal=picture_goal(picture), seed=0)
    for index in reply.ranking:
        print(f"plan {index}: score {reply.scores[index]:.4f}")


def on_joints(joints: JointState) -> None:
    """Remember them."""
    positions.update(zip(joints.name, joints.position, strict=False))


def spin() -> None:
    """Until the program ends."""
    with suppress(ExternalShutdownException):
        executor.spin()


if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
    sys.exit("expected one argument, a JPEG or PNG file: python examples/ask_the_world_model.py goal.jpg")
rclpy.init()
node = rclpy.create_node("my_planner")
node.create_subscription(JointState, "joint_states", on_joints, qos_profile_sensor_data)
executor = SingleThreadedExecutor()
executor.add_node(node)
spinning = Thread(target=spin)  # receives joint states, and the answers that the client's calls wait for
spinning.start()
try:
    rank(WorldModelClient(node, "world_model"), Path(sys.argv[1]))
except KeyboardInterrupt:
    pass
finally:
    executor.shutdown()
    spinning.join()
    try_shutdown()
