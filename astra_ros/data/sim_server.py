"""The simulated arm behind a socket, for programs of another environment; data/sim_client.py is the other side.

    python -m astra_ros.data.sim_server SOCKET

Runs in the simulator's environment (requirements/sim.txt), without ROS. A message is one npz of plain arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from multiprocessing.connection import Listener
from typing import Any

import numpy as np

from astra_ros.data.arm_tasks import STEP_S, TASKS, Outcome, Task, commands_of
from astra_ros.data.arrays import pack, unpack
from astra_ros.data.panda_sim import CAMERA_FRAME, CONTROL_HZ, JOINT_NAMES, PandaSim
from astra_ros.types import ByteArray

# One picture per step of the world model.
CAMERA_HZ = round(1 / STEP_S)


class SimServer:
    """One simulated episode at a time. Every public method is a request; arguments and results are arrays and numbers."""

    def __init__(self) -> None:
        self._sim: PandaSim | None = None
        self._task: Task = TASKS["reach"]()
        self._rng = np.random.default_rng(0)
        self._command = np.zeros(8)
        self._start: Any = None

    def describe(self) -> dict[str, Any]:
        """joint_names; camera_frame; step_s: seconds of a plan's row; control_hz; camera_hz."""
        return {
            "joint_names": np.array(JOINT_NAMES),
            "camera_frame": CAMERA_FRAME,
            "step_s": STEP_S,
            "control_hz": CONTROL_HZ,
            "camera_hz": CAMERA_HZ,
        }

    def reset(self, task: str, seed: int) -> dict[str, Any]:
        """A new episode: at its start after some movement, which is returned for a history. goal: its picture."""
        if self._sim is not None:
            self._sim.close()
        self._sim, self._task, self._rng = PandaSim(seed), TASKS[task](), np.random.default_rng(seed)
        self._command = self._sim.state.positions.copy()
        lived = self._live(self._task.start(self._sim, self._rng))
        self._start = self._sim.save(), self._command
        goal = self._outcome(self._task.goal_plan(self._sim))
        facts = {"decisions": self._task.decisions, "rows": self._task.rows}
        return {**lived, **facts, "goal": goal.picture, "is_possible": goal.is_success}

    def restart(self) -> dict[str, Any]:
        """Back to the start of the episode."""
        saved, self._command = self._start
        self._simulated.restore(saved)
        return {}

    def execute(self, rows: np.ndarray) -> dict[str, Any]:
        """Carry out a plan (rows, 8). positions (n, 8) and pictures (m, h, w, 3) at CONTROL_HZ and CAMERA_HZ."""
        lived = self._live(list(commands_of(rows, self._command)))
        return {**lived, "is_success": self._task.is_success(self._simulated)}

    def propose(self, count: int, noise_m: float, seed: int) -> dict[str, Any]:
        """plans (count, rows, 8) of the prior; equal seeds propose the same, and fewer are the first of more."""
        plans = [
            self._task.propose(self._simulated, np.random.default_rng([seed, index]), noise_m)
            for index in range(count)
        ]
        return {"plans": np.stack(plans)}

    def probe(self, plans: np.ndarray) -> dict[str, Any]:
        """What would come of plans (n, rows, 8): the simulator as its own oracle. The episode stays where it is."""
        outcomes = [self._outcome(rows) for rows in plans]
        return {
            "pictures": np.stack([one.picture for one in outcomes]),
            "grippers": np.stack([one.gripper for one in outcomes]),
            "is_success": np.array([one.is_success for one in outcomes]),
        }

    def close(self) -> None:
        if self._sim is not None:
            self._sim.close()

    @property
    def _simulated(self) -> PandaSim:
        assert self._sim is not None, "reset comes first"
        return self._sim

    def _live(self, commands: Sequence[np.ndarray]) -> dict[str, Any]:
        """What was sensed at the beginning of every period, with a picture in the first of each step; now and last: at the end.

        commands: of whole steps, so that all pictures are one step apart, as a history wants them.
        """
        positions: list[np.ndarray] = []
        pictures: list[ByteArray] = []
        for tick, command in enumerate(commands):
            if tick % (CONTROL_HZ // CAMERA_HZ) == 0:
                pictures.append(self._simulated.render())
            positions.append(self._simulated.state.positions)
            self._simulated.step(command)
            self._command = command
        sim = self._simulated
        sensed = {"positions": np.array(positions), "pictures": np.array(pictures)}
        return {**sensed, "now": sim.render(), "last": sim.state.positions}

    def _outcome(self, rows: np.ndarray) -> Outcome:
        sim = self._simulated
        before = sim.save()
        for command in commands_of(rows, self._command):
            sim.step(command)
        outcome = Outcome(sim.render(), sim.state.gripper.copy(), self._task.is_success(sim))
        sim.restore(before)
        return outcome


def serve(path: str) -> None:
    """Answer one client until it goes. A request that fails is answered with its error."""
    server = SimServer()
    with Listener(path, "AF_UNIX") as listener, listener.accept() as connection:
        while True:
            try:
                request = unpack(connection.recv_bytes())
            except EOFError:
                break
            try:
                reply = getattr(server, str(request.pop("request")))(**request)
            except Exception as error:  # noqa: BLE001 - whatever went wrong is the client's to hear
                reply = {"error": f"{type(error).__name__}: {error}"}
            connection.send_bytes(pack(reply))
    server.close()


if __name__ == "__main__":
    serve(sys.argv[1])
