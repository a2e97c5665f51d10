"""The node's topics out. Created at configure, silent until active; published to from the worker's thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from astra_ros.backends.base import Backend
from astra_ros.msg import ModelInfo, PredictedFuture, PredictionError
from astra_ros.ros import qos
from astra_ros.ros.conversions import to_image
from astra_ros.ros.health import Timing
from astra_ros.ros.hindsight import Comparison
from astra_ros.ros.inbox import Frame
from astra_ros.ros.live import Forecast
from astra_ros.ros.messages import model_info, predicted_future, prediction_error
from astra_ros.ros.parameters import NodeConfig
from astra_ros.ros.preview import Caption, contact_sheet
from astra_ros.ros.stamps import to_duration, to_time


class Outputs:
    """The publishers of one configuration."""

    def __init__(self, node: LifecycleNode, backend: Backend, config: NodeConfig) -> None:
        """Raises ConfigError, and leaves nothing behind then."""
        self._node = node
        self._backend = backend
        with ExitStack() as undo:
            self._future = self._publisher(PredictedFuture, "~/predicted_future", undo)
            self._preview = self._publisher(Image, "~/preview/image", undo)
            self._error = self._publisher(PredictionError, "~/prediction_error", undo)
            # Not a lifecycle publisher: whoever wants to prepare requests may know the model before it is active.
            self._info = node.create_publisher(ModelInfo, "~/model_info", qos.latched())
            undo.callback(node.destroy_publisher, self._info)
            self._loaded_ns = node.get_clock().now().nanoseconds
            self._announced: ModelInfo | None = None
            self.announce(config)
            self._entities = undo.pop_all()

    def announce(self, config: NodeConfig) -> None:
        """What is loaded: once, and again when a change of parameters changes what is said of it."""
        info = model_info(self._backend, config, self._loaded_ns)
        if info != self._announced:
            self._announced = info
            self._info.publish(info)

    def is_watched(self, config: NodeConfig) -> bool:
        """Somebody takes something that is made of predictions, or shall find them made."""
        publishers = (self._future, self._preview, self._error)
        return (
            config.predict_always
            or config.preview_always_on
            or any(one.get_subscription_count() for one in publishers)
        )

    def publish(self, forecast: Forecast, config: NodeConfig) -> Timing:
        """Send a prediction, then its picture if somebody looks at it. Returns the final timing."""
        message = predicted_future(forecast, self._backend, config)
        timing = replace(forecast.timing, latency=time.monotonic() - forecast.frame.received_s)
        message.total_latency = to_duration(timing.latency)
        self._future.publish(message)
        if config.preview_always_on or self._preview.get_subscription_count():
            self._publish_preview(forecast, config)
        return timing

    def publish_comparisons(self, picture: Frame, comparisons: Sequence[Comparison]) -> None:
        """What a picture says about the predictions of its time."""
        self._error.publish(prediction_error(picture, comparisons))

    def destroy(self) -> None:
        self._entities.close()

    def _publisher(self, message_type: type, topic: str, undo: ExitStack) -> LifecyclePublisher:
        profile = qos.newest()
        options = qos.overridable(self._node, topic, "publisher", profile)
        publisher = self._node.create_lifecycle_publisher(
            message_type, topic, profile, qos_overriding_options=options
        )
        undo.callback(self._node.destroy_lifecycle_publisher, publisher)
        return publisher

    def _publish_preview(self, forecast: Forecast, config: NodeConfig) -> None:
        manifest = self._backend.manifest
        is_hold_still = forecast.commands.is_hold_still
        goes_on = "holds still" if manifest.action.representation == "joint_position" else "drives on"
        caption = Caption(
            title=f"if the robot {goes_on} (no plan)" if is_hold_still else "if the robot follows its plan",
            details=f"{manifest.model_id}, {1e3 * forecast.timing.latency:.0f} ms",
            is_warning=is_hold_still,
        )
        frames = forecast.prediction.frames
        sheet = contact_sheet(
            forecast.frame.pixels, frames, manifest.action.step_dt, caption, config.preview_scale
        )
        # The observation's stamp, not a future one: viewers ask tf for the camera at this time.
        header = Header(stamp=to_time(forecast.frame.stamp_ns), frame_id=forecast.frame.frame_id)
        self._preview.publish(to_image(sheet, header))
