"""The lifecycle node `world_model`: camera and what the robot does in, predicted futures out.

configure loads, verifies and warms up the model; activate opens the gates; deactivate closes them and forgets the
history; cleanup frees everything; an error frees everything too and leads back to unconfigured.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.action.server import RCLError
from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.utilities import try_shutdown

from astra_ros.backends.base import BackendError
from astra_ros.backends.manifest import BundleError
from astra_ros.ros.declaration import ConfigError, declare_parameters, read_config
from astra_ros.ros.diagnostics import Diagnostics
from astra_ros.ros.health import INCOMPATIBLE_QOS, Problem
from astra_ros.ros.model_session import ModelSession
from astra_ros.ros.package_log import PackageLog
from astra_ros.ros.parameters import NodeConfig, require_valid

# A camera that is silent for longer is reported; a refused joint state is no news any more, and hides that they stopped.
_SILENCE_S, _SILENT = 2.0, "silent"
# A refused goal may have no successor: it is shown for so long. So is a prediction that failed.
_REFUSED_GOAL_S = _FAILED_PREDICTION_S = 10.0
_FAREWELL_S = 0.02

_Transition = Callable[["WorldModelNode", LifecycleState], TransitionCallbackReturn]


def _visible(transition: _Transition) -> _Transition:
    """rclpy turns an exception in a transition into ERROR without a word: say what happened first.

    What the user can fix in the parameters fails the transition with one line; anything else is an error.
    """

    @wraps(transition)
    def run(node: WorldModelNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(node, state)
        except Exception as error:  # noqa: BLE001
            if not node.context.ok():  # a signal ended it, and nobody is left to be told
                return TransitionCallbackReturn.FAILURE
            return _tell(node, f"{transition.__name__[3:]} failed", error)

    return run


def _tell(node: WorldModelNode, what: str, error: Exception) -> TransitionCallbackReturn:
    """Returns what becomes of the transition."""
    if isinstance(error, (BundleError, BackendError, ConfigError)):
        node.report_failure(f"{what}: {error}")
        return TransitionCallbackReturn.FAILURE
    node.get_logger().error(traceback.format_exc())
    node.report_failure(f"{what}: {type(error).__name__}: {error}; the traceback is in the node's log")
    return TransitionCallbackReturn.ERROR


class WorldModelNode(LifecycleNode):
    """Thin: everything that a configuration needs lives in its ModelSession.

    options: of rclpy's Node: namespace, context, parameter_overrides, cli_args, …
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("world_model", enable_logger_service=True, **options)
        self._session: ModelSession | None = None
        self._state_without_session = "unconfigured"
        self._active_since_s = 0.0
        self._diagnostics = Diagnostics(self, self._check_inputs, self._facts)
        declare_parameters(self, NodeConfig)
        self.add_on_set_parameters_callback(self._validate_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        backwards = JumpThreshold(
            min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
        )
        self._jump_handle = self.get_clock().create_jump_callback(backwards, post_callback=self._on_time_jump)
        self._package_log = PackageLog(self.get_logger())

    @_visible
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        config = read_config(self, NodeConfig)
        require_valid(config)
        self._session = ModelSession.open(self, config, self._diagnostics.health)
        self._diagnostics.health.resolve_all()
        return super().on_configure(state)

    @_visible
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._configured().activate()
        self._active_since_s = time.monotonic()
        return result

    @_visible
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._configured().deactivate()
        self._diagnostics.health.resolve_all(keep_standing=True)
        return super().on_deactivate(state)

    @_visible
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        self._diagnostics.health.resolve_all()
        return super().on_cleanup(state)

    @_visible
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._session and self._session.is_asked:
            # Deactivated, it answers everybody, but not before this callback has returned.
            self._session.deactivate()
            # Of real time: simulated time may stand.
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._farewell = self.create_timer(_FAREWELL_S, self._release_once_answered, clock=steady)
        else:
            self.release()
        self._diagnostics.health.resolve_all()
        self._state_without_session = "finalized"
        return super().on_shutdown(state)

    @_visible
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self.release()
        return super().on_error(state)

    def _LifecycleNodeMixin__on_change_state(  # noqa: N802
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """rclpy's handler, whose exception for a transition that the state does not have would end the process."""
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except RuntimeError as error:
            self.get_logger().warning(f"transition refused: {error}")
            response.success = False
            return response

    def _release_once_answered(self) -> None:
        if self._session is None or not self._session.is_asked:
            self._farewell.cancel()
            self.release()

    def release(self) -> None:
        """Free everything that configure acquired; may be called in any state."""
        session, self._session = self._session, None
        if session:
            session.close()

    def destroy_node(self) -> None:
        try:
            self.release()
        except RuntimeError as error:  # the worker is stuck; it ends with the process
            self.get_logger().error(str(error))
        self._jump_handle.unregister()
        self._package_log.close()
        super().destroy_node()

    def report_failure(self, line: str) -> None:
        """A transition failed."""
        self._diagnostics.health.report("transition", "failed", line, is_error=True)

    def _configured(self) -> ModelSession:
        assert self._session, "the state machine lets only a configured node get here"
        return self._session

    def _facts(self) -> dict[str, str]:
        # Read once: the worker publishes diagnostics too.
        session = self._session
        return session.facts() if session else {"state": self._state_without_session}

    def _check_inputs(self) -> None:
        session, health = self._session, self._diagnostics.health
        health.expire("goal", _REFUSED_GOAL_S)
        health.expire("prediction", _FAILED_PREDICTION_S)
        if not session:
            return
        session.end_gone()
        if not session.is_active:
            return
        for source in ("action_sequence", "joint_trajectory", "cmd_vel"):
            health.expire(source, session.config.plan_timeout_s)
        for source in ("joint_states", "odom"):
            health.expire(source, _SILENCE_S)
        for source, topic in session.image_topics.items():
            self._check_camera(source, topic)

    def _check_camera(self, source: str, topic: str) -> None:
        health = self._diagnostics.health
        silence_s = min(health.silence_s(source), time.monotonic() - self._active_since_s)
        publishers = self.count_publishers(topic)
        if silence_s > _SILENCE_S and not _explains_silence(health.problem(source), publishers):
            line = (
                f"{topic}: expected pictures, found none for {silence_s:.1f} s and {publishers} publishers;"
                f" start the camera, or remap {source}:= and set image_transport to what it publishes"
            )
            health.report(source, _SILENT, line)

    def _on_time_jump(self, _jump: TimeJump) -> None:
        if self._session:
            self._session.forget()

    def _validate_parameters(self, changes: Sequence[Parameter]) -> SetParametersResult:
        try:
            config = read_config(self, NodeConfig, changes)
            require_valid(config, {change.name for change in changes})
            if self._session:
                self._session.require_applicable(config)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _apply_parameters(self, _changes: Sequence[Parameter]) -> None:
        if self._session:
            self._session.apply(read_config(self, NodeConfig))


def _explains_silence(problem: Problem | None, publishers: int) -> bool:
    """Of the camera: what is there cannot be received, or something came just now and was refused."""
    if problem is None or problem.cause == _SILENT:
        return False
    if problem.cause == INCOMPATIBLE_QOS:
        return publishers > 0
    return time.monotonic() - problem.last_s < _SILENCE_S


def main() -> None:
    """`ros2 run astra_ros world_model`. Ends with exit code 0 on SIGINT and SIGTERM."""
    rclpy.init()
    try:
        node = WorldModelNode()
    except ParameterException as error:
        try_shutdown()
        sys.exit(f"world_model: {error}")
    except (KeyboardInterrupt, RuntimeError) as error:
        if rclpy.ok() and not isinstance(error, KeyboardInterrupt):
            raise
        try_shutdown()  # a signal came before the node was there
        return
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RCLError:
        if rclpy.ok():
            raise
        # A signal came while a callback published.
    finally:
        node.destroy_node()
        try_shutdown()
