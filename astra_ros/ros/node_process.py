"""The world model's node in a process of its own, brought up through its lifecycle services."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.executors import Executor
from rclpy.node import Node

_STOP_TIMEOUT_S = 10.0
_POLL_S = 0.1
_STATES_AFTER = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
    Transition.TRANSITION_DEACTIVATE: State.PRIMARY_STATE_INACTIVE,
}


class NodeFailedError(RuntimeError):
    """The node ended, refused a transition or did not answer. The message ends with the tail of its log."""


class NodeProcess:
    """Runs the node while the block lasts; its output goes to `log`.

    ros_args: what follows --ros-args, for example ("-p", "bundle:=/path", "-r", "image:=/camera/image_raw").
    """

    def __init__(self, log: Path, ros_args: Sequence[str]) -> None:
        self.log = log
        # This interpreter rather than the installed script, whose `env python3` may be another one's.
        program = "from astra_ros.ros.node import main; main()"
        self._command = [sys.executable, "-c", program, "--ros-args", *ros_args]

    def __enter__(self) -> NodeProcess:
        with self.log.open("wb") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def stop(self) -> int:
        """Interrupt the node and wait for it. Returns its exit code; may be called twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def require_alive(self) -> None:
        """Raises NodeFailedError when the process has ended."""
        code = self._process.poll()
        if code is not None:
            raise self.failure(f"the node ended with exit code {code}")

    def failure(self, what: str, num_lines: int = 15) -> NodeFailedError:
        """An error with the last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-num_lines:]
        return NodeFailedError(
            "\n".join([f"{what}; the end of its log ({self.log}):", *(f"  {line}" for line in lines)])
        )


class LifecycleClient:
    """Drives the transitions of one node. Spins `executor`, which holds `node`, while it waits."""

    def __init__(self, node: Node, executor: Executor, process: NodeProcess, name: str) -> None:
        self._executor, self._process = executor, process
        self._change = node.create_client(ChangeState, f"{name}/change_state")
        self._get = node.create_client(GetState, f"{name}/get_state")

    def change(self, transition: int, timeout_s: float) -> None:
        """Run a transition (lifecycle_msgs/msg/Transition). Raises NodeFailedError when it does not reach its state."""
        deadline_s = time.monotonic() + timeout_s
        while not self._change.service_is_ready():
            self._require_time(deadline_s, "did not come up")
            self._executor.spin_once(timeout_sec=_POLL_S)
        future = self._change.call_async(ChangeState.Request(transition=Transition(id=transition)))
        while not future.done():
            self._require_time(deadline_s, f"did not finish transition {transition}")
            self._executor.spin_once(timeout_sec=_POLL_S)
        if not future.result().success or self.state(deadline_s) != _STATES_AFTER[transition]:
            raise self._process.failure("the node refused to become ready")

    def state(self, deadline_s: float) -> int:
        """Present state (lifecycle_msgs/msg/State)."""
        future = self._get.call_async(GetState.Request())
        while not future.done():
            self._require_time(deadline_s, "did not tell its state")
            self._executor.spin_once(timeout_sec=_POLL_S)
        return int(future.result().current_state.id)

    def _require_time(self, deadline_s: float, what: str) -> None:
        self._process.require_alive()
        if time.monotonic() > deadline_s:
            raise self._process.failure(f"the node {what} in time")
