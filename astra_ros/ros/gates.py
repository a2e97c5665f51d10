"""The conditions between a camera and a prediction, in the order of the data flow, and what mends each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus

from astra_ros.actions.velocities import VELOCITY_MESSAGES

_COMPRESSED = "sensor_msgs/msg/CompressedImage"
CAMERA = ("sensor_msgs/msg/Image", _COMPRESSED)
COMMANDS = tuple(name for name, kind in VELOCITY_MESSAGES.items() if not kind.is_measured)
ROBOT = ("sensor_msgs/msg/JointState", "nav_msgs/msg/Odometry")
PLAN = ("astra_ros/msg/ActionSequence", "trajectory_msgs/msg/JointTrajectory", *COMMANDS)
_LEVELS = {DiagnosticStatus.OK: "OK", DiagnosticStatus.WARN: "WARN", DiagnosticStatus.ERROR: "ERROR"}
_NEXT_STEP = {"unconfigured": "configure", "inactive": "activate"}


@dataclass(frozen=True)
class Gate:
    """One condition of the way from a camera to a prediction. fix: what to do; empty when it is met."""

    name: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class TopicFacts:
    """A topic of the node, and what was received on it meanwhile.

    publishers, node: names with QoS. incompatible: why a publisher and the node do not match; empty when they do.
    other_types: of publishers, that the node does not take there.
    rate_hz: 0 before the second message. age_s: of the last message, by its header stamp; None without one.
    """

    name: str
    type: str
    publishers: tuple[str, ...]
    node: str
    incompatible: str
    messages: int
    rate_hz: float
    age_s: float | None
    other_types: tuple[str, ...] = ()

    @property
    def flow(self) -> str:
        """For people."""
        return "1 message" if self.messages == 1 else f"{self.rate_hz:.1f} Hz"


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


def absent_gate(node: str, others: Sequence[str], domain: str) -> Gate:
    """The node is not in the graph. others: full names of those that are."""
    fix = (
        f"start it: ros2 launch astra_ros world_model.launch.py; if it runs, use its ROS_DOMAIN_ID (here {domain})"
        " or give its full name with --node"
    )
    return Gate("node", f"{node} is not there; seen: {', '.join(others) or 'no node at all'}", fix)


def state_gate(node: str, state: str, status: DiagnosticStatus | None) -> Gate:
    """The lifecycle state; empty when the node did not answer."""
    if state == "active":
        return Gate("state", state)
    reason = f"; it says: {status.message}" if status and status.level != DiagnosticStatus.OK else ""
    if state in _NEXT_STEP:
        return Gate("state", f"{state}{reason}", f"ros2 lifecycle set {node} {_NEXT_STEP[state]}")
    return Gate("state", f"{state or 'no answer'}{reason}", "look at the node's log, and start it again")


def robot_gate(topics: Sequence[TopicFacts], others: Mapping[str, str]) -> Gate:
    """What the robot tells of itself. topics, others: of every type on which it may; commands may stand for odometry."""
    told = sorted(topics, key=lambda topic: (topic.type in COMMANDS, not topic.publishers))
    topic = told[0] if told else None
    name = "joint states" if topic is None or topic.type == ROBOT[0] else "velocity"
    same = {one: kind for one, kind in others.items() if topic and kind == topic.type}
    gate = input_gate(name, topic, same)
    is_quiet = (
        topic and topic.type in COMMANDS and topic.publishers and not (topic.incompatible or topic.messages)
    )
    return Gate(name, f"{topic.name}: nobody commands anything") if topic and is_quiet else gate


def input_gate(name: str, topic: TopicFacts | None, candidates: Mapping[str, str]) -> Gate:
    """One subscription of the node. candidates: other topics of the same kind, and their types."""
    if topic is None:
        return Gate(name, "the node does not subscribe yet", "configure the node first")
    if not topic.publishers:
        return Gate(name, f"nobody publishes {topic.name} ({topic.type})", _fix_of_absence(topic, candidates))
    if topic.incompatible:
        qos = f"start the node with qos_overrides.{topic.name}.subscription.* in its params_file, or change the publisher's QoS"
        fix = _fix_of_type(topic) if topic.other_types else qos
        return Gate(name, f"{topic.name}: {topic.incompatible}", fix)
    if not topic.messages:
        return Gate(
            name, f"{topic.name}: it has a publisher, but nothing came", "check the driver and the network"
        )
    return Gate(name, f"{topic.name}: {topic.flow}")


def _fix_of_type(topic: TopicFacts) -> str:
    """Of a topic whose publisher sends what the node does not take."""
    other = topic.other_types[0]
    if topic.type in CAMERA and other in CAMERA:
        transport = "compressed" if other == _COMPRESSED else "raw"
        return f"set image_transport:={transport}, and remap image:= to the topic without /compressed"
    if topic.type in VELOCITY_MESSAGES and other in VELOCITY_MESSAGES:
        return f"set odom_type or cmd_vel_type, whichever is of that topic, to {other}"
    return "remap the node's input to another topic, or the publisher's"


def _fix_of_absence(topic: TopicFacts, candidates: Mapping[str, str]) -> str:
    same = [name for name, type_name in candidates.items() if type_name == topic.type]
    if not same and candidates:
        transport = "raw" if topic.type == _COMPRESSED else "compressed"
        return (
            f"start its publisher, or set image_transport:={transport} for {', '.join(candidates)}, and remap image:= to it"
            " (without /compressed)"
        )
    others = f"; topics of that kind: {', '.join(same)}" if same else ""
    return f"start its publisher, or remap the node's input to another topic{others}"


def plan_gate(topics: Sequence[TopicFacts]) -> Gate:
    """Plans may be rare or missing; a publisher of them must match. topics: all that a plan may come on."""
    published = [topic for topic in topics if topic.publishers]
    if not published:
        return Gate("plan", "nobody publishes one: predictions are for holding still, or driving on")
    for topic in published:
        if topic.incompatible:
            return input_gate("plan", topic, {})
    return Gate("plan", ", ".join(f"{topic.name}: {topic.flow}" for topic in published))


def health_gate(status: DiagnosticStatus | None) -> Gate:
    """What the node says about itself."""
    if status is None:
        return Gate(
            "diagnostics", "none received", "look at the node's log: it publishes them in every state"
        )
    is_ok = status.level == DiagnosticStatus.OK
    return Gate("diagnostics", _LEVELS.get(status.level, "STALE"), "" if is_ok else status.message)


def output_gate(topic: TopicFacts) -> Gate:
    """Whether predictions come."""
    fix = "" if topic.messages else "mend what is named above; if nothing is, look at the node's log"
    return Gate("predictions", f"{topic.name}: {topic.flow}", fix)
