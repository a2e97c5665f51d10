"""A simulated robot behind a socket, for programs of another environment; data/sim_client.py is the other side.

    python -m astra_ros.data.sim_server SOCKET ROBOT

Runs in the simulator's environment (requirements/sim.txt), without ROS. A message is one npz of plain arrays.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Listener
from typing import Any

import numpy as np

from astra_ros.data.arrays import pack, unpack
from astra_ros.data.sim_robot import CONTROL_HZ, STEP_S, Outcome, Robot, Simulation, Task
from astra_ros.types import ByteArray

# A robot's module, and the simulator it needs, is loaded when it is asked for.
ROBOTS = {
    "panda": "astra_ros.data.arm_tasks",
    "pusht": "astra_ros.data.pusht_task",
    "rover": "astra_ros.data.rover_task",
}
# One picture per step of the world model.
CAMERA_HZ = round(1 / STEP_S)
_CLIENT_COMES_S = 120


class SimServer:
    """One simulated episode at a time. Every public method is a request; arguments and results are arrays and numbers."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot
        self._episode: tuple[Simulation, Task] | None = None
        self._command = np.zeros(len(robot.names))
        self._start: Any = None

    def describe(self) -> dict[str, Any]:
        """names: of joints or axes; tasks; camera_frame; step_s: seconds of a plan's row; control_hz; camera_hz."""
        return {
            "names": np.array(self._robot.names),
            "tasks": np.array([*self._robot.tasks]),
            "camera_frame": self._robot.camera_frame,
            "step_s": STEP_S,
            "control_hz": CONTROL_HZ,
            "camera_hz": CAMERA_HZ,
        }

    def reset(self, task: str, seed: int) -> dict[str, Any]:
        """A new episode: at its start after some movement, which is returned for a history. goal: its picture."""
        make_task = self._robot.tasks[task]
        self.close()
        sim = self._robot.simulate(seed)
        self._episode = sim, make_task(sim)
        commands = self._task.start(np.random.default_rng(seed))
        self._command = sim.measured.copy()
        lived = self._live(commands)
        self._start = sim.save(), self._command
        goal = self._outcome(self._task.goal_plan())
        facts = {"decisions": self._task.decisions, "rows": self._task.rows}
        return {**lived, **facts, "goal": goal.picture, "is_possible": goal.is_success}

    def restart(self) -> dict[str, Any]:
        """Back to the start of the episode."""
        sim = self._sim
        saved, self._command = self._start
        sim.restore(saved)
        return {}

    def execute(self, rows: np.ndarray) -> dict[str, Any]:
        """Carry out a plan (rows, a). measured and commanded (n, a), pictures (m, h, w, 3), at CONTROL_HZ and CAMERA_HZ."""
        lived = self._live(list(self._robot.commands(rows, self._command)))
        return {**lived, "is_success": self._task.is_success()}

    def propose(self, count: int, noise_m: float, seed: int) -> dict[str, Any]:
        """plans (count, rows, a) of the prior; equal seeds propose the same, and fewer are the first of more."""
        plans = [self._task.propose(np.random.default_rng([seed, index]), noise_m) for index in range(count)]
        return {"plans": np.stack(plans)}

    def probe(self, plans: np.ndarray) -> dict[str, Any]:
        """What would come of plans (n, rows, a): the simulator as its own oracle. The episode stays where it is."""
        outcomes = [self._outcome(rows) for rows in plans]
        return {
            "pictures": np.stack([one.picture for one in outcomes]),
            "is_success": np.array([one.is_success for one in outcomes]),
        }

    def close(self) -> None:
        if self._episode is not None:
            self._episode[0].close()
        self._episode = None

    @property
    def _sim(self) -> Simulation:
        return self._begun[0]

    @property
    def _task(self) -> Task:
        return self._begun[1]

    @property
    def _begun(self) -> tuple[Simulation, Task]:
        assert self._episode is not None, "reset comes first"
        return self._episode

    def _live(self, commands: Sequence[np.ndarray]) -> dict[str, Any]:
        """What was sensed at the beginning of every period, with a picture in the first of each step; now and last: at the end.

        commanded: what was told in every period.

        commands: of whole steps, so that all pictures are one step apart, as a history wants them.
        """
        measured: list[np.ndarray] = []
        pictures: list[ByteArray] = []
        for tick, command in enumerate(commands):
            if tick % (CONTROL_HZ // CAMERA_HZ) == 0:
                pictures.append(self._sim.render())
            measured.append(self._sim.measured)
            self._sim.step(command)
            self._command = command
        sim = self._sim
        sensed = {
            "measured": np.array(measured),
            "commanded": np.array(commands),
            "pictures": np.array(pictures),
        }
        return {**sensed, "now": sim.render(), "last": sim.measured}

    def _outcome(self, rows: np.ndarray) -> Outcome:
        sim = self._sim
        before = sim.save()
        for command in self._robot.commands(rows, self._command):
            sim.step(command)
        outcome = Outcome(sim.render(), self._task.is_success())
        sim.restore(before)
        return outcome


def serve(path: str, robot: str) -> None:
    """Answer one client until it goes. A request that fails is answered with its error."""
    server = SimServer(importlib.import_module(ROBOTS[robot]).ROBOT)
    signal.alarm(_CLIENT_COMES_S)  # else one that ended before it came would leave this program for ever
    with Listener(path, "AF_UNIX") as listener, listener.accept() as connection:
        signal.alarm(0)
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
    serve(*sys.argv[1:])
