"""The node's parameters: declared once, here, with what `ros2 param describe` shows.

docs/ros_interface.md and config/world_model.yaml repeat this table; tests/ros/test_documents.py compares them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field as DataclassField
from dataclasses import dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter

from astra_ros.backends.factory import PRECISIONS
from astra_ros.backends.manifest import Manifest

USUAL_HORIZON_S = 2.0  # what a planner of arm motions looks ahead, and a recorded plan usually covers


class ConfigError(ValueError):
    """Parameters that cannot be. One line: name, expected, found."""


@dataclass(frozen=True)
class Limits:
    """What a parameter may be, beside its type.

    lowest, highest: inclusive range. choices: the only texts.
    """

    lowest: float | None = None
    highest: float | None = None
    choices: tuple[str, ...] = ()


def _parameter(default: Any, description: str, limits: Limits = Limits(), *, is_live: bool = True) -> Any:
    """is_live: takes effect at the next prediction; otherwise at the next configure, and is refused in between."""
    return field(default=default, metadata={"description": description, "limits": limits, "is_live": is_live})


@dataclass(frozen=True)
class NodeConfig:
    """One field per parameter, same name."""

    bundle: str = _parameter(
        "", "Folder of the model's bundle; empty: the one that comes with the package.", is_live=False
    )
    backend: str = _parameter(
        "auto", "What runs the network: auto (the first that can here) or its name.", is_live=False
    )
    precision: str = _parameter(
        "auto",
        "Arithmetic of the network: auto (the fastest that answers right, timed at configure) or its name.",
        Limits(choices=PRECISIONS),
        is_live=False,
    )
    num_threads: int = _parameter(2, "CPU threads of the network.", Limits(1, 256), is_live=False)
    image_transport: str = _parameter(
        "raw",
        "raw: subscribe to image; compressed: to image/compressed.",
        Limits(choices=("raw", "compressed")),
        is_live=False,
    )
    horizon: int = _parameter(
        0,
        "Frames to predict; 0: two seconds, or the model's longest if that is shorter.",
        Limits(0, 1024),
    )
    seed: int = _parameter(0, "Seed of the noise that every prediction starts from.", Limits(0, 2**31 - 1))
    max_observation_age_s: float = _parameter(
        0.5, "Pictures older than this on the node's clock are not used [s].", Limits(0.001, 3600.0)
    )
    future_tolerance_s: float = _parameter(
        0.1, "Pictures stamped further ahead of the node's clock are not used [s].", Limits(0.0, 3600.0)
    )
    sync_slop_s: float = _parameter(
        0.05, "Largest distance of a picture to the nearest joint state [s].", Limits(0.0, 10.0)
    )
    plan_timeout_s: float = _parameter(
        2.0,
        "A plan received longer ago is not used: the prediction is for holding still [s].",
        Limits(0.0, 3600.0),
    )
    compress_frames: bool = _parameter(
        default=True, description="Publish predicted frames as JPEG instead of raw."
    )
    jpeg_quality: int = _parameter(90, "Quality of these JPEGs.", Limits(1, 100))
    preview_scale: int = _parameter(1, "Enlargement of the frames in the preview picture.", Limits(1, 16))
    preview_always_on: bool = _parameter(
        default=False, description="Draw the preview also when nobody subscribes to it."
    )
    goal_distance: str = _parameter(
        "codec",
        "What goals are compared by: codec, or a plug-in of the entry points astra_ros.goal_distance.",
        is_live=False,
    )
    uncertainty_samples: int = _parameter(
        1,
        "Futures of one plan, each from other noise, whose spread is its uncertainty; 1: none.",
        Limits(1, 64),
    )
    uncertainty_weight: float = _parameter(
        0.0, "Lambda in score = -final goal distance - lambda * uncertainty.", Limits(0.0, 1e6)
    )
    preemption: str = _parameter(
        "queue",
        "A question that comes while another is answered waits, ends that one, or is refused as busy.",
        Limits(choices=("queue", "preempt", "reject")),
    )
    max_candidates: int = _parameter(256, "Most candidates of one question.", Limits(1, 65536))
    max_futures: int = _parameter(16, "Most futures that one question may have returned.", Limits(0, 1024))

    def __post_init__(self) -> None:
        for parameter in fields(self):
            choices, found = _limits(parameter).choices, getattr(self, parameter.name)
            if choices and found not in choices:
                raise ConfigError(f"{parameter.name}: expected one of {', '.join(choices)}, found {found!r}")
        if self.uncertainty_weight and self.uncertainty_samples == 1:
            raise ConfigError(
                f"uncertainty_weight: expected 0 without uncertainty, found {self.uncertainty_weight:g}; set"
                " uncertainty_samples:=4 first"
            )


def declare_parameters(node: Node) -> None:
    """With descriptors, so that rclpy refuses a wrong type or a number out of range by itself."""
    for parameter in fields(NodeConfig):
        node.declare_parameter(parameter.name, parameter.default, _descriptor(parameter))


def read_config(node: Node, changes: Sequence[Parameter] = ()) -> NodeConfig:
    """The node's configuration, or what it would be after changes. Raises ConfigError."""
    names = [parameter.name for parameter in fields(NodeConfig)]
    values = {name: node.get_parameter(name).value for name in names}
    return NodeConfig(**values | {change.name: change.value for change in changes if change.name in values})


def require_live(before: NodeConfig, after: NodeConfig) -> None:
    """Raises ConfigError when a parameter that only configure reads would change."""
    for parameter in fields(NodeConfig):
        if not parameter.metadata["is_live"] and getattr(before, parameter.name) != getattr(
            after, parameter.name
        ):
            raise ConfigError(
                f"{parameter.name}: expected no change while the node is configured, found"
                f" {getattr(after, parameter.name)!r}; deactivate and clean up first (ros2 lifecycle set NODE cleanup)"
            )


def resolve_horizon(config: NodeConfig, manifest: Manifest) -> int:
    """Frames to predict. Raises ConfigError for more than the model can."""
    if config.horizon > manifest.max_horizon:
        raise ConfigError(
            f"horizon: expected at most {manifest.max_horizon} frames (max_horizon of model {manifest.model_id!r}),"
            f" found {config.horizon}; set horizon:={manifest.max_horizon}, or 0 for the model's usual one"
        )
    usual = max(1, round(USUAL_HORIZON_S / manifest.action.step_dt))
    return config.horizon or min(usual, manifest.max_horizon)


def describe(limits: Limits) -> str:
    """For people: what a parameter may be."""
    if limits.choices:
        return " or ".join(limits.choices)
    return "" if limits.lowest is None else f"{limits.lowest:.10g} … {limits.highest:.10g}"


def _limits(parameter: DataclassField[Any]) -> Limits:
    metadata: Mapping[str, Any] = parameter.metadata
    limits: Limits = metadata["limits"]
    return limits


def _descriptor(parameter: DataclassField[Any]) -> ParameterDescriptor:
    limits, when = (
        _limits(parameter),
        "at the next prediction" if parameter.metadata["is_live"] else "at configure",
    )
    descriptor = ParameterDescriptor(
        description=parameter.metadata["description"],
        additional_constraints=f"Takes effect {when}. {describe(limits)}".strip(),
    )
    if isinstance(parameter.default, bool) or limits.lowest is None or limits.highest is None:
        return descriptor
    if isinstance(parameter.default, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(limits.lowest), to_value=int(limits.highest), step=1)
        ]
    else:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=limits.lowest, to_value=limits.highest)
        ]
    return descriptor
