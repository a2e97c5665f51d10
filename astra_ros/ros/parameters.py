"""The node's parameters: declared once, here, with what `ros2 param describe` shows.

docs/ros_interface.md and config/world_model.yaml repeat this table; tests/ros/test_documents.py compares them.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, fields

from astra_ros.actions.velocities import VELOCITY_MESSAGES
from astra_ros.backends.manifest import PRECISIONS, Manifest
from astra_ros.ros.declaration import ConfigError, Limits, parameter, require_choices

COMMAND_TYPES = ("auto", *(name for name, kind in VELOCITY_MESSAGES.items() if not kind.is_measured))
MAX_CANDIDATES = 4096  # the bound of the interfaces: DDS sends no request that has more
USUAL_HORIZON_S = 2.0  # what a planner of motions looks ahead, and a recorded plan usually covers


@dataclass(frozen=True)
class NodeConfig:
    """One field per parameter, same name."""

    bundle: str = parameter(
        "", "Folder of the model's bundle; empty: the one that comes with the package.", is_live=False
    )
    backend: str = parameter(
        "auto", "What runs the network: auto (the first that can here) or its name.", is_live=False
    )
    precision: str = parameter(
        "auto",
        "Arithmetic of the network: auto (the fastest that answers right, timed at configure) or its name.",
        Limits(choices=("auto", *PRECISIONS)),
        is_live=False,
    )
    num_threads: int = parameter(2, "CPU threads of the network.", Limits(1, 256), is_live=False)
    image_transport: str = parameter(
        "raw",
        "raw: subscribe to image; compressed: to image/compressed.",
        Limits(choices=("raw", "compressed")),
        is_live=False,
    )
    joint_prefix: str = parameter(
        "",
        "Put before the names of the model's joints, in all topics: left_ of left_panda_joint1.",
        is_live=False,
    )
    odom_type: str = parameter(
        "nav_msgs/msg/Odometry",
        "Of a model of a vehicle: type of the topic odom; without odometry the commands' topic and type.",
        Limits(choices=tuple(VELOCITY_MESSAGES)),
        is_live=False,
    )
    cmd_vel_type: str = parameter(
        "auto",
        "Of a model of a vehicle: type of the topic cmd_vel; auto: odom_type where that is a command's, else geometry_msgs/msg/TwistStamped.",
        Limits(choices=COMMAND_TYPES),
        is_live=False,
    )
    horizon: int = parameter(
        0,
        "Frames to predict; 0: two seconds, or the model's longest if that is shorter.",
        Limits(0, 1024),
    )
    seed: int = parameter(0, "Seed of the noise that every prediction starts from.", Limits(0, 2**31 - 1))
    max_observation_age_s: float = parameter(
        0.5, "Pictures older than this on the node's clock are not used [s].", Limits(0.001, 3600.0)
    )
    future_tolerance_s: float = parameter(
        0.1, "Pictures stamped further ahead of the node's clock are not used [s].", Limits(0.0, 3600.0)
    )
    sync_slop_s: float = parameter(
        0.05,
        "Largest distance of a picture to the nearest joint state or odometry, and to those of the model's other cameras [s].",
        Limits(0.0, 10.0),
    )
    plan_timeout_s: float = parameter(
        2.0,
        "A plan without stamp that was received longer ago is not used: the prediction is for holding still, or driving on [s].",
        Limits(0.0, 3600.0),
    )
    max_rate_hz: float = parameter(
        0.0,
        "Most predictions per second, by the pictures' stamps; those between enter the history. 0: one per picture.",
        Limits(0.0, 1000.0),
    )
    predict_always: bool = parameter(
        default=False,
        description="Predict also while nobody subscribes to predictions, their preview or their errors.",
    )
    compress_frames: bool = parameter(
        default=True, description="Publish predicted frames as JPEG instead of raw."
    )
    jpeg_quality: int = parameter(90, "Quality of these JPEGs.", Limits(1, 100))
    preview_scale: int = parameter(1, "Enlargement of the frames in the preview picture.", Limits(1, 16))
    preview_always_on: bool = parameter(
        default=False, description="Draw the preview also when nobody subscribes to it."
    )
    goal_distance: str = parameter(
        "codec",
        "What goals are compared by: codec, perceptual, or a plug-in of the entry points astra_ros.goal_distance.",
        is_live=False,
    )
    goal_encoder: str = parameter(
        "",
        "File of the network of goal_distance perceptual (python -m export.perceptual, in a clone).",
        is_live=False,
    )
    goal_frames: int = parameter(
        3,
        "Frames at the end of a plan whose mean goal distance is scored: a goal is to be reached and kept.",
        Limits(1, 1024),
    )
    uncertainty_samples: int = parameter(
        1,
        "Futures of one plan, each from other noise, whose spread is its uncertainty; 1: none.",
        Limits(1, 64),
    )
    uncertainty_weight: float = parameter(
        0.0, "Lambda in score = -goal distance - lambda * uncertainty.", Limits(0.0, 1e6)
    )
    ranking_steps: int = parameter(
        0,
        "Denoising steps that rank candidates; futures that are returned get all. 0: all, 1: fastest.",
        Limits(0, 64),
    )
    prepare_candidates: bool = parameter(
        default=False,
        description="Open and check the graphs for candidates at configure, not at the first question.",
        is_live=False,
    )
    preemption: str = parameter(
        "queue",
        "A question that comes while another is answered waits, ends that one, or is refused as busy.",
        Limits(choices=("queue", "preempt", "reject")),
    )
    max_candidates: int = parameter(256, "Most candidates of one question.", Limits(1, MAX_CANDIDATES))
    max_futures: int = parameter(16, "Most futures that one question may have returned.", Limits(0, 1024))


_ALL = frozenset(one.name for one in fields(NodeConfig))


def require_valid(config: NodeConfig, names: Set[str] = _ALL) -> None:
    """Raises ConfigError. names: only these parameters and the rules that they take part in.

    So each of several wrong ones can be mended, whatever the others are.
    """
    require_choices(config, names)
    weight, samples, steps = config.uncertainty_weight, config.uncertainty_samples, config.ranking_steps
    if names & {"uncertainty_weight", "uncertainty_samples"} and weight and samples == 1:
        raise ConfigError(
            f"uncertainty_weight: expected 0 without uncertainty, found {weight:g}; set uncertainty_samples:=4 first"
        )
    if names & {"uncertainty_weight", "ranking_steps"} and weight and steps:
        raise ConfigError(
            f"ranking_steps: expected 0 where uncertainty is part of the score, found {steps}; an"
            " uncertainty is that of all steps: set ranking_steps:=0 or uncertainty_weight:=0.0"
        )


def require_live(before: NodeConfig, after: NodeConfig) -> None:
    """Raises ConfigError when a parameter that only configure reads would change."""
    for one in fields(NodeConfig):
        if not one.metadata["is_live"] and getattr(before, one.name) != getattr(after, one.name):
            raise ConfigError(
                f"{one.name}: expected no change while the node is configured, found"
                f" {getattr(after, one.name)!r}; deactivate and clean up first (ros2 lifecycle set NODE cleanup)"
            )


def why_uncalibrated(config: NodeConfig, manifest: Manifest, precision: str) -> str:
    """One line where a calibrated bundle's expected errors and interval are not for so many samples, or what runs; empty: they are."""
    found, trust = config.uncertainty_samples, manifest.trust_for(precision)
    if trust is None or found == 1:
        return ""
    if not trust.is_for(precision):
        return (
            f"precision: expected one that errs as {trust.precision}, in which the model's expected errors were fitted, found {precision};"
            f" uncertainties are bare spreads, without an interval: set precision:={trust.precision}, or fit the bundle anew"
            f" (python -m export.calibrate --precision {precision})"
        )
    if found == trust.num_samples:
        return ""
    return (
        f"uncertainty_samples: expected {trust.num_samples}, which the model's expected errors were fitted to, found {found}; uncertainties"
        f" are bare spreads, without an interval: set uncertainty_samples:={trust.num_samples}, or fit the bundle anew"
        f" (python -m export.calibrate --samples {found})"
    )


def resolve_horizon(config: NodeConfig, manifest: Manifest) -> int:
    """Frames to predict. Raises ConfigError for more than the model can."""
    if config.horizon > manifest.max_horizon:
        raise ConfigError(
            f"horizon: expected at most {manifest.max_horizon} frames (max_horizon of model {manifest.model_id!r}),"
            f" found {config.horizon}; set horizon:={manifest.max_horizon}, or 0 for the model's usual one; export.to_onnx --chunks"
            " says how far a bundle goes"
        )
    usual = max(1, round(USUAL_HORIZON_S / manifest.action.step_dt))
    return config.horizon or min(usual, manifest.max_horizon)
