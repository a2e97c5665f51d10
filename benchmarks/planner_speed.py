"""How long a planner waits: N plans ranked, a CEM search, and what the service adds to the bare call.

The service is measured with a standing goal, so that both sides compute scores; and what the live stream pays for questions.

python -m benchmarks.planner_speed --json benchmarks/results/planner_speed_MACHINE_YYYYMM.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Header

from astra_ros.backends.base import Past
from astra_ros.backends.bundle import load_bundle, shipped_bundle
from astra_ros.benchmarking.footprint import resident_mb
from astra_ros.benchmarking.scene import Scene
from astra_ros.cli.options import add_json, require_json_folder, write_json
from astra_ros.evaluation.machine import describe_machine
from astra_ros.msg import Goal as GoalMessage
from astra_ros.msg import PredictedFuture
from astra_ros.planning.cem import CemConfig, cem
from astra_ros.planning.evaluation import Evaluation, Question, costs_of
from astra_ros.planning.goals import Goal, codec_distance
from astra_ros.rollout.candidates import Candidates
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros import qos
from astra_ros.ros.calm_executor import CalmExecutor
from astra_ros.ros.client import WorldModelClient, WorldModelError
from astra_ros.ros.conversions import to_image
from astra_ros.ros.node_process import NodeProcess
from astra_ros.ros.stamps import to_ns, to_time
from astra_ros.srv import SetGoal
from astra_ros.types import NANOSECONDS, FloatArray, Observation
from benchmarks.active_node import active_node

NUM_PLANS, CHUNKS, SAMPLES, NUM_THREADS = 64, 4, 4, 2
CEM = CemConfig(num_samples=32, iterations=5, num_elites=4)
_PICTURE_S = 0.1


@dataclass(frozen=True)
class Times:
    """Of repeated runs: seconds. backend: what computed them."""

    what: str
    goal_s: float
    median_s: float
    p95_s: float
    runs: int
    backend: str

    @classmethod
    def of(cls, what: str, goal_s: float, seconds: Sequence[float], backend: str) -> Times:
        median, p95 = np.percentile(seconds, (50, 95))
        return cls(what, goal_s, round(float(median), 4), round(float(p95), 4), len(seconds), backend)


@dataclass(frozen=True)
class Share:
    """What something adds to the time, by a median over turns with the middle 95 % of them."""

    what: str
    goal: float
    median: float
    low: float
    high: float
    runs: int
    backend: str


@dataclass(frozen=True)
class Live:
    """Of the live stream: predictions a second, and seconds from a picture's arrival to its prediction."""

    what: str
    rate_hz: float
    median_s: float
    p95_s: float
    predictions: int
    backend: str

    @classmethod
    def of(cls, what: str, seconds: float, latencies_s: Sequence[float], backend: str) -> Live:
        """Raises RuntimeError for none."""
        if not latencies_s:
            raise RuntimeError(f"{what}: expected predictions within {seconds:g} s, found none")
        median, p95 = np.percentile(latencies_s, (50, 95)).round(4).tolist()
        return cls(what, round(len(latencies_s) / seconds, 3), median, p95, len(latencies_s), backend)


@dataclass(frozen=True)
class Memory:
    """Resident memory of the node's process, 10^6 bytes: after it did something for a while, and at most since its start."""

    what: str
    goal_mb: float
    resident_mb: float
    peak_mb: float
    backend: str

    @classmethod
    def of(cls, what: str, process: NodeProcess, backend: str) -> Memory:
        now, peak = (resident_mb(field, process.pid) for field in ("VmRSS", "VmHWM"))
        return cls(what, 600.0, now, peak, backend)


class Served(NamedTuple):
    """A node that asks an active world model, and the process of that."""

    node: Node
    client: WorldModelClient
    process: NodeProcess


def library_times(bundle: Path, backend: str, runs: int) -> list[Times]:
    """In this process: ranking and search, encoding of the newest picture included."""
    scene = Scene(load_bundle(bundle))
    with WorldModel.load(bundle, backend, NUM_THREADS) as model:
        observations = scene.observations()
        for observation in islice(observations, 24):
            model.observe(observation)
        distance = codec_distance(model.backend, Goal(model.backend.encode(scene.goal)))
        candidates, spec = Candidates(model.backend), model.manifest.action
        plans = _long_plans(scene)

        def past() -> Past:
            """From a picture that was not encoded before."""
            observation = next(observations)
            model.observe(observation)
            return model.past(observation.stamp_ns)

        def rank(num_steps: int) -> None:
            question = Question(plans, distance, top_k=0, num_steps=num_steps)
            for _ in Evaluation(candidates, past(), question).run():
                pass

        def search(num_steps: int) -> None:
            costs = costs_of(candidates, past(), distance, num_steps=num_steps)
            cem(costs, scene.plan[0], spec, CEM)

        ranked = f"{NUM_PLANS} plans of {plans.shape[1]} frames ranked"
        searched = f"CEM, {CEM.num_samples} plans of {scene.plan.shape[1]} frames x {CEM.iterations}"
        return [
            Times.of(
                f"{what}, {label}", goal_s, _repeat(partial(work, num_steps), runs), model.backend.description
            )
            for what, goal_s, work in ((ranked, 1.0, rank), (searched, 2.0, search))
            for num_steps, label in ((0, "all steps"), (1, "ranking_steps 1"))
        ]


def uncertainty_share(bundle: Path, backend: str, runs: int) -> Share:
    """What the uncertainty of the best plan adds to ranking all of one chunk, in turns."""
    scene = Scene(load_bundle(bundle))
    with WorldModel.load(bundle, backend, NUM_THREADS) as model:
        (observation,) = islice(scene.observations(), 1)
        model.observe(observation)
        distance = codec_distance(model.backend, Goal(model.backend.encode(scene.goal)))
        candidates, plans = Candidates(model.backend), scene.plans(NUM_PLANS)

        def seconds(num_samples: int) -> float:
            question = Question(plans, distance, num_samples=num_samples)
            evaluation = Evaluation(candidates, model.past(observation.stamp_ns), question)
            started_s = time.perf_counter()
            for _ in evaluation.run():
                pass
            return time.perf_counter() - started_s

        seconds(SAMPLES)  # opens the graphs
        plain, with_uncertainty = np.array([[seconds(1), seconds(SAMPLES)] for _ in range(runs)]).T
    added = with_uncertainty / plain - 1
    low, median, high = np.percentile(added, (2.5, 50, 97.5)).round(4).tolist()
    what = f"uncertainty of the best of {NUM_PLANS} plans of {plans.shape[1]} frames, {SAMPLES} samples"
    return Share(what, 0.15, median, low, high, runs, model.backend.description)


def service_overhead(bundle: Path, backend: str, calls: int) -> Times:
    """What a client waits beyond the same call in this process, in turns, for the scores of eight plans of one chunk.

    Of each pair the difference: its 95th percentile has in it that a call takes now more, now less, of both.
    """
    scene = Scene(load_bundle(bundle))
    with (
        _served(bundle, backend) as (node, client, _),
        # What `auto` chose there: it measures anew in every process.
        WorldModel.load(bundle, backend, NUM_THREADS, client.info().precision) as model,
    ):
        goal = model.backend.encode(scene.goal)
        _observe(node, scene, client)
        _set_goal(node, goal)
        plans, bare = scene.plans(8), _bare_call(model, scene, goal)
        ask = partial(client.ask, plans, top_k=0, seed=0)
        waits, own = np.array([(_seconds(ask), _seconds(bare)) for _ in range(calls + 1)])[1:].T
        served, direct = _computed_by(client), model.backend.description
    both = served if served == direct else f"{served}; the bare call: {direct}"
    return Times.of("service beyond the bare call, pair by pair", 0.005, waits - own, both)


def live_stream(bundle: Path, backend: str, seconds: float) -> tuple[list[Live], list[Memory]]:
    """Pictures ten times a second, for so long: alone, and while the node has a question of all plans to answer at any time."""
    scene = Scene(load_bundle(bundle))
    with _served(bundle, backend) as (node, client, process):
        arrived: list[float] = []
        node.create_subscription(
            PredictedFuture,
            "/world_model/predicted_future",
            lambda future: arrived.append(to_ns(future.total_latency) / NANOSECONDS),
            qos.newest(),
        )
        robot, observations = _Robot(node, scene), scene.observations()
        node.create_timer(_PICTURE_S, lambda: robot.show(next(observations)))
        plans, computed_by = _long_plans(scene), _computed_by(client)

        def measured(what: str) -> tuple[Live, Memory]:
            arrived.clear()
            time.sleep(seconds)
            live = Live.of(f"live predictions, {what}", seconds, list(arrived), computed_by)
            return live, Memory.of(live.what, process, computed_by)

        def ask_until(end: Event) -> None:
            while not end.is_set():
                client.ask(plans, top_k=0)

        time.sleep(2.0)  # the first prediction
        alone, ends = measured("alone"), Event()
        client.ask(plans, top_k=0)  # opens the candidates' graphs
        with ThreadPoolExecutor(1) as asking:
            question = asking.submit(ask_until, ends)
            try:
                beside = measured(f"beside questions of {len(plans)} plans of {plans.shape[1]} frames")
            finally:
                ends.set()
            question.result()
        return [live for live, _ in (alone, beside)], [memory for _, memory in (alone, beside)]


@contextmanager
def _served(bundle: Path, backend: str) -> Iterator[Served]:
    parameters = {
        "bundle": bundle,
        "backend": backend,
        "num_threads": NUM_THREADS,
        "max_observation_age_s": 3600.0,
    }
    with tempfile.TemporaryDirectory() as folder, active_node(Path(folder), parameters) as process:
        node = Node("planner_speed")
        client, executor = WorldModelClient(node, "/world_model"), CalmExecutor(4)
        executor.add_node(node)
        with ThreadPoolExecutor(1) as spinning:
            spinning.submit(executor.spin)
            try:
                client.info()
                yield Served(node, client, process)
            finally:
                executor.shutdown()


def _computed_by(client: WorldModelClient) -> str:
    info = client.info()
    return f"{info.backend_version}, {info.precision}, {info.device}"


def _long_plans(scene: Scene) -> FloatArray:
    """(NUM_PLANS, CHUNKS chunks, a)."""
    return scene.plans(NUM_PLANS, CHUNKS * scene.manifest.chunk_len)


def _set_goal(node: Node, latents: FloatArray) -> None:
    goal = GoalMessage(type=GoalMessage.TYPE_EMBEDDING, embedding=array("f", latents.ravel()))
    response = node.create_client(SetGoal, "/world_model/set_goal").call(SetGoal.Request(goal=goal))
    if not response.success:
        raise RuntimeError(response.message)


def _bare_call(model: WorldModel, scene: Scene, goal: FloatArray) -> Callable[[], None]:
    (observation,) = islice(scene.observations(), 1)
    model.observe(observation)
    candidates, distance = Candidates(model.backend), codec_distance(model.backend, Goal(goal))
    question = Question(scene.plans(8), distance, top_k=0)

    def rank() -> None:
        evaluation = Evaluation(candidates, model.past(observation.stamp_ns), question)
        for _ in evaluation.run():
            pass

    return rank


def _observe(node: Node, scene: Scene, client: WorldModelClient) -> None:
    """Show the node one picture, until it can answer."""
    robot, (observation,) = _Robot(node, scene), islice(scene.observations(), 1)
    for _ in range(100):
        robot.show(observation)
        time.sleep(0.2)
        try:
            client.ask(scene.plans(1), top_k=0)
        except WorldModelError:
            continue
        return
    raise TimeoutError("the node did not see the picture")


class _Robot:
    """Camera and joint states of a node."""

    def __init__(self, node: Node, scene: Scene) -> None:
        self._clock, self._names = node.get_clock(), list(scene.manifest.action.names)
        self._joints = node.create_publisher(JointState, "/joint_states", qos.newest())
        self._camera = node.create_publisher(Image, "/image", qos.newest())

    def show(self, observation: Observation) -> None:
        """Now."""
        header = Header(stamp=to_time(self._clock.now().nanoseconds))
        positions = array("d", observation.measured.astype(float))
        self._joints.publish(JointState(header=header, name=self._names, position=positions))
        self._camera.publish(to_image(observation.pixels, header))


def _repeat(work: Callable[[], Any], runs: int) -> list[float]:
    """The first run, which opens graphs, is not counted."""
    return [_seconds(work) for _ in range(runs + 1)][1:]


def _seconds(work: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    options = _parser().parse_args(arguments)
    try:
        require_json_folder(options)
        found = library_times(options.bundle, options.backend, options.runs)
        found.append(service_overhead(options.bundle, options.backend, options.calls))
        live, memory = live_stream(options.bundle, options.backend, options.seconds)
        share = uncertainty_share(options.bundle, options.backend, options.runs)
    except (OSError, ValueError, RuntimeError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    text = _markdown(found, live, memory, share)
    print(text)
    result = {
        "backend": options.backend,
        "threads": NUM_THREADS,
        "times": [asdict(t) for t in found],
        "live": [asdict(one) for one in live],
        "memory": [asdict(one) for one in memory],
        "uncertainty": asdict(share),
        "machine": describe_machine(),
    }
    write_json(options.json, result)
    if options.json is not None:
        options.json.with_suffix(".md").write_text(f"# What a planner waits for\n\n{text}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, nargs="?", default=shipped_bundle())
    parser.add_argument("--backend", default="auto", help="(default: %(default)s)")
    parser.add_argument("--runs", type=int, default=8, help="of ranking and search (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=200, help="of the service (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="of each of the two live streams (default: %(default)s)"
    )
    add_json(parser)
    return parser


def _markdown(times: list[Times], live: list[Live], memory: list[Memory], share: Share) -> str:
    """A table of waits, one of the live stream, one of memory, and what the uncertainty adds."""
    waits = (
        f"| {t.what} | {1e3 * t.goal_s:.0f} ms | {1e3 * t.median_s:.1f} ms | {1e3 * t.p95_s:.1f} ms | {t.runs} | {t.backend} |"
        for t in times
    )
    streams = (
        f"| {one.what} | {one.rate_hz:.2f} Hz | {1e3 * one.median_s:.0f} ms | {1e3 * one.p95_s:.0f} ms | {one.predictions} |"
        f" {one.backend} |"
        for one in live
    )
    processes = (
        f"| {one.what} | {one.goal_mb:.0f} MB | {one.resident_mb:.0f} MB | {one.peak_mb:.0f} MB | {one.backend} |"
        for one in memory
    )
    lines = [
        "| | goal | median | p95 | runs | computed by |",
        "|---|---|---|---|---|---|",
        *waits,
        "",
        "| | published | median | p95 | predictions | computed by |",
        "|---|---|---|---|---|---|",
        *streams,
        "",
        "| the node's process | goal | in memory | at most since its start | computed by |",
        "|---|---|---|---|---|",
        *processes,
        "",
        f"The {share.what}, adds {share.median:.1%} ({share.low:.1%} to {share.high:.1%}, {share.runs} turns; goal: at most"
        f" {share.goal:.0%}; {share.backend}). With {NUM_THREADS} threads.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
