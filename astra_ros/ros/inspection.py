"""Looks at a running world model from outside: what it needs, what it gets, and the first thing that is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from astra_ros.ros.bag_recorder import TopicTally, subscription_qos
from astra_ros.ros.message_types import message_class, stamp_ns
from astra_ros.ros.session import ros_session
from astra_ros.types import NANOSECONDS

CAMERA = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
JOINTS = ("sensor_msgs/msg/JointState",)
PLAN = ("astra_ros/msg/ActionSequence",)
DIAGNOSTICS_TOPIC = "/diagnostics"
_SPIN_S = 0.05
_LEVELS = {DiagnosticStatus.OK: "OK", DiagnosticStatus.WARN: "WARN", DiagnosticStatus.ERROR: "ERROR"}


@dataclass(frozen=True)
class Gate:
    """One condition of the way from a camera to a prediction. fix: what to do; empty when it is met."""

    name: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class TopicFacts:
    """A topic of the node, and what was received on it meanwhile.

    age_s: of the last message, by its header stamp; None without one. publishers, node: names with QoS.
    incompatible: why a publisher and the node do not match; empty when they do.
    """

    name: str
    type: str
    publishers: tuple[str, ...]
    node: str
    incompatible: str
    rate_hz: float
    age_s: float | None


@dataclass(frozen=True)
class Inspection:
    """state: lifecycle state, empty when unknown. gates: in the order of the data flow."""

    node: str
    state: str
    diagnostics: dict[str, str]
    topics: tuple[TopicFacts, ...]
    gates: tuple[Gate, ...]

    def first_failing(self) -> Gate | None:
        """The gate to mend first."""
        return next((gate for gate in self.gates if gate.fix), None)


def inspect_node(name: str, seconds: float) -> Inspection:
    """Look for `seconds` at the node of that full name."""
    with ros_session():
        node = rclpy.create_node("astra_doctor")
        return _Inspector(node, name).inspect(seconds)


class _Inspector:
    """One look at one node."""

    def __init__(self, node: Node, name: str) -> None:
        self._node, self._name = node, name
        self._namespace, _, self._base_name = name.rpartition("/")
        self._namespace = self._namespace or "/"
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._tallies: dict[str, TopicTally] = {}
        self._stamps_ns: dict[str, int | None] = {}
        self._status: DiagnosticStatus | None = None
        node.create_subscription(DiagnosticArray, DIAGNOSTICS_TOPIC, self._on_diagnostics, 10)

    def inspect(self, seconds: float) -> Inspection:
        if not self._spin_until(self._is_running, seconds):
            return Inspection(self._name, "", {}, (), (self._absent(),))
        if self._node.count_publishers("/clock"):
            self._node.set_parameters([Parameter("use_sim_time", value=True)])
        state = self._state(seconds)
        topics = self._topics()
        for topic, type_name in topics.items():
            self._listen(topic, type_name)
        self._spin_until(lambda: False, seconds)
        facts = tuple(self._facts(topic, type_name) for topic, type_name in topics.items())
        values = {value.key: value.value for value in self._status.values} if self._status else {}
        gates = (
            self._state_gate(state),
            *self._input_gates(facts),
            self._health_gate(),
            self._output_gate(facts),
        )
        return Inspection(self._name, state, values, facts, gates)

    def _is_running(self) -> bool:
        return (self._base_name, self._namespace) in self._node.get_node_names_and_namespaces()

    def _absent(self) -> Gate:
        others = (f"{ns.rstrip('/')}/{name}" for name, ns in self._node.get_node_names_and_namespaces())
        seen = ", ".join(sorted(set(others) - {self._node.get_fully_qualified_name()})) or "no node at all"
        domain = os.environ.get("ROS_DOMAIN_ID", "0")
        fix = (
            f"start it: ros2 launch astra_ros world_model.launch.py; if it runs, use its ROS_DOMAIN_ID (here {domain})"
            " or give its full name with --node"
        )
        return Gate("node", f"{self._name} is not there; seen: {seen}", fix)

    def _state(self, timeout_s: float) -> str:
        client = self._node.create_client(GetState, f"{self._name}/get_state")
        if not self._spin_until(client.service_is_ready, timeout_s):
            return ""
        future = client.call_async(GetState.Request())
        return str(future.result().current_state.label) if self._spin_until(future.done, timeout_s) else ""

    def _topics(self) -> dict[str, str]:
        """What the node consumes and its prediction, by topic."""
        read = self._node.get_subscriber_names_and_types_by_node(self._base_name, self._namespace)
        wanted = {topic: types[0] for topic, types in read if types[0] in (*CAMERA, *JOINTS, *PLAN)}
        return {**wanted, self._future_topic: "astra_ros/msg/PredictedFuture"}

    @property
    def _future_topic(self) -> str:
        return f"{self._name}/predicted_future"

    def _listen(self, topic: str, type_name: str) -> None:
        tally = self._tallies[topic] = TopicTally(type_name)

        def receive(raw: bytes) -> None:
            tally.add(len(raw))
            self._stamps_ns[topic] = stamp_ns(type_name, raw)

        publishers = self._node.get_publishers_info_by_topic(topic)
        self._node.create_subscription(
            message_class(type_name), topic, receive, subscription_qos(publishers), raw=True
        )

    def _facts(self, topic: str, type_name: str) -> TopicFacts:
        publishers = self._node.get_publishers_info_by_topic(topic)
        ours = [
            i for i in self._node.get_subscriptions_info_by_topic(topic) if i.node_name == self._base_name
        ]
        stamp = self._stamps_ns.get(topic)
        age_s = (self._node.get_clock().now().nanoseconds - stamp) / NANOSECONDS if stamp else None
        return TopicFacts(
            name=topic,
            type=type_name,
            publishers=tuple(map(_describe, publishers)),
            node=", ".join(map(_describe, ours)),
            incompatible="; ".join(_incompatibilities(publishers, ours)),
            rate_hz=self._tallies[topic].rate_hz,
            age_s=age_s,
        )

    def _state_gate(self, state: str) -> Gate:
        steps = {"unconfigured": "configure", "inactive": "activate"}
        if state == "active":
            return Gate("state", state)
        reason = (
            f"; it says: {self._status.message}"
            if self._status and self._status.level != DiagnosticStatus.OK
            else ""
        )
        if state in steps:
            return Gate("state", f"{state}{reason}", f"ros2 lifecycle set {self._name} {steps[state]}")
        return Gate("state", f"{state or 'no answer'}{reason}", "look at the node's log, and start it again")

    def _input_gates(self, facts: Sequence[TopicFacts]) -> list[Gate]:
        gates = [self._input_gate("camera", [f for f in facts if f.type in CAMERA], CAMERA)]
        gates.append(self._input_gate("joint states", [f for f in facts if f.type in JOINTS], JOINTS))
        plans = [f for f in facts if f.type in PLAN]
        if any(plan.publishers for plan in plans):
            gates.append(self._input_gate("plan", plans, PLAN))
        else:
            gates.append(Gate("plan", "nobody publishes one: predictions are for holding still"))
        return gates

    def _input_gate(self, name: str, facts: Sequence[TopicFacts], types: Sequence[str]) -> Gate:
        if not facts:
            return Gate(name, "the node does not subscribe yet", "configure the node first")
        topic = facts[0]
        if not topic.publishers:
            others = [
                t
                for t, found in self._node.get_topic_names_and_types()
                if found[0] in types and t != topic.name
            ]
            candidates = f"; topics of that kind: {', '.join(sorted(others))}" if others else ""
            fix = f"start its publisher, or remap the node's input to another topic{candidates}"
            return Gate(name, f"nobody publishes {topic.name} ({topic.type})", fix)
        if topic.incompatible:
            return Gate(
                name,
                f"{topic.name}: {topic.incompatible}",
                f"set qos_overrides.{topic.name}.subscription, or the publisher's QoS",
            )
        if not topic.rate_hz:
            return Gate(
                name,
                f"{topic.name}: it has a publisher, but nothing came",
                "check the driver and the network",
            )
        return Gate(name, f"{topic.name}: {topic.rate_hz:.1f} Hz")

    def _health_gate(self) -> Gate:
        if self._status is None:
            return Gate(
                "diagnostics", "none received", "look at the node's log: it publishes them in every state"
            )
        level = _LEVELS.get(self._status.level, "STALE")
        is_ok = self._status.level == DiagnosticStatus.OK
        return Gate("diagnostics", level, "" if is_ok else self._status.message)

    def _output_gate(self, facts: Sequence[TopicFacts]) -> Gate:
        rate_hz = next(f.rate_hz for f in facts if f.name == self._future_topic)
        fix = "" if rate_hz else "mend what is named above; if nothing is, look at the node's log"
        return Gate("predictions", f"{self._future_topic}: {rate_hz:.1f} Hz", fix)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(self._name + ":"):
                self._status = status

    def _spin_until(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            if time.monotonic() > deadline_s:
                return False
            self._executor.spin_once(timeout_sec=_SPIN_S)
        return True


def _describe(endpoint: TopicEndpointInfo) -> str:
    profile = endpoint.qos_profile
    reliability, durability = profile.reliability.name.lower(), profile.durability.name.lower()
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name} ({reliability}, {durability})"


def _incompatibilities(
    publishers: Sequence[TopicEndpointInfo], subscriptions: Sequence[TopicEndpointInfo]
) -> list[str]:
    reasons = []
    for publisher in publishers:
        for subscription in subscriptions:
            compatibility, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
            if compatibility is QoSCompatibility.ERROR:
                reasons.append(f"{_describe(publisher)} does not match the node: {reason}")
    return reasons
