"""Quality of service of every topic. Functions, because rclpy writes overrides from parameters into the profile."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy


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
