"""The other process of test_interfaces.py: sends back every message, and answers the service and the action."""

from __future__ import annotations

from typing import Any

import rclpy
from rclpy.action import ActionServer
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from astra_ros.action import PredictFutures
from astra_ros.msg import ActionSequence, Goal, ModelInfo, PredictedFuture
from astra_ros.srv import EvaluateActions
from tests.package.filled_messages import filled

# Kept for whoever is discovered late, so that nothing depends on who finds whom first.
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
MESSAGES = (ActionSequence, Goal, ModelInfo, PredictedFuture)


def answer(request: EvaluateActions.Request, _response: Any) -> EvaluateActions.Response:
    response: EvaluateActions.Response = filled(EvaluateActions.Response)
    response.message = "as sent" if request == filled(EvaluateActions.Request) else "changed on the way"
    return response


def carry_out(goal: Any) -> PredictFutures.Result:
    goal.publish_feedback(filled(PredictFutures.Feedback))
    goal.succeed()
    result: PredictFutures.Result = filled(PredictFutures.Result)
    result.message = "as sent" if goal.request == filled(PredictFutures.Goal) else "changed on the way"
    return result


def main() -> None:
    rclpy.init()
    node = Node("echo")
    for message_class in MESSAGES:
        back = node.create_publisher(message_class, f"back/{message_class.__name__}", LATCHED)
        node.create_subscription(message_class, f"there/{message_class.__name__}", back.publish, LATCHED)
    node.create_service(EvaluateActions, "evaluate", answer)
    ActionServer(node, PredictFutures, "predict", carry_out)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
