"""Everything that one configuration of the node holds: the model, and the topics and services that its contract shapes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from rclpy.lifecycle import LifecycleNode

from astra_ros.backends.bundle import shipped_bundle
from astra_ros.backends.manifest import CameraSpec
from astra_ros.planning.goals import Goal, GoalDistance, MakeGoalDistance, find_goal_distance
from astra_ros.rollout.world_model import WorldModel
from astra_ros.ros.declaration import ConfigError
from astra_ros.ros.evaluator import Evaluator
from astra_ros.ros.health import Health
from astra_ros.ros.inputs import Inputs
from astra_ros.ros.outputs import Outputs
from astra_ros.ros.parameters import NodeConfig, require_live, resolve_horizon, why_uncalibrated
from astra_ros.ros.proposing import Proposer
from astra_ros.ros.queries import GoalInput
from astra_ros.ros.services import Services, Session
from astra_ros.ros.standing_goal import StandingGoal
from astra_ros.ros.worker import Ports, Worker

# Far longer than a chunk takes; a model that is stuck is given up.
_STOP_TIMEOUT_S = 10.0


class ModelSession:
    """From configure to cleanup. The model belongs to the worker while active, to the transitions' thread otherwise."""

    def __init__(self, node: LifecycleNode, config: NodeConfig, model: WorldModel, health: Health) -> None:
        self.config = config
        self._node = node
        self._model = model
        self._health = health
        self._worker: Worker | None = None
        self._has_model = True
        self._distance_to = _distance_to(_find_goal_distance(config, model.manifest.camera), model)
        self._standing_goal = StandingGoal(self._distance_to)
        self._log_error = node.get_logger().error
        self._evaluator = Evaluator(
            model, self._distance_to, self._standing_goal, self._now_ns, self._log_error
        )
        self._proposer = Proposer(model, lambda: self._standing_goal.goal, self._now_ns, self._log_error)
        if config.prepare_candidates:
            self._evaluator.prepare()
        with ExitStack() as undo:
            self._inputs = Inputs(node, model.manifest, config, health, self._standing_goal)
            undo.callback(self._inputs.destroy)
            session = Session(
                model.manifest,
                lambda: self.config,
                lambda: self._worker,
                self.forget,
                self._set_goal,
            )
            self._services = services = Services(node, session)
            undo.callback(services.destroy)
            # After the services: who is told of the model may ask about it.
            self._outputs = Outputs(node, model.backend, config)
            undo.callback(self._outputs.destroy)
            self._entities = undo.pop_all()
        self._warn_of_spreads()

    @classmethod
    def open(cls, node: LifecycleNode, config: NodeConfig, health: Health) -> ModelSession:
        """Load, verify and warm up, then create the entities. Leaves nothing behind when it raises.

        Raises BundleError, BackendError or ConfigError for what the user can fix.
        """
        bundle = config.bundle or shipped_bundle()
        model = WorldModel.load(
            bundle, config.backend, config.num_threads, config.precision, config.joint_prefix
        )
        try:
            resolve_horizon(config, model.manifest)
            return cls(node, config, model, health)
        except BaseException:
            model.close()
            raise

    @property
    def is_active(self) -> bool:
        return self._worker is not None

    @property
    def is_asked(self) -> bool:
        """Somebody waits for an answer."""
        return self._services.is_asked

    @property
    def image_topics(self) -> dict[str, str]:
        """Of the cameras, by source."""
        return self._inputs.image_topics

    def activate(self) -> None:
        """Hand the model to a new worker and open the gates."""
        ports = Ports(
            now_ns=self._now_ns,
            is_watched=lambda: self._outputs.is_watched(self.config),
            publish=self._outputs.publish,
            publish_comparisons=self._outputs.publish_comparisons,
            answer=self._evaluator.answer,
            propose=self._proposer.answer,
            goal_distance=self._standing_goal.distance,
            log_error=self._log_error,
            is_up=self._node.context.ok,
        )
        worker = Worker(self._model, self.config, self._health, ports)
        worker.start()
        self._worker = worker
        self._inputs.connect(worker)

    def deactivate(self) -> None:
        """Close the gates, take the model back and forget. Raises RuntimeError when the worker is stuck and keeps it."""
        self._inputs.disconnect()
        worker, self._worker = self._worker, None
        if worker and not worker.stop(_STOP_TIMEOUT_S):
            self._has_model = False
            raise RuntimeError(f"a prediction did not end within {_STOP_TIMEOUT_S:g} s; restart the node")
        if self._has_model:
            self._model.reset()

    def end_gone(self) -> None:
        """What stood against publishers that are there no more is over."""
        self._inputs.end_gone()

    def forget(self) -> bool:
        """Drop the history and the plan; True when there can be any."""
        self._inputs.forget()
        return self.is_active

    def _set_goal(self, goal: GoalInput | None) -> None:
        """A sound one ends the complaint about one that came on the topic."""
        self._standing_goal.set(goal)
        self._health.resolve("goal")

    def require_applicable(self, config: NodeConfig) -> None:
        """Raises ConfigError for a change that this session cannot make."""
        require_live(self.config, config)
        resolve_horizon(config, self._model.manifest)

    def apply(self, config: NodeConfig) -> None:
        """From the next message and prediction on."""
        has_other_samples = config.uncertainty_samples != self.config.uncertainty_samples
        self.config = self._inputs.config = config
        if self._worker:
            self._worker.configure(config)
        self._outputs.announce(config)
        if has_other_samples:
            self._warn_of_spreads()

    def _warn_of_spreads(self) -> None:
        """Of uncertainties that are not what the bundle could say."""
        if line := why_uncalibrated(self.config, self._model.manifest, self._model.backend.precision):
            self._node.get_logger().warning(line)

    def close(self) -> None:
        """Free everything, from any state, but for a model that a stuck worker still uses. Raises RuntimeError as deactivate."""
        with ExitStack() as last:
            last.callback(self._close_model)
            last.callback(self._entities.close)
            self.deactivate()

    def _close_model(self) -> None:
        if self._has_model:
            self._model.close()

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)

    def facts(self) -> dict[str, str]:
        """State and model, for the diagnostics."""
        model, backend = self._model, self._model.backend
        return {
            "state": "active" if self.is_active else "inactive",
            "model_id": model.manifest.model_id,
            "bundle_sha256": backend.bundle_sha256,
            "backend": backend.name,
            "backend_version": backend.version,
            "precision": backend.precision,
            "device": backend.device,
        }


def _distance_to(make: MakeGoalDistance, model: WorldModel) -> Callable[[GoalInput], GoalDistance]:
    """Encodes what came as a picture."""

    def distance_to(goal: GoalInput) -> GoalDistance:
        if goal.pixels is None:
            assert goal.latents is not None, "a goal has one of the two"
            return make(model.backend, Goal(goal.latents))
        return make(model.backend, Goal(model.backend.encode(goal.pixels), goal.pixels))

    return distance_to


def _find_goal_distance(config: NodeConfig, camera: CameraSpec) -> MakeGoalDistance:
    try:
        size = (camera.height, camera.width)
        return find_goal_distance(config.goal_distance, config.goal_encoder, size, config.num_threads)
    except ValueError as error:
        raise ConfigError(str(error)) from error
