"""Looks at a running world model from outside: what it needs, what it gets, and the first thing that is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from threading import Event

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.srv import GetState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSCompatibility, qos_check_compatible
from rclpy.topic_endpoint_info import TopicEndpointInfo

from astra_ros.ros import gates
from astra_ros.ros.bag_recorder import TopicTally, subscription_qos
from astra_ros.ros.gates import CAMERA, COMMANDS, PLAN, ROBOT, Gate, Inspection, TopicFacts
from astra_ros.ros.message_types import message_class, stamp_ns
from astra_ros.ros.session import ros_session
from astra_ros.types import NANOSECONDS

DIAGNOSTICS_TOPIC = "/diagnostics"
_SPIN_S = 0.05
_DISCOVERY_S = 5.0


def inspect_node(name: str, seconds: float) -> Inspection:
    """Look at the node of that full name, for `seconds` once it is found."""
    with ros_session() as stop:
        node = rclpy.create_node("astra_doctor")
        return _Inspector(node, name, stop).inspect(seconds)


class _Inspector:
    """One look at one node, which raises KeyboardInterrupt once `stop` is set."""

    def __init__(self, node: Node, name: str, stop: Event) -> None:
        self._node, self._name, self._stop = node, name, stop
        self._namespace, _, self._base_name = name.rpartition("/")
        self._namespace = self._namespace or "/"
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._tallies: dict[str, TopicTally] = {}
        self._stamps_ns: dict[str, int | None] = {}
        self._status: DiagnosticStatus | None = None
        node.create_subscription(DiagnosticArray, DIAGNOSTICS_TOPIC, self._on_diagnostics, 10)

    def inspect(self, seconds: float) -> Inspection:
        if not self._spin_until(self._is_running, _DISCOVERY_S):
            return Inspection(self._name, "", {}, (), (self._absent(),))
        state = self._state()
        topics = self._topics()
        for topic, type_name in topics.items():
            self._listen(topic, type_name)
        # Not before: who publishes it may be discovered later than the node.
        if self._node.count_publishers("/clock"):
            self._node.set_parameters([Parameter("use_sim_time", value=True)])
        self._spin_until(lambda: False, seconds)
        facts = tuple(self._facts(topic, type_name) for topic, type_name in topics.items())
        values = {value.key: value.value for value in self._status.values} if self._status else {}
        return Inspection(self._name, state, values, facts, self._gates(state, facts))

    def _gates(self, state: str, facts: Sequence[TopicFacts]) -> tuple[Gate, ...]:
        by_kind = {kind: [fact for fact in facts if fact.type in kind] for kind in (CAMERA, PLAN)}
        told = (*ROBOT, *COMMANDS)
        return (
            gates.state_gate(self._name, state, self._status),
            *(
                gates.input_gate("camera", one, self._topics_of(CAMERA))
                for one in (by_kind[CAMERA] or (None,))
            ),
            gates.robot_gate([fact for fact in facts if fact.type in told], self._topics_of(told)),
            gates.plan_gate(by_kind[PLAN]),
            gates.health_gate(self._status),
            gates.output_gate(next(f for f in facts if f.name == self._future_topic)),
        )

    def _topics_of(self, types: Sequence[str]) -> dict[str, str]:
        """Topics of those types that somebody else than the node publishes, with their types."""
        return {
            topic: found[0]
            for topic, found in sorted(self._node.get_topic_names_and_types())
            if found[0] in types
            and not all(map(self._is_looked_at, self._node.get_publishers_info_by_topic(topic)))
        }

    def _is_running(self) -> bool:
        return (self._base_name, self._namespace) in self._node.get_node_names_and_namespaces()

    def _absent(self) -> Gate:
        nodes = {f"{ns.rstrip('/')}/{name}" for name, ns in self._node.get_node_names_and_namespaces()}
        others = sorted(nodes - {self._node.get_fully_qualified_name()})
        return gates.absent_gate(self._name, others, os.environ.get("ROS_DOMAIN_ID", "0"))

    def _state(self) -> str:
        client = self._node.create_client(GetState, f"{self._name}/get_state")
        if not self._spin_until(client.service_is_ready, _DISCOVERY_S):
            return ""
        future = client.call_async(GetState.Request())
        return str(future.result().current_state.label) if self._spin_until(future.done, _DISCOVERY_S) else ""

    def _topics(self) -> dict[str, str]:
        """What the node consumes and its prediction, by topic."""
        read = self._node.get_subscriber_names_and_types_by_node(self._base_name, self._namespace)
        wanted = {topic: types[0] for topic, types in read if types[0] in (*CAMERA, *ROBOT, *PLAN)}
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
        subscriptions = self._node.get_subscriptions_info_by_topic(topic)
        ours = [one for one in subscriptions if self._is_looked_at(one)]
        stamp = self._stamps_ns.get(topic)
        age_s = (self._node.get_clock().now().nanoseconds - stamp) / NANOSECONDS if stamp else None
        return TopicFacts(
            name=topic,
            type=type_name,
            publishers=tuple(map(_describe, publishers)),
            node=", ".join(map(_describe, ours)),
            incompatible="; ".join(_incompatibilities(publishers, ours)),
            other_types=tuple(sorted({one.topic_type for one in publishers} - {type_name})),
            messages=self._tallies[topic].messages,
            rate_hz=self._tallies[topic].rate_hz,
            age_s=age_s,
        )

    def _is_looked_at(self, endpoint: TopicEndpointInfo) -> bool:
        return (endpoint.node_name, endpoint.node_namespace) == (self._base_name, self._namespace)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(self._name + ":"):
                self._status = status

    def _spin_until(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            if self._stop.is_set():
                raise KeyboardInterrupt
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
            if publisher.topic_type != subscription.topic_type:
                ours = subscription.topic_type
                reasons.append(
                    f"{_describe(publisher)} sends {publisher.topic_type}, and the node takes {ours}"
                )
                continue
            compatibility, reason = qos_check_compatible(publisher.qos_profile, subscription.qos_profile)
            if compatibility == QoSCompatibility.ERROR:  # not the same object: it is made in C++ anew
                reasons.append(f"{_describe(publisher)} does not match the node: {reason}")
    return reasons
