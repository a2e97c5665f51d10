"""Quality of service of every topic. Functions, because rclpy writes overrides from parameters into the profile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

from astra_ros.ros.declaration import ConfigError

# What rclpy lets parameters override by default.
OVERRIDABLE = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY)


def sensor(depth: int = 1) -> QoSProfile:
    """Newest wins, nothing is sent twice: cameras and joint states."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT)


def newest() -> QoSProfile:
    """Reliable, so that subscribers of either kind (rviz asks for reliable) can take it."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)


def commands() -> QoSProfile:
    """Every one counts: plans that follow each other may be sent in one go."""
    return QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """The last message is kept for whoever subscribes later."""
    return QoSProfile(
        depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
    )


def overridable(
    node: Node, topic: str, entity: str, profile: QoSProfile, kinds: Iterable[QoSPolicyKind] = OVERRIDABLE
) -> QoSOverridingOptions:
    """For a publisher or subscription (entity) with this profile, which parameters may override.

    Raises ConfigError for a value that is none, of which rclpy would name neither the parameter nor what it may be.
    """
    for kind in kinds:
        policy = kind.name.lower()
        name = f"qos_overrides.{node.resolve_topic_name(topic)}.{entity}.{policy}"
        _require_policy(node, name, getattr(profile, policy))
    return QoSOverridingOptions(kinds)


def _require_policy(node: Node, name: str, default: Any) -> None:
    """Declares the parameter, as rclpy would, if need be. default: a policy's, or the depth. Raises ConfigError."""
    is_depth = not hasattr(default, "short_key")
    choices = [] if is_depth else [key for key in default.short_keys() if key != "unknown"]
    expected = "a whole number of 0 or more" if is_depth else f"one of {', '.join(choices)}"
    if not node.has_parameter(name):
        # Of any type: one that is wrong is refused below, in one line.
        descriptor = ParameterDescriptor(
            read_only=True,
            dynamic_typing=True,
            additional_constraints=f"Takes effect at the start. {expected}",
        )
        node.declare_parameter(name, default if is_depth else default.short_key, descriptor)
    found = node.get_parameter(name).value
    is_sound = type(found) is int and found >= 0 if is_depth else str(found).lower() in choices
    if not is_sound:
        raise ConfigError(
            f"{name}: expected {expected}, found {found!r}; correct it in the params_file and start the node again"
        )
