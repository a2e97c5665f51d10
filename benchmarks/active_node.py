"""The world model's node, active, in a process and on a ROS domain of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.msg import Transition
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from astra_ros.cli.signals import ended_by_sigterm
from astra_ros.ros.demonstration import isolated
from astra_ros.ros.node_process import LifecycleClient, NodeProcess


@contextmanager
def active_node(out: Path, parameters: Mapping[str, Any]) -> Iterator[NodeProcess]:
    """rclpy is up while the block lasts, and the node is /world_model. out: folder for its log.

    SIGTERM ends the block like any exception, so that no process is left behind.
    """
    arguments = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
    with ExitStack() as last:
        last.enter_context(isolated())
        last.enter_context(ended_by_sigterm())
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        last.callback(rclpy.try_shutdown)
        process = last.enter_context(NodeProcess(out / f"world_model_{time.time_ns()}.log", arguments))
        waiting, executor = Node("lifecycle_client"), SingleThreadedExecutor()
        executor.add_node(waiting)
        lifecycle = LifecycleClient(waiting, executor, process, "/world_model")
        lifecycle.change(Transition.TRANSITION_CONFIGURE, 120.0)
        lifecycle.change(Transition.TRANSITION_ACTIVATE, 30.0)
        executor.shutdown()
        yield process
