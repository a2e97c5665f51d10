"""Subscriptions whose refusals and mismatches are counted, shown, and over with the next good message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.action.server import RCLError
from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSPolicyKind, QoSProfile, qos_policy_name_from_kind
from rclpy.subscription import Subscription

from astra_ros.ros import qos
from astra_ros.ros.declaration import ConfigError
from astra_ros.ros.health import INCOMPATIBLE_QOS, Health
from astra_ros.ros.refusal import Refusal

# And what a latched topic may have to give up.
_OVERRIDABLE = (*qos.OVERRIDABLE, QoSPolicyKind.DURABILITY)


class Listener:
    """Subscribes for a node, and reports to its health under the name of each source."""

    def __init__(self, node: LifecycleNode, health: Health) -> None:
        self._node, self._health = node, health
        self._subscriptions: list[Subscription] = []
        self._topics: dict[str, str] = {}  # by source

    def listen(
        self,
        source: str,
        message_type: type,
        topic: str,
        handle: Callable[[Any], bool],
        profile: QoSProfile,
    ) -> Subscription:
        """handle: whether the message counts as a good one; raises Refusal. Raises ConfigError."""
        full_topic = self._node.resolve_topic_name(topic)

        def on_message(message: Any) -> None:
            try:
                is_accepted = handle(message)
            except Refusal as refusal:
                self._health.refuse(source, Refusal(refusal.cause, f"{full_topic}: {refusal}"))
            else:
                if is_accepted:
                    self._health.accept(source)

        def on_incompatible_qos(event: QoSRequestedIncompatibleQoSInfo) -> None:
            # DDS tells of a publisher once.
            self._health.report(source, INCOMPATIBLE_QOS, _mismatch(full_topic, event), is_standing=True)

        options = qos.overridable(self._node, topic, "subscription", profile, _OVERRIDABLE)
        try:
            subscription: Subscription = self._node.create_subscription(
                message_type,
                topic,
                on_message,
                profile,
                event_callbacks=SubscriptionEventCallbacks(incompatible_qos=on_incompatible_qos),
                qos_overriding_options=options,
            )
        except RCLError as error:  # Fast DDS, for a second type on a topic
            kind = f"{message_type.__module__.split('.')[0]}/{message_type.__name__}"
            raise ConfigError(
                f"{source}: expected a topic of its own, or one type for both, found that {full_topic} cannot be subscribed to as"
                f" {kind} beside what is; remap it"
            ) from error
        self._subscriptions.append(subscription)
        self._topics[source] = full_topic
        return subscription

    def end_gone(self) -> None:
        """What stands against a topic ends with its last publisher: DDS tells of a mismatch, and of nothing more."""
        for source, topic in self._topics.items():
            if not self._node.count_publishers(topic):
                self._health.gone(source)

    def destroy(self) -> None:
        """All subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


def _mismatch(topic: str, event: QoSRequestedIncompatibleQoSInfo) -> str:
    policy = qos_policy_name_from_kind(event.last_policy_kind)
    return (
        f"{topic}: expected a publisher whose QoS matches, found one whose {policy} policy does not, so that nothing arrives;"
        f" start the node with qos_overrides.{topic}.subscription.{policy.lower()} in its params_file, or change the publisher"
    )
