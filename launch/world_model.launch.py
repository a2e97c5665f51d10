"""Starts the world model: `ros2 launch astra_ros world_model.launch.py`, or with `demo:=true` beside a recorded robot.

`ros2 launch astra_ros world_model.launch.py --show-args` lists what can be set.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import (
    EqualsSubstitution,
    IfElseSubstitution,
    LaunchConfiguration,
    PathJoinSubstitution,
)
from launch_ros.actions import LifecycleNode, LifecycleTransition, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from launch_ros.utilities import prefix_namespace
from lifecycle_msgs.msg import Transition

from launch import LaunchDescription

if TYPE_CHECKING:
    from launch import Action, LaunchContext, SomeSubstitutionsType

# Environment variables with the profile: of Fast DDS 2 (Jazzy) and 3 (Kilted and later).
FASTDDS_PROFILE = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def shared(*parts: str) -> PathJoinSubstitution:
    """Path of a file that is installed with the package."""
    return PathJoinSubstitution([FindPackageShare("astra_ros"), *parts])


# Name, default, description.
ARGUMENTS = (
    ("namespace", "", "Namespace of all nodes: the robot's name."),
    ("image", "image", "Topic of the camera, without /compressed."),
    ("image_2", "image_2", "Topic of a second camera, for a model that sees two."),
    ("image_3", "image_3", "And of a third."),
    ("joint_states", "joint_states", "Topic of the joint states."),
    ("odom", "odom", "Topic of the odometry, for a model of a vehicle."),
    ("cmd_vel", "cmd_vel", "Topic of the velocity commands, for a model of a vehicle."),
    ("action_sequence", "action_sequence", "Topic of the planned actions."),
    (
        "joint_trajectory",
        "joint_trajectory",
        "Topic of plans as trajectories: the arm controller's, if it is commanded by topic and not by action.",
    ),
    ("goal", "goal", "Topic of what shall be reached."),
    (
        "params_file",
        shared("config", "world_model.yaml"),
        "Parameters of the node world_model, under the key /**.",
    ),
    ("bundle", "", "Folder of the model; empty: as in params_file, which by default says the bundled one."),
    ("backend", "", "What runs the network; empty: as in params_file, which by default says the fastest."),
    (
        "image_transport",
        "",
        "raw, or compressed: the camera's topic with /compressed; empty: as in params_file.",
    ),
    (
        "precision",
        "",
        "Arithmetic of the network; empty: as in params_file, which by default says the fastest.",
    ),
    (
        "odom_type",
        "",
        "Message type of odom; empty: as in params_file, which by default says nav_msgs/msg/Odometry.",
    ),
    (
        "cmd_vel_type",
        "",
        "And of cmd_vel; empty: as in params_file, which by default says auto.",
    ),
    ("num_threads", "", "CPU threads of the network; empty: as in params_file."),
    ("horizon", "", "Frames to predict; empty: as in params_file."),
    (
        "uncertainty_samples",
        "",
        "Futures of one plan whose spread is its uncertainty; empty: as in params_file.",
    ),
    ("ranking_steps", "", "Denoising steps that rank candidates, 0: all; empty: as in params_file."),
    (
        "use_sim_time",
        "",
        "Take the node's time from /clock; empty: as in params_file or SetParameter, in the demo false.",
    ),
    ("autostart", "true", "Configure and activate the node."),
    ("log_level", "info", "debug, info, warn, error or fatal."),
    (
        "fastdds_profile",
        next(filter(None, map(os.environ.get, FASTDDS_PROFILE)), shared("config", "fastdds_shm.xml")),
        "Fast DDS profile; the shipped one makes room for large images in shared memory.",
    ),
    ("demo", "false", "Play a recording, compressed unless image_transport says raw, and open rviz."),
    (
        "bag",
        shared("examples", "demo_bag"),
        "Recording that the demo plays: a rosbag2 folder with the shipped one's topics.",
    ),
    ("rate", "1.0", "Speed of the demo's recording; 1 is real time, others need use_sim_time:=true."),
    ("rviz", LaunchConfiguration("demo"), "Open rviz on the preview."),
)
CHOICES = {
    "use_sim_time": ["", "true", "false"],
    **{switch: ["true", "false"] for switch in ("autostart", "demo", "rviz")},
}
# Of the node, by the names of their arguments.
TOPICS = (
    *("image", "image_2", "image_3", "joint_states", "odom", "cmd_vel"),
    *("action_sequence", "joint_trajectory", "goal"),
)
# These override the parameter of the same name when they are given.
OVERRIDES = (
    *("bundle", "backend", "image_transport", "precision", "num_threads", "horizon"),
    *("uncertainty_samples", "ranking_steps", "odom_type", "cmd_vel_type"),
)
# And of these, those that are numbers.
NUMBERS = ("num_threads", "horizon", "uncertainty_samples", "ranking_steps")
# What the demo plays of a recording: the camera, and of these what is there.
PLAYED = ("/camera/image_raw/compressed", "/joint_states", "/odom", "/cmd_vel", "/action_sequence")
IS_SIMULATED = EqualsSubstitution(LaunchConfiguration("use_sim_time"), "true")


def declare(name: str, default: SomeSubstitutionsType, description: str) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(
        name, default_value=default, description=description, choices=CHOICES.get(name)
    )


def clock(context: LaunchContext) -> list[dict[str, bool]]:
    """Parameters of a node; none when nothing was given. The demo's player knows no parameter file, so there all follow it."""
    given, demo = (LaunchConfiguration(name).perform(context) for name in ("use_sim_time", "demo"))
    given = given or ("false" if demo == "true" else "")
    return [{"use_sim_time": given == "true"}] if given else []


def typed(name: str, text: str) -> object:
    """Of a parameter that was given. A Python string reaches a node as a string, however it looks."""
    return yaml.safe_load(text) if name in NUMBERS else text


def world_model(context: LaunchContext) -> list[Action]:
    """The node, and what configures and activates it. Only values that were given may override the parameter file."""
    wanted = ("namespace", "autostart", "demo", *OVERRIDES)
    values = {name: LaunchConfiguration(name).perform(context) for name in wanted}
    if values["demo"] == "true":
        values["image_transport"] = values["image_transport"] or "compressed"  # as recorded
    node = LifecycleNode(
        package="astra_ros",
        executable="world_model",
        name="world_model",
        namespace=values["namespace"],
        parameters=[
            LaunchConfiguration("params_file"),
            {name: typed(name, values[name]) for name in OVERRIDES if values[name]},
            *clock(context),
        ],
        remappings=[(topic, LaunchConfiguration(topic)) for topic in TOPICS],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        additional_env=dict.fromkeys(FASTDDS_PROFILE, LaunchConfiguration("fastdds_profile")),
        output="screen",
    )
    # Transitions find their node by its full name, which also a launch file that includes this one has a part in.
    pushed = context.launch_configurations.get("ros_namespace")
    namespace = prefix_namespace(pushed, values["namespace"])
    start = LifecycleTransition(
        lifecycle_node_names=[prefix_namespace(namespace, "world_model")],
        transition_ids=[Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE],
    )
    return [node, start] if values["autostart"] == "true" else [node]


def played(bag: str) -> list[str]:
    """Without the plans where the recording's metadata name none: the node then predicts for "hold still"."""
    metadata = Path(bag, "metadata.yaml")
    if not metadata.is_file():
        return [PLAYED[0], "/joint_states", "/action_sequence"]
    topics = yaml.safe_load(metadata.read_text())["rosbag2_bagfile_information"]["topics_with_message_count"]
    recorded = {topic["topic_metadata"]["name"] for topic in topics}
    return [PLAYED[0], *(topic for topic in PLAYED[1:] if topic in recorded)]


def bag_player(context: LaunchContext) -> Node:
    """The recorded robot, on the topics that the node listens to."""
    recorded = {
        "image": "/camera/image_raw",
        "joint_states": "/joint_states",
        "odom": "/odom",
        "cmd_vel": "/cmd_vel",
        "action_sequence": "/action_sequence",
    }
    return Node(
        package="astra_ros",
        executable="bag_player",
        name="bag_player",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            {
                # Read as YAML, a recording called 001 would be a number, and a rate of 2 no float.
                "bag": ParameterValue(LaunchConfiguration("bag"), value_type=str),
                "rate": ParameterValue(LaunchConfiguration("rate"), value_type=float),
                "loop": True,
                "topics": played(LaunchConfiguration("bag").perform(context)),
                "restamp": IfElseSubstitution(IS_SIMULATED, "false", "true"),
                "clock_hz": IfElseSubstitution(IS_SIMULATED, "100.0", "0.0"),
                "decompress": EqualsSubstitution(LaunchConfiguration("image_transport"), "raw"),
                "wait_s": 30.0,
            }
        ],
        remappings=[
            ("/camera/image_raw/compressed", [LaunchConfiguration("image"), "/compressed"]),
            *((topic, LaunchConfiguration(argument)) for argument, topic in recorded.items()),
        ],
        additional_env=dict.fromkeys(FASTDDS_PROFILE, LaunchConfiguration("fastdds_profile")),
        condition=IfCondition(LaunchConfiguration("demo")),
        output="screen",
    )


def rviz(context: LaunchContext) -> Node:
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", shared("config", "world_model.rviz")],
        remappings=[("/world_model/preview/image", "world_model/preview/image")],  # into the namespace
        parameters=clock(context),
        condition=IfCondition(LaunchConfiguration("rviz")),
    )


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription(
        [
            *(declare(*argument) for argument in ARGUMENTS),
            OpaqueFunction(function=world_model),
            OpaqueFunction(function=lambda context: [bag_player(context), rviz(context)]),
        ]
    )
