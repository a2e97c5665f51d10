"""Does a robot do better because it asks? Simulated episodes over ROS topics, with and without the world model.

    python -m benchmarks.closed_loop --task reach --episodes 100 --out runs/closed_loop

A simulated robot is a ROS node (camera, joint states or odometry, /clock, plans), the world model another one in a process of its
own. A prior proposes plans; a method chooses among them, and the robot carries its choice out. The prior of the task knows the goal and
aims at it, give or take --noise. That of the model (--prior model) is what its bundle was taught to propose, and sees what a robot
sees: the camera's picture, and the goal's. Every episode and method starts from the same simulated state, and the first plans of the prior are the same for all.

Every episode leaves OUT/<task>_<seed>.json; started again, the command does only what is missing, and refuses what other
settings left. At the end: OUT/closed_loop_<task>.json and .md. Several of them may share the work: --first-seed, --episodes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from astra_ros.backends.base import Backend
from astra_ros.backends.bundle import load_bundle, shipped_bundle
from astra_ros.backends.factory import open_backend
from astra_ros.cli.progress import ProgressLine
from astra_ros.data.sim_client import SimClient
from astra_ros.frames.preprocess import fit
from astra_ros.msg import Goal
from astra_ros.planning.cem import CemConfig, cem
from astra_ros.planning.refine import RefineConfig, refine
from astra_ros.rollout.proposals import LEARN
from astra_ros.ros.calm_executor import CalmExecutor
from astra_ros.ros.client import Reply, WorldModelClient, WorldModelError
from astra_ros.ros.conversions import to_image
from astra_ros.ros.simulated_arm import ROBOT_OF, SimulatedArm
from astra_ros.ros.simulated_robot import SimulatedRobot
from astra_ros.ros.simulated_rover import SimulatedRover
from astra_ros.ros.stamps import to_ns
from astra_ros.srv import SetGoal
from astra_ros.types import ByteArray, FloatArray
from benchmarks.active_node import active_node
from benchmarks.closed_loop_summary import report, require_same, summary

COUNTS = (1, 4, 16, 64)
PROBED = 16  # candidates that the simulator itself tries, for the oracle and for the ranking
PLANS_PER_POLICY = 4
ROBOTS: dict[str, tuple[str, type[SimulatedRobot]]] = {
    **{task: (robot, SimulatedArm) for task, robot in ROBOT_OF.items()},
    "go": ("rover", SimulatedRover),
}
PRIORS = ("task", "model")
NOISE_M = {"reach": 0.06, "lift": 0.03, "push": 0.015, "go": 0.25}
# Of the surest of the policies, whose success the world model must tell apart.
SUREST_M = {"reach": 0.01, "lift": 0.01, "push": 0.003, "go": 0.03}
REFINED = 16  # plans of the prior, the best of which CEM starts at, and which are mixed
# So near that the model is not led where it errs: five times as far it finds plans of which it wrongly expects more
# (chosen on 14 and 20 other episodes of lift and reach).
CEM = CemConfig(num_samples=32, iterations=5, num_elites=4, initial_std=0.01, min_std=0.0025)
REFINE = RefineConfig(CEM.num_samples, CEM.iterations)
_WAIT_S = 60.0


@dataclass(frozen=True)
class Lab:
    """Everything that runs.

    model: encodes pictures as the node does. done: what came of each plan. spinning: of the robot and the node. reset, goal:
    clients. drops: inputs that the world model did not use, as its diagnostics say. prior: whose, one of PRIORS.
    """

    sim: SimClient
    robot: SimulatedRobot
    client: WorldModelClient
    node: Node
    model: Backend
    done: Queue[dict[str, Any]]
    spinning: Future[None]
    reset: Any
    goal: Any
    drops: dict[str, str]
    prior: str
    noise_m: float

    def begin(self, task: str, seed: int) -> Episode:
        self.robot.begin_again()
        lived = self.sim.reset(task=task, seed=seed)
        return Episode(self, seed, lived)

    def call(self, client: Any, request: Any) -> Any:
        if not client.wait_for_service(_WAIT_S):
            raise TimeoutError(f"{client.srv_name}: expected the service, found none")
        future = client.call_async(request)
        deadline_s = time.monotonic() + _WAIT_S
        while not future.done():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{client.srv_name}: expected an answer within {_WAIT_S:g} s, found none")
            time.sleep(0.002)
        return future.result()


@dataclass(frozen=True)
class Episode:
    """One start and one goal. lived: what led to the start, and facts about the task."""

    lab: Lab
    seed: int
    lived: dict[str, Any]

    @property
    def is_possible(self) -> bool:
        """The plan that the goal's picture was made with does what it should."""
        return bool(self.lived["is_possible"])

    @cached_property
    def first_plans(self) -> FloatArray:
        """The first PROBED plans of the first decision; asked for at the start."""
        return self.propose(0, PROBED)

    @cached_property
    def first_outcomes(self) -> dict[str, Any]:
        """What comes of them."""
        return self.lab.sim.probe(plans=self.first_plans)

    def restart(self) -> None:
        """The same start again, with the same history, at a later time."""
        lab = self.lab
        self.settle()  # a picture on its way would become the first of the new history
        lab.sim.restart()
        lab.robot.begin_again()
        lab.call(lab.reset, Trigger.Request())
        lab.robot.show(self.lived)
        self.settle()

    def set_goal(self) -> None:
        goal = Goal(type=Goal.TYPE_IMAGE, image=to_image(self.lived["goal"], Header()))
        response = self.lab.call(self.lab.goal, SetGoal.Request(goal=goal))
        if not response.success:
            raise RuntimeError(response.message)

    def propose(self, decision: int, count: int, noise_m: float | None = None) -> FloatArray:
        """noise_m: of the task's prior; None: the one that is asked for, of whichever prior."""
        if noise_m is None and self.lab.prior == "model":
            left = int(self.lived["rows"]) * (int(self.lived["decisions"]) - decision)
            return self.lab.client.propose(left, count=count).plans
        noise = self.lab.noise_m if noise_m is None else noise_m
        plans: FloatArray = self.lab.sim.propose(count=count, noise_m=noise, seed=100 * self.seed + decision)[
            "plans"
        ]
        return plans

    def settle(self) -> None:
        """Wait until the world model has seen the newest picture."""
        newest, still = self.lab.robot.newest_stamp_ns, np.tile(self.lab.robot.rest, (1, 1, 1))
        deadline_s = time.monotonic() + _WAIT_S
        while newest and time.monotonic() < deadline_s:
            try:
                if to_ns(self.ask(still).observation_stamp) == newest:
                    return
            except WorldModelError as error:
                if error.status != Reply.STATUS_STALE_OBSERVATION:
                    raise
            time.sleep(0.02)
        if newest:
            raise TimeoutError(
                f"observation: expected the newest picture within {_WAIT_S:g} s, found an older one"
            )

    def ask(self, plans: FloatArray) -> Reply:
        return self.lab.client.ask(plans, top_k=0, seed=self.seed)

    def carry_out(self, plan: FloatArray, publish: Callable[[Any], None]) -> dict[str, Any]:
        """As far as the next decision."""
        publish(self.lab.robot.plan(plan[: int(self.lived["rows"])], self.lab.client.info()))
        lived = outcome(self.lab.done, self.lab.spinning)
        self.settle()
        return lived


Choice = Callable[[Episode, int], FloatArray]


def best_of(count: int) -> Choice:
    """The plan of the prior that the world model likes best; the first for count 1."""

    def choose(episode: Episode, decision: int) -> FloatArray:
        plans = episode.propose(decision, count)
        return plans[int(episode.ask(plans).ranking[0])] if count > 1 else plans[0]

    return choose


def searched(episode: Episode, decision: int) -> FloatArray:
    """CEM in the neighbourhood of the best of a few plans of the prior."""
    first = best_of(REFINED)(episode, decision)
    costs, spec = episode.lab.client.costs(seed=episode.seed), episode.lab.client.spec()
    return cem(costs, spec.clip(first), spec, CEM, seed=episode.seed).plan


def weighed(episode: Episode, decision: int) -> FloatArray:
    """Of the model's proposals one that is near and likely, as the node `planner` chooses."""
    left = int(episode.lived["rows"]) * (int(episode.lived["decisions"]) - decision)
    return episode.lab.client.plan(left, seed=episode.seed).plan


def refined(episode: Episode, decision: int) -> FloatArray:
    """The same plans of the prior, and as many iterations as CEM, which mix them."""
    plans, spec = episode.propose(decision, REFINED), episode.lab.client.spec()
    return refine(episode.lab.client.costs(seed=episode.seed), plans, spec, REFINE, seed=episode.seed).plan


def foreseen(episode: Episode, decision: int) -> FloatArray:
    """The oracle: of the first PROBED plans the one whose picture, in the simulator, is nearest to the goal, a success first."""
    plans = episode.propose(decision, PROBED) if decision else episode.first_plans
    probed = episode.lab.sim.probe(plans=plans) if decision else episode.first_outcomes
    scores = true_scores(episode, probed["pictures"])
    return plans[int(np.lexsort((-scores, ~probed["is_success"]))[0])]


def true_scores(episode: Episode, pictures: ByteArray) -> FloatArray:
    """(n,): what the world model's own distance says of pictures that really came."""
    model = episode.lab.model

    def encode(picture: ByteArray) -> FloatArray:
        return model.encode(fit(picture, model.manifest.camera.height, model.manifest.camera.width))

    goal = encode(episode.lived["goal"])
    return -np.array([np.square(encode(picture) - goal).mean() for picture in pictures])


def methods(prior: str) -> dict[str, Choice]:
    """By name, in the order of the table."""
    ranked: dict[str, Choice] = {f"best_of_{count}": best_of(count) for count in COUNTS}
    if prior == "model":
        ranked["near_and_likely"] = weighed
    return {
        **ranked,
        f"cem_from_best_of_{REFINED}": searched,
        f"refined_from_{REFINED}": refined,
        "oracle": foreseen,
    }


def run_episode(lab: Lab, task: str, seed: int, *, with_policies: bool) -> dict[str, Any]:
    """All methods from one start. Seeds whose goal cannot be reached by the perfect plan are told and left out."""
    episode = lab.begin(task, seed)
    result: dict[str, Any] = {"task": task, "seed": seed, "is_possible": episode.is_possible, "methods": {}}
    if not episode.is_possible:
        return result
    publisher = lab.node.create_publisher(lab.robot.plan_type, f"/{lab.robot.plan_topic}", 1)
    _wait_for(lambda: publisher.get_subscription_count() >= 2)
    episode.set_goal()
    for name, choose in methods(lab.prior).items():
        result["methods"][name] = _try(episode, choose, publisher.publish)
    result["ranking"] = _ranking(episode)
    if with_policies:
        result["policies"] = _policies(episode, policies(task))
    result["drops"] = {name: int(count) for name, count in lab.drops.items() if int(count)}
    lab.node.destroy_publisher(publisher)
    return result


def _try(episode: Episode, choose: Choice, publish: Callable[[Any], None]) -> dict[str, Any]:
    """decision_s: seconds of choosing, in all."""
    episode.restart()
    seconds, is_success = 0.0, False
    for decision in range(int(episode.lived["decisions"])):
        started_s = time.monotonic()
        plan = choose(episode, decision)
        seconds += time.monotonic() - started_s
        is_success = bool(episode.carry_out(plan, publish)["is_success"])
    return {"is_success": is_success, "decision_s": round(seconds, 3)}


def _ranking(episode: Episode) -> dict[str, Any]:
    """Predicted and true scores of the first plans, at the start."""
    episode.restart()
    predicted = np.array(episode.ask(episode.first_plans).scores)
    probed = episode.first_outcomes
    return {
        "predicted": np.round(predicted, 6).tolist(),
        "true": np.round(true_scores(episode, probed["pictures"]), 6).tolist(),
        "is_success": probed["is_success"].tolist(),
    }


def policies(task: str) -> list[float]:
    """Noise (m) of twelve priors, from nearly sure to nearly blind."""
    return [round(SUREST_M[task] * 1.32**k, 4) for k in range(12)]


def _policies(episode: Episode, noises_m: Sequence[float]) -> list[dict[str, Any]]:
    """Predicted distances and true success of a few plans of each policy, at the start."""
    plans = np.concatenate([episode.propose(1000 + k, PLANS_PER_POLICY, n) for k, n in enumerate(noises_m)])
    predicted = -np.array(episode.ask(plans).scores).reshape(len(noises_m), -1)
    succeeded = episode.lab.sim.probe(plans=plans)["is_success"].reshape(len(noises_m), -1)
    return [
        {"noise_m": noise, "predicted_distance": np.round(p, 6).tolist(), "is_success": s.tolist()}
        for noise, p, s in zip(noises_m, predicted, succeeded, strict=True)
    ]


def outcome(done: Queue[dict[str, Any]], spinning: Future[None], wait_s: float = _WAIT_S) -> dict[str, Any]:
    """What came of a plan. Raises what ended the nodes, the simulator's SimError for one, or TimeoutError."""
    deadline_s = time.monotonic() + wait_s
    while time.monotonic() < deadline_s:
        try:
            return done.get(timeout=0.1)
        except Empty:
            if spinning.done():
                spinning.result()
    raise TimeoutError(f"plan: expected it to be carried out within {wait_s:g} s, found it was not")


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + _WAIT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"expected the nodes to find each other within {_WAIT_S:g} s")
        time.sleep(0.02)


@dataclass(frozen=True)
class LabConfig:
    """out: folder for logs. bundle, threads, ranking_steps, goal_frames: of the world model's node. python: of the simulator. noise_m: of the prior."""

    out: Path
    bundle: Path
    python: Path
    task: str
    prior: str
    noise_m: float
    threads: int
    ranking_steps: int
    goal_frames: int

    @property
    def settings(self) -> dict[str, Any]:
        """What every episode depends on, whatever its seed. Raises BundleError."""
        sha256 = load_bundle(self.bundle).sha256
        return {
            "bundle_sha256": sha256,
            "prior": self.prior,
            "noise_m": self.noise_m,
            "ranking_steps": self.ranking_steps,
            "goal_frames": self.goal_frames,
            "cem_initial_std": CEM.initial_std,
            "refinement": f"{REFINED} plans, then {REFINE.iterations} x {REFINE.num_samples}, {REFINE.num_elites} elites",
        }


@contextmanager
def laboratory(config: LabConfig) -> Iterator[Lab]:
    """Starts everything on a ROS domain of its own."""
    parameters = {
        "bundle": config.bundle,
        "use_sim_time": "true",
        "num_threads": config.threads,
        "ranking_steps": config.ranking_steps,
        "goal_frames": config.goal_frames,
        "horizon": 1,
        "max_observation_age_s": 60.0,
        "sync_slop_s": 1.0,  # on a busy machine a joint state may come late; none is missing
        "qos_overrides./image.subscription.reliability": "reliable",
        "qos_overrides./image.subscription.depth": 50,
        **{f"qos_overrides./{one}.subscription.reliability": "reliable" for one in ("joint_states", "odom")},
    }
    with ExitStack() as last:
        log = config.out / f"simulator_{time.time_ns()}.log"
        robot, kind = ROBOTS[config.task]
        sim = last.enter_context(SimClient(config.python, log, robot))
        _require_names(config.bundle, sim.describe()["names"].tolist())
        last.enter_context(active_node(config.out, parameters))
        model = open_backend(load_bundle(config.bundle), "onnxruntime", 1, "fp32")
        last.callback(model.close)
        done: Queue[dict[str, Any]] = Queue()
        simulated, node = kind(sim, done.put), Node("closed_loop")
        client = WorldModelClient(node, "/world_model")
        executor = CalmExecutor(4)
        for member in (simulated, node):
            executor.add_node(member)
        spinning = last.enter_context(ThreadPoolExecutor(1)).submit(executor.spin)
        last.callback(executor.shutdown)
        client.info(_WAIT_S)
        drops: dict[str, str] = {}

        def on_diagnostics(message: DiagnosticArray) -> None:
            for status in message.status:
                drops.update(
                    {pair.key: pair.value for pair in status.values if pair.key.startswith("drops.")}
                )

        node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
        reset = node.create_client(Trigger, "/world_model/reset")
        goal = node.create_client(SetGoal, "/world_model/set_goal")
        yield Lab(
            sim,
            simulated,
            client,
            node,
            model,
            done,
            spinning,
            reset,
            goal,
            drops,
            config.prior,
            config.noise_m,
        )


def _require_names(bundle: Path, expected: Sequence[str]) -> None:
    names = list(load_bundle(bundle).manifest.action.names)
    if names != expected:
        raise SystemExit(
            f"--bundle {bundle}: expected a model of {', '.join(expected)}, found one of {', '.join(names)}; train and export one for"
            " this robot (docs/evaluation.md)"
        )


def _live(config: LabConfig, files: Mapping[int, Path], compared: Collection[int]) -> None:
    """The episodes of these seeds, each into its file. compared: those that compare policies too."""
    missing = [seed for seed, file in files.items() if not file.is_file()]
    if not missing:
        return
    progress = ProgressLine()
    with laboratory(config) as lab:
        info = lab.client.info()
        made_with = {
            **config.settings,
            "backend": f"{info.backend_version}, {info.precision}, {info.device}, {config.threads} threads",
        }
        for number, seed in enumerate(missing, 1):
            result = run_episode(lab, config.task, seed, with_policies=seed in compared)
            files[seed].write_text(json.dumps({**result, **made_with}) + "\n")
            progress.update(f"{config.task} {number}/{len(missing)}: seed {seed}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=sorted(NOISE_M), default="reach")
    parser.add_argument("--bundle", type=Path, default=shipped_bundle())
    parser.add_argument(
        "--python", type=Path, default=Path(".venv-sim/bin/python"), help="of the simulator (make sim)"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--first-seed", type=int, default=200_000, help="never trained on (default: %(default)s)"
    )
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument(
        "--policy-episodes", type=int, default=24, help="that also compare policies (default: %(default)s)"
    )
    parser.add_argument(
        "--prior",
        choices=PRIORS,
        default="task",
        help="who proposes plans: the task, which knows the goal, or the bundle (export.proposals) (default: %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=float,
        help="of the task's prior, of its aim, m (default: "
        + ", ".join(f"{n} for {t}" for t, n in NOISE_M.items())
        + ")",
    )
    parser.add_argument("--threads", type=int, default=2, help="of the world model (default: %(default)s)")
    parser.add_argument(
        "--ranking-steps",
        type=int,
        default=0,
        help="denoising steps that rank candidates; 0: all (default: %(default)s)",
    )
    parser.add_argument(
        "--goal-frames",
        type=int,
        default=1,
        help="last frames of a plan whose mean distance to the goal is scored (default: %(default)s)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then summarise all that is there."""
    options = _parser().parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.episodes)
    files = {seed: options.out / f"{options.task}_{seed}.json" for seed in seeds}
    is_task = options.prior == "task"
    noise_m = (NOISE_M[options.task] if options.noise is None else options.noise) if is_task else 0.0
    shared = {
        name: getattr(options, name)
        for name in ("out", "bundle", "python", "task", "prior", "threads", "ranking_steps", "goal_frames")
    }
    # The policies that are compared are the task's prior, from sure to blind.
    compared = seeds[: options.policy_episodes if is_task else 0]
    config = LabConfig(noise_m=noise_m, **shared)
    try:
        require_same(files, config.settings, compared)
        if not is_task and load_bundle(options.bundle).manifest.proposals is None:
            raise ValueError(
                f"--prior model: expected a bundle that was taught proposals, found one that was not; {LEARN}"
            )
        options.out.mkdir(parents=True, exist_ok=True)
        _live(config, files, compared)
        found = [json.loads(file.read_text()) for file in files.values()]
        summarised = summary(found, load_bundle(options.bundle).manifest.model_id)
    except (OSError, ValueError, RuntimeError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 1
    text = report(summarised)
    print(text)
    name = options.out / f"closed_loop_{options.task}"
    name.with_suffix(".json").write_text(json.dumps(summarised, indent=1, allow_nan=False) + "\n")
    name.with_suffix(".md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
